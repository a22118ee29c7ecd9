"""Totals over workers that come, count, end and are replaced."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cashier.metrics import layout
from cashier.metrics.reader import StoreReader
from cashier.metrics.snapshot import Snapshot
from cashier.metrics.store import Store
from cashier.ops.aggregation import WorkerStores

SHED = "cashier_shed_total"
LAG = "cashier_payment_unknown_oldest_seconds"
WAIT = "cashier_queue_wait_seconds"
WORKERS = "cashier_workers"
ENDS = "cashier_worker_ends_total"


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[WorkerStores]:
    stores = WorkerStores(tmp_path)
    yield stores
    stores.close()


def value(snapshot: Snapshot, name: str, *labels: str) -> Any:
    return snapshot.get(name, {}).get(labels)


def test_counters_of_workers_are_added(tmp_path: Path, stores: WorkerStores) -> None:
    workers = [Store.create(tmp_path / f"{number}.metrics") for number in range(2)]
    for number, worker in enumerate(workers):
        worker.counter(SHED, "low", "3").add(number + 1)
        worker.gauge(LAG).set(number)
    assert value(stores.snapshot(), SHED, "low", "3") == 3
    workers[0].counter(SHED, "low", "3").add(10)
    assert value(stores.snapshot(), SHED, "low", "3") == 13
    assert value(stores.snapshot(), LAG) == 1
    assert value(stores.snapshot(), WORKERS) == 2


@pytest.mark.moves("cashier_workers")
def test_a_worker_that_ends_leaves_its_counters_and_takes_its_gauges(tmp_path: Path, stores: WorkerStores) -> None:
    worker = Store.create(tmp_path / "1.metrics")
    worker.gauge(LAG).set(1)
    worker.counter(SHED, "low", "3").add(5)
    stores.snapshot()
    worker.counter(SHED, "low", "3").add(6)
    worker.histogram(WAIT).record(1)
    del worker
    for _ in range(3):
        snapshot = stores.snapshot()
        assert value(snapshot, SHED, "low", "3") == 11
        assert value(snapshot, WAIT).count == 1
        assert value(snapshot, LAG) is None
        assert value(snapshot, WORKERS) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_lived_between_two_scrapes_is_counted(tmp_path: Path, stores: WorkerStores) -> None:
    stores.snapshot()
    worker = Store.create(tmp_path / "1.metrics")
    worker.counter(SHED, "low", "3").add(5)
    del worker
    stores.fold_ended()
    assert value(stores.snapshot(), SHED, "low", "3") == 5


def test_a_file_that_cannot_be_removed_is_added_once(
    tmp_path: Path, stores: WorkerStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.create(tmp_path / "1.metrics").counter(SHED, "low", "3").add(5)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refuse)
    for _ in range(3):
        assert value(stores.snapshot(), SHED, "low", "3") == 5


def test_a_file_without_its_name_is_still_read(tmp_path: Path, stores: WorkerStores) -> None:
    worker = Store.create(tmp_path / "1.metrics")
    stores.snapshot()
    (tmp_path / "1.metrics").unlink()
    worker.counter(SHED, "low", "3").add(5)
    assert value(stores.snapshot(), SHED, "low", "3") == 5


@pytest.mark.parametrize("during_life", [True, False])
def test_a_file_that_cannot_be_read_at_the_moment_keeps_its_last_numbers(
    tmp_path: Path, stores: WorkerStores, monkeypatch: pytest.MonkeyPatch, during_life: bool
) -> None:
    worker = Store.create(tmp_path / "1.metrics")
    worker.counter(SHED, "low", "3").add(5)
    stores.snapshot()

    def fail(_: StoreReader) -> Snapshot:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(StoreReader, "read", fail)
        if not during_life:
            del worker
        for _ in range(3):
            assert value(stores.snapshot(), SHED, "low", "3") == 5
    assert [log["event"] for log in logs] == ["a file with a worker's metrics cannot be read"]
    assert value(stores.snapshot(), SHED, "low", "3") == 5


@pytest.mark.parametrize("error", [errno.EMFILE, errno.EACCES, errno.ENOENT, errno.EIO])
def test_a_directory_that_cannot_be_read_at_the_moment_costs_only_what_is_new(
    tmp_path: Path, stores: WorkerStores, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    workers = [Store.create(tmp_path / "1.metrics")]
    workers[0].counter(SHED, "low", "3").add(5)
    stores.snapshot()

    def fail(*_: object) -> Iterator[Path]:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(Path, "glob", fail)
        workers.append(Store.create(tmp_path / "2.metrics"))
        for worker in workers:
            worker.counter(SHED, "low", "3").add(1)
        for _ in range(3):
            assert value(stores.snapshot(), SHED, "low", "3") == 6
    assert [log["reason"] for log in logs] == [os.strerror(error)]
    assert value(stores.snapshot(), SHED, "low", "3") == 7


def test_foreign_files_are_reported_once_and_left_alone(tmp_path: Path, stores: WorkerStores) -> None:
    (tmp_path / "text.metrics").write_text("nothing of ours" * 1000)
    (tmp_path / "empty.metrics").touch()
    (tmp_path / "folder.metrics").mkdir()
    (tmp_path / "link.metrics").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe.metrics")
    (tmp_path / ".9.metrics.unfinished").write_text("half")
    Store.create(tmp_path / "cut.metrics")
    os.truncate(tmp_path / "cut.metrics", layout.DIRECTORY_AT)
    worker = Store.create(tmp_path / "1.metrics")
    worker.counter(SHED, "low", "3").add(5)
    names = sorted(path.name for path in tmp_path.iterdir())
    with capture_logs() as logs:
        for _ in range(3):
            assert value(stores.snapshot(), SHED, "low", "3") == 5
            assert value(stores.snapshot(), WORKERS) == 1
    assert sorted(log["file"] for log in logs) == [
        "empty.metrics", "folder.metrics", "link.metrics", "pipe.metrics", "text.metrics",
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [name for name in names if name != "cut.metrics"]


def test_a_truncated_file_of_a_live_worker_keeps_its_last_numbers(tmp_path: Path, stores: WorkerStores) -> None:
    worker = Store.create(tmp_path / "1.metrics")
    worker.counter(SHED, "low", "3").add(5)
    stores.snapshot()
    os.truncate(tmp_path / "1.metrics", 20)
    assert value(stores.snapshot(), SHED, "low", "3") == 5
    os.truncate(tmp_path / "1.metrics", 0)
    assert value(stores.snapshot(), SHED, "low", "3") == 5


def test_without_a_run_directory_there_are_no_workers() -> None:
    assert WorkerStores(None).snapshot() == {WORKERS: {(): 0}, ENDS: {(): 0}}


def test_a_reader_does_not_keep_a_writer_from_its_lock(tmp_path: Path, stores: WorkerStores) -> None:
    worker = Store.create(tmp_path / "1.metrics")
    stores.snapshot()
    with (tmp_path / "1.metrics").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert worker.snapshot() == {}


@given(st.lists(st.tuples(st.sampled_from(["count", "end", "scrape", "fold"]), st.integers(0, 3)), max_size=40))
def test_totals_are_exact_and_never_fall(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Any history of workers that count, end, are replaced and are scraped equals one sum."""
    folder = tmp_path_factory.mktemp("run")
    stores, workers, names, total, sum_ns = WorkerStores(folder), dict[int, Store](), 0, 0, 0
    for action, index in steps:
        match action:
            case "count":
                if index not in workers:
                    names += 1
                    workers[index] = Store.create(folder / f"{names}.metrics")
                workers[index].counter(SHED, "low", "3").add(index)
                workers[index].histogram(WAIT).record(index)
                total, sum_ns = total + index, sum_ns + index
            case "end":
                workers.pop(index, None)
            case "fold":
                stores.fold_ended()
            case "scrape":
                snapshot = stores.snapshot()
                assert value(snapshot, SHED, "low", "3") == (total if names else None)
                assert not names or value(snapshot, WAIT).sum_ns == sum_ns
                assert value(snapshot, WORKERS) == len(workers)
    stores.close()
