"""Tombstones cover invalidated answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cashier.fanout.l2.tombstones import TOLERANCE_MS, Tombstones

NOW = 1_700_000_000_000
TEXT = st.text(alphabet="ab", max_size=3)


def test_a_tombstone_covers_calls_before_the_invalidation_and_none_after() -> None:
    tombstones = Tombstones()
    tombstones.add("card", key="u_1", now_ms=NOW)
    assert tombstones.covers("card", "u_1", NOW - 1)
    assert tombstones.covers("card", "u_1", NOW + TOLERANCE_MS), "the caller's clock may be ahead"
    assert not tombstones.covers("card", "u_1", NOW + TOLERANCE_MS + 1)


def test_other_keys_and_sources_are_not_covered() -> None:
    tombstones = Tombstones()
    tombstones.add("card", key="u_1", now_ms=NOW)
    tombstones.add("card", prefix="m_", now_ms=NOW)
    assert not tombstones.covers("card", "u_12", NOW)
    assert not tombstones.covers("member", "u_1", NOW)
    assert not tombstones.covers("member", "m_1", NOW)
    assert not tombstones.covers("card", "m", NOW)


def test_a_prefix_covers_its_keys_and_an_empty_one_the_whole_source() -> None:
    tombstones = Tombstones()
    tombstones.add("card", prefix="u_", now_ms=NOW)
    tombstones.add("member", prefix="", now_ms=NOW)
    assert tombstones.covers("card", "u_", NOW)
    assert tombstones.covers("card", "u_1", NOW)
    assert tombstones.covers("member", "anybody", NOW)
    assert not tombstones.covers("card", "v_1", NOW)


def test_a_clock_that_is_set_back_restores_nothing() -> None:
    tombstones = Tombstones()
    tombstones.add("card", key="u_1", now_ms=NOW)
    tombstones.add("card", key="u_1", now_ms=NOW - 60_000)
    assert tombstones.covers("card", "u_1", NOW)


def test_beyond_the_capacity_the_oldest_goes_and_covers_all_answers_before_it() -> None:
    tombstones = Tombstones(capacity=2, tolerance_ms=0)
    tombstones.add("card", prefix="a", now_ms=NOW)
    tombstones.add("card", key="b", now_ms=NOW + 1)
    assert not tombstones.covers("order", "x", NOW)
    tombstones.add("card", key="c", now_ms=NOW + 2)
    assert len(tombstones) == 2
    assert tombstones.covers("card", "a", NOW)
    assert tombstones.covers("order", "x", NOW), "it may have been this one"
    assert not tombstones.covers("order", "x", NOW + 1)
    assert not tombstones.covers("card", "a", NOW + 1)


def test_a_repeated_invalidation_makes_its_tombstone_the_youngest() -> None:
    tombstones = Tombstones(capacity=2, tolerance_ms=0)
    tombstones.add("card", key="a", now_ms=NOW)
    tombstones.add("card", key="b", now_ms=NOW + 1)
    tombstones.add("card", key="a", now_ms=NOW + 5)
    tombstones.add("card", key="c", now_ms=NOW + 6)
    assert tombstones.covers("card", "a", NOW + 5)
    assert not tombstones.covers("card", "b", NOW + 2), "this one was dropped"
    assert "2 of 2" in repr(tombstones)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["s", "t"]), TEXT), max_size=12),
    st.integers(1, 12),
    st.sampled_from(["s", "t"]),
    TEXT,
    st.integers(0, 13),
)
def test_no_answer_that_may_predate_its_invalidation_is_uncovered(
    invalidations: list[tuple[bool, str, str]], capacity: int, source: str, key: str, born_ms: int
) -> None:
    tombstones = Tombstones(capacity, tolerance_ms=0)
    last_ms = -1
    for at_ms, (of_prefix, of, text) in enumerate(invalidations):
        tombstones.add(of, key=None if of_prefix else text, prefix=text if of_prefix else None, now_ms=at_ms)
        if of == source and (key.startswith(text) if of_prefix else key == text):
            last_ms = at_ms
    assert len(tombstones) <= capacity
    if born_ms <= last_ms:
        assert tombstones.covers(source, key, born_ms)
    elif len(set(invalidations)) <= capacity:
        assert not tombstones.covers(source, key, born_ms)
