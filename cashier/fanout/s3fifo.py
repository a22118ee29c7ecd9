"""A bounded store of cached answers with S3-FIFO eviction. No timer, no clock.

S3-FIFO (Yang et al., SOSP 2023): a new entry waits in a small queue; it enters the main queue if it
is hit there, or comes back soon after its eviction. The hit ratio is that of W-TinyLFU's class, and
a hit costs one flag.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Protocol

from cashier.metrics.store import Store

_SMALL_SHARE = 10


class StoreEntry(Protocol):
    """A stored entry. `used` is set at each hit."""

    used: bool

    def ghost_key(self) -> Hashable:
        """Identify the entry if it comes back after its eviction: its cache, and its key there."""

    def evicted(self) -> None:
        """Called by the store after it has removed the entry for lack of room."""


class S3FifoStore:
    """At most `capacity` entries of any number of caches. Keys are unique per cache only."""

    __slots__ = ("_ghosts", "_main", "_size", "_small", "capacity", "evictions")

    def __init__(self, capacity: int, metrics: Store | None = None) -> None:
        metrics = metrics or Store()
        self.capacity = capacity
        self.evictions = metrics.counter("cashier_cache_evictions_total")
        self._size = metrics.gauge("cashier_cache_entries")
        self._small: OrderedDict[StoreEntry, None] = OrderedDict()
        self._main: OrderedDict[StoreEntry, None] = OrderedDict()
        self._ghosts: OrderedDict[Hashable, None] = OrderedDict()

    def add(self, entry: StoreEntry) -> None:
        """Store the entry, and evict another if the store is full."""
        while len(self) >= self.capacity:
            self._evict()
        ghost_key = entry.ghost_key()
        if ghost_key in self._ghosts:
            del self._ghosts[ghost_key]
            self._main[entry] = None
        else:
            self._small[entry] = None

    def sample(self) -> None:
        """Set the gauge."""
        self._size.set(len(self))

    def remove(self, entry: StoreEntry) -> None:
        """Remove the entry, if it is stored."""
        self._small.pop(entry, None)
        self._main.pop(entry, None)

    def _evict(self) -> None:
        if len(self._small) * _SMALL_SHARE >= self.capacity or not self._main:
            entry, _ = self._small.popitem(last=False)
            if entry.used:
                entry.used = False
                self._main[entry] = None
                return
            self._ghosts[entry.ghost_key()] = None
            if len(self._ghosts) > self.capacity:
                self._ghosts.popitem(last=False)
        else:
            entry, _ = self._main.popitem(last=False)
            if entry.used:
                entry.used = False
                self._main[entry] = None
                return
        self.evictions.add()
        entry.evicted()

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def __repr__(self) -> str:
        return f"<S3FifoStore {len(self)} of {self.capacity} entries, {self.evictions.value} evicted>"
