"""Store: which of many cached answers are kept when there is no room for all. Bounded in number, without a timer or a clock.

S3-FIFO (Yang et al., SOSP 2023): what comes anew waits in a small queue, and only what is asked for again there, or comes back soon after
it was thrown out, gets into the large one. Its hit ratio is W-TinyLFU's class, and a hit costs the setting of one flag.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Protocol

_SMALL_SHARE = 10


class StoreEntry(Protocol):
    """Something that is kept. `used` is set at each hit."""

    used: bool

    def trace(self) -> Hashable:
        """What it is known by when it comes back after it was thrown out: its cache, and its key there."""

    def evicted(self) -> None:
        """There was no room. Called by the store, which has let go of it already."""


class S3FifoStore:
    """At most `capacity` entries, of any number of caches. Keys need to be unique for each cache only."""

    __slots__ = ("_ghosts", "_main", "_small", "capacity", "evictions")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.evictions = 0
        self._small: OrderedDict[StoreEntry, None] = OrderedDict()
        self._main: OrderedDict[StoreEntry, None] = OrderedDict()
        self._ghosts: OrderedDict[Hashable, None] = OrderedDict()

    def add(self, entry: StoreEntry) -> None:
        """Keep it, at the cost of another where there is no room."""
        while len(self) >= self.capacity:
            self._evict()
        trace = entry.trace()
        if trace in self._ghosts:
            del self._ghosts[trace]
            self._main[entry] = None
        else:
            self._small[entry] = None

    def remove(self, entry: StoreEntry) -> None:
        """It is of no use any more. Nothing happens where it is not kept."""
        self._small.pop(entry, None)
        self._main.pop(entry, None)

    def _evict(self) -> None:
        if len(self._small) * _SMALL_SHARE >= self.capacity or not self._main:
            entry, _ = self._small.popitem(last=False)
            if entry.used:
                entry.used = False
                self._main[entry] = None
                return
            self._ghosts[entry.trace()] = None
            if len(self._ghosts) > self.capacity:
                self._ghosts.popitem(last=False)
        else:
            entry, _ = self._main.popitem(last=False)
            if entry.used:
                entry.used = False
                self._main[entry] = None
                return
        self.evictions += 1
        entry.evicted()

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def __repr__(self) -> str:
        return f"<Store {len(self)} of {self.capacity} entries, {self.evictions} evicted>"
