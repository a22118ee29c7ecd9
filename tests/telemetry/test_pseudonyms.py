"""Pseudonyms: keyed, in the order of the ids, and one key for the workers of a run."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cashier.telemetry.pseudonyms import KEY_BYTES, Pseudonyms, key_of_run


@given(st.sets(st.text(max_size=4), max_size=30))
def test_pseudonyms_sort_as_the_ids(names: set[str]) -> None:
    found = Pseudonyms(b"k").in_order("i", names)
    assert [found[name] for name in sorted(names)] == sorted(found.values())
    assert len(set(found.values())) == len(names)


def test_key_and_role_decide() -> None:
    codes = {
        Pseudonyms(key).of(role, name).partition("_")[2]
        for key in (b"k", b"l")
        for role in "um"
        for name in ("u_1", "u_2")
    }
    assert len(codes) == 8


def test_the_workers_of_a_run_share_a_key_that_only_they_can_read(tmp_path: Path) -> None:
    first = key_of_run(tmp_path)
    assert len(first) == KEY_BYTES
    assert key_of_run(tmp_path) == first
    [file] = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_without_room_each_process_has_a_key_of_its_own(tmp_path: Path) -> None:
    assert key_of_run(None) != key_of_run(None)
    assert len(key_of_run(tmp_path / "gone")) == KEY_BYTES
    (tmp_path / "pseudonyms.key").write_bytes(b"cut")
    assert len(key_of_run(tmp_path)) == KEY_BYTES
    assert key_of_run(tmp_path) != b"cut"
