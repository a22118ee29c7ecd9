"""The S3-FIFO store: its capacity, its evictions, and its hit ratio against LRU and FIFO."""

from __future__ import annotations

import bisect
import itertools
from collections import OrderedDict
from collections.abc import Hashable
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cashier.fanout.s3fifo import S3FifoStore
from cashier.metrics.store import Store


class Item:
    def __init__(self, home: dict[Hashable, Item], key: Hashable) -> None:
        self.home = home
        self.key = key
        self.used = False

    def ghost_key(self) -> Hashable:
        return id(self.home), self.key

    def evicted(self) -> None:
        assert self.home.pop(self.key) is self, "a wrong entry was evicted"


def look_up(store: S3FifoStore, home: dict[Hashable, Item], key: Hashable) -> bool:
    """Look up as a cache does. Returns whether it was a hit."""
    entry = home.get(key)
    if entry is not None:
        entry.used = True
        return True
    made = Item(home, key)
    store.add(made)
    home[key] = made
    return False


@given(
    st.integers(1, 12), st.lists(st.tuples(st.sampled_from(["look up", "remove"]), st.integers(0, 20)), max_size=300)
)
def test_the_store_matches_its_cache_and_never_exceeds_its_capacity(
    capacity: int, steps: list[tuple[str, int]]
) -> None:
    store = S3FifoStore(capacity)
    home: dict[Hashable, Item] = {}
    for what, key in steps:
        if what == "look up":
            look_up(store, home, key)
        elif key in home:
            store.remove(home.pop(key))
        assert len(store) == len(home) <= capacity


@pytest.mark.moves("cashier_cache_entries", "cashier_cache_evictions_total")
def test_entries_and_those_that_found_no_room_are_counted() -> None:
    metrics = Store()
    store, home = S3FifoStore(10, metrics), dict[Hashable, Item]()
    entries = metrics.gauge("cashier_cache_entries")
    evictions = metrics.counter("cashier_cache_evictions_total")
    for key in range(10):
        look_up(store, home, key)
    store.remove(home.pop(0))
    store.sample()
    assert (entries.value, evictions.value) == (9, 0), "a removal is no eviction"
    for key in range(10, 14):
        look_up(store, home, key)
    store.sample()
    assert (entries.value, evictions.value) == (10, 3)


def test_removing_an_absent_entry_does_nothing() -> None:
    store = S3FifoStore(3)
    home: dict[Hashable, Item] = {}
    look_up(store, home, 1)
    store.remove(Item(home, 1))
    assert len(store) == 1


def test_caches_that_share_a_store_lose_only_their_own_entries() -> None:
    store = S3FifoStore(4)
    cards: dict[Hashable, Item] = {}
    members: dict[Hashable, Item] = {}
    for key in range(20):
        look_up(store, cards, key)
        look_up(store, members, key)
        assert len(cards) + len(members) == len(store) <= 4
    assert repr(store) == "<S3FifoStore 4 of 4 entries, 36 evicted>"


def test_an_entry_hit_in_the_small_queue_moves_to_the_main_queue() -> None:
    store = S3FifoStore(10)
    home: dict[Hashable, Item] = {}
    look_up(store, home, 0)
    look_up(store, home, 0)
    for key in range(1, 12):
        look_up(store, home, key)
    assert 0 in home
    assert 1 not in home


def test_a_hit_entry_survives_a_flood_of_entries_without_hits() -> None:
    store = S3FifoStore(100)
    home: dict[Hashable, Item] = {}
    for key in itertools.chain(range(20), range(20)):
        look_up(store, home, key)
    for key in range(1_000, 11_000):
        look_up(store, home, key)
        if key % 50 == 0:
            for kept in range(20):
                look_up(store, home, kept)
    assert all(key in home for key in range(20))


def test_an_entry_that_returns_soon_after_its_eviction_enters_the_main_queue() -> None:
    store = S3FifoStore(10)
    home: dict[Hashable, Item] = {}
    for key in range(11):
        look_up(store, home, key)
    assert 0 not in home
    look_up(store, home, 0)
    for key in range(100, 120):
        look_up(store, home, key)
    assert 0 in home


def test_equal_keys_of_two_caches_have_separate_ghosts() -> None:
    store = S3FifoStore(10)
    cards: dict[Hashable, Item] = {}
    members: dict[Hashable, Item] = {}
    for key in range(6):
        look_up(store, cards, key)
        look_up(store, members, key)
    assert 0 not in cards
    assert 0 not in members
    look_up(store, cards, 0)
    look_up(store, members, 0)
    for key in range(100, 120):
        look_up(store, cards, key)
    assert 0 in cards
    assert 0 in members


def zipf(random: Random, keys: int, count: int) -> list[int]:
    weights = list(itertools.accumulate(1 / rank**0.9 for rank in range(1, keys + 1)))
    return [bisect.bisect(weights, random.random() * weights[-1]) for _ in range(count)]


def hits_of_queue(keys: list[int], capacity: int, *, by_use: bool) -> int:
    """The hits of LRU or FIFO."""
    kept: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in keys:
        if key in kept:
            hits += 1
            if by_use:
                kept.move_to_end(key)
        else:
            if len(kept) >= capacity:
                kept.popitem(last=False)
            kept[key] = None
    return hits


@pytest.mark.parametrize("seed", range(3))
def test_on_a_skewed_stream_the_hit_ratio_beats_lru_and_fifo(seed: int) -> None:
    keys = zipf(Random(seed), 20_000, 60_000)
    store = S3FifoStore(1_000)
    home: dict[Hashable, Item] = {}
    hits = sum(look_up(store, home, key) for key in keys)
    assert hits > 1.1 * hits_of_queue(keys, 1_000, by_use=True)
    assert hits > 1.15 * hits_of_queue(keys, 1_000, by_use=False)
