"""The index of keys: it finds what a prefix covers, and reads little else."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cashier.fanout import key_index
from cashier.fanout.key_index import KeyIndex, key_text
from cashier.fanout.l2.invalidation import covers_key

PART = st.text("u1_/%*", max_size=3)
KEY: st.SearchStrategy[Hashable] = PART | st.lists(PART, min_size=2, max_size=3).map(tuple)
STEP = st.tuples(st.sampled_from(["add", "add", "discard", "find"]), KEY, st.text("u1_/%*", max_size=4))


@given(st.lists(STEP, max_size=25), st.sampled_from([0, 2, 1000]))
def test_a_prefix_finds_exactly_the_keys_that_it_covers(steps: list[tuple[str, Hashable, str]], unsorted: int) -> None:
    index, keys = KeyIndex(), set[Hashable]()
    before, key_index._UNSORTED = key_index._UNSORTED, unsorted
    try:
        for what, key, prefix in steps:
            if what == "add":
                index.add(key)
                keys.add(key)
            elif what == "discard":
                index.discard(key)
                keys.discard(key)
            found = index.covered(prefix)
            assert len(found) == len(set(found))
            assert set(found) == {each for each in keys if not prefix or covers_key(prefix, key_text(each))}
            assert len(index) == len(keys)
    finally:
        key_index._UNSORTED = before


class CountingList(list[str]):
    """A list that counts how many of its items are read."""

    reads = 0

    def __getitem__(self, place: Any) -> Any:
        self.reads += 1
        return super().__getitem__(place)

    def __iter__(self) -> Any:
        self.reads += len(self)
        return super().__iter__()


def test_a_prefix_reads_what_it_covers_and_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    index = KeyIndex()
    for number in range(20_000):
        index.add(f"u_{number}")
    index.covered("none")  # from now on the order is kept
    assert index._sorted is not None
    segments = index._sorted = CountingList(index._sorted)
    compared: list[str] = []

    def counting(prefix: str, key: str) -> bool:
        compared.append(key)
        return covers_key(prefix, key)

    monkeypatch.setattr(key_index, "covers_key", counting)
    for number in range(50):
        assert len(index.covered(f"u_{100 + number}/")) == 1
        assert len(index.covered(f"u_1{100 + number}")) == 11
    assert len(compared) == 50 * 12
    assert 0 < segments.reads < 50 * 40


@pytest.mark.parametrize("again", [20, 500, 1_000_000])
@pytest.mark.parametrize("present", [1, 50, 700])
def test_keys_that_have_gone_take_no_memory(present: int, again: int) -> None:
    """`again`: after how many keys a prefix is asked for once more."""
    index = KeyIndex()
    for number in range(5_000):
        index.add(f"u_{number}")
        if number >= present:
            index.discard(f"u_{number - present}")
        if number == present or not number % again:
            index.covered("u_1")
        assert len(index._sorted or ()) + len(index._unsorted) <= 2 * (present + 1) + key_index._UNSORTED


def test_whole_users_are_found_among_those_that_start_alike() -> None:
    index = KeyIndex()
    for key in ("u_1", "u_10", ("u_1", "CNY"), ("u_10", "CNY"), ("u_1/", "CNY")):
        index.add(key)
    assert set(index.covered("u_1/")) == {"u_1", ("u_1", "CNY")}
    assert set(index.covered("u_1")) == {"u_1", "u_10", ("u_1", "CNY"), ("u_10", "CNY"), ("u_1/", "CNY")}
    assert index.covered("u_1/CNY") == [("u_1", "CNY")]
