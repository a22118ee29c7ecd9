"""The run directory: private, in a place with room, gone at the end, and left-overs removed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cashier.ops import run_directory as module
from cashier.ops.run_directory import run_directory, worker_store


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    found = (tmp_path / "memory", tmp_path / "disk")
    for place in found:
        place.mkdir()
    monkeypatch.setattr(module, "places", lambda: found)
    return found


def test_the_directory_is_private_and_ends_with_its_service(places: tuple[Path, Path]) -> None:
    with run_directory(2) as directory:
        assert directory is not None
        assert directory.parent == places[0]
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert list(directory.iterdir()) == []
        store = worker_store(directory)
        assert store is not None
        assert len(list(directory.iterdir())) == 1
    assert [list(place.iterdir()) for place in places] == [[], []]


def test_each_worker_has_a_file_of_its_own(places: tuple[Path, Path]) -> None:
    with run_directory(2) as directory:
        stores = [worker_store(directory) for _ in range(3)]
        assert directory is not None
        assert len(list(directory.glob("*.metrics"))) == len(stores)


def test_a_place_without_room_is_left_for_the_next(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    allocate = os.posix_fallocate

    def full(descriptor: int, offset: int, length: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(places[0]):
            raise OSError(28, "No space left on device")
        allocate(descriptor, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with run_directory(2) as directory:
        assert directory is not None
        assert directory.parent == places[1]
        assert list(places[0].iterdir()) == []


def test_without_a_temporary_directory_memory_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose file system is read-only."""

    def none_usable() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none_usable)
    assert list(module.places()) == [Path("/dev/shm")]


def test_without_any_place_the_service_starts_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(module, "places", lambda: (tmp_path / "absent", tmp_path / "file"))
    with capture_logs() as logs, run_directory(2) as directory:
        assert directory is None
        assert worker_store(directory) is None
    (log,) = logs
    assert log["log_level"] == "warning"
    assert log["reasons"] == [f"{tmp_path}/absent: No such file or directory", f"{tmp_path}/file: Not a directory"]


def test_a_worker_without_room_counts_for_itself(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with run_directory(2) as directory, capture_logs() as logs:
        monkeypatch.setattr(os, "posix_fallocate", full)
        assert worker_store(directory) is None
    assert [log["reason"] for log in logs] == ["No space left on device"]


def test_a_start_removes_what_killed_services_left_and_nothing_else(places: tuple[Path, Path]) -> None:
    killed = places[0] / f"cashier-{os.getuid()}-killed"
    killed.mkdir()
    (killed / "1.metrics").touch()
    foreign = places[0] / "cashier-someone"
    foreign.mkdir()
    link = places[0] / f"cashier-{os.getuid()}-link"
    link.symlink_to(foreign)
    unfinished = places[0] / f".cashier-{os.getuid()}-new"
    unfinished.mkdir()
    old = places[0] / f".cashier-{os.getuid()}-old"
    old.mkdir()
    os.utime(old, (0, 0))
    with run_directory(1) as first, run_directory(1) as second:
        assert first is not None
        assert second is not None
        assert first.is_dir()
        assert second.is_dir()
        assert not killed.exists()
        assert not old.exists()
        assert foreign.is_dir()
        assert link.is_symlink()
        assert unfinished.is_dir()
