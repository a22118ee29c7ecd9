"""Tombstones: recent invalidations, so that no late reader or writer restores an old value.

An answer is as old as the start of its call. If the call started before the invalidation, the
answer may be the invalidated one.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

from cashier.fanout.l2.invalidation import SEPARATOR

# Clock difference between the machine that invalidates and the one that calls.
TOLERANCE_MS = 1000


# The source, whether the text is a prefix, and the key or prefix.
TombstoneKey: TypeAlias = tuple[str, bool, str]


class Tombstones:
    """At most `capacity` tombstones.

    The oldest goes first, and with it every answer born before it, of any source.
    """

    __slots__ = ("_capacity", "_floor_ms", "_prefix_lengths", "_tolerance_ms", "_until_ms")

    def __init__(self, capacity: int = 10_000, tolerance_ms: int = TOLERANCE_MS) -> None:
        self._capacity = capacity
        self._tolerance_ms = tolerance_ms
        # The oldest first: a dict keeps the order of insertion.
        self._until_ms: dict[TombstoneKey, int] = {}
        # By source: the number of prefixes of each length.
        self._prefix_lengths: dict[str, Counter[int]] = {}
        self._floor_ms = -1

    def __len__(self) -> int:
        return len(self._until_ms)

    def __repr__(self) -> str:
        return f"<Tombstones {len(self)} of {self._capacity} floor_ms={self._floor_ms}>"

    def add(self, source: str, *, key: str | None = None, prefix: str | None = None, now_ms: int) -> None:
        """Invalidate a key, or all keys with a prefix, as of `now_ms` (wall clock)."""
        if key is not None:
            self._set((source, False, key), now_ms)
        if prefix is not None and self._set((source, True, prefix), now_ms):
            self._prefix_lengths.setdefault(source, Counter())[len(prefix)] += 1
        while len(self) > self._capacity:
            self._forget_oldest()

    def covers(self, source: str, key: str, born_ms: int) -> bool:
        """Whether an answer whose call started at `born_ms` may predate an invalidation."""
        until_ms = self._until_ms
        if born_ms <= self._floor_ms or born_ms <= until_ms.get((source, False, key), -1):
            return True
        # One look-up per distinct prefix length of this source, not per prefix. The separator is
        # for a prefix that ends in one: it covers the key before it.
        lengths = self._prefix_lengths.get(source, ())
        text = key + SEPARATOR
        return any(
            born_ms <= until_ms.get((source, True, text[:length]), -1) for length in lengths if length <= len(text)
        )

    def _set(self, tombstone: TombstoneKey, now_ms: int) -> bool:
        """Whether it is new. A clock that was set back does not shorten an earlier tombstone."""
        last_ms = self._until_ms.pop(tombstone, None)
        self._until_ms[tombstone] = max(now_ms + self._tolerance_ms, last_ms or 0)
        return last_ms is None

    def _forget_oldest(self) -> None:
        tombstone = next(iter(self._until_ms))
        self._floor_ms = max(self._floor_ms, self._until_ms.pop(tombstone))
        source, is_prefix, text = tombstone
        if is_prefix:
            lengths = self._prefix_lengths[source]
            lengths[len(text)] -= 1
            if not lengths[len(text)]:
                del lengths[len(text)]
