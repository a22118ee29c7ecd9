"""Tombstones: what was invalidated, and when, so that no late reader or writer brings an old value back. Pure: the time is handed in.

An upstream's answer is as old as the beginning of its call. One whose call began before its invalidation may be what was invalidated.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

# Who invalidates and who asks may be on two machines, and their clocks differ a little.
TOLERANCE_MS = 1000


# The source, whether it stands for a prefix, and the key or the prefix.
Place: TypeAlias = tuple[str, bool, str]


class Tombstones:
    """At most `capacity` of them. When there are more, the oldest goes, and with it everything born before it, of whatever source."""

    __slots__ = ("_capacity", "_floor_ms", "_lengths", "_tolerance_ms", "_until_ms")

    def __init__(self, capacity: int = 10_000, tolerance_ms: int = TOLERANCE_MS) -> None:
        self._capacity = capacity
        self._tolerance_ms = tolerance_ms
        # The oldest first, because a dict keeps the order of insertion.
        self._until_ms: dict[Place, int] = {}
        # How many prefixes there are of each length, by source.
        self._lengths: dict[str, Counter[int]] = {}
        self._floor_ms = -1

    def __len__(self) -> int:
        return len(self._until_ms)

    def __repr__(self) -> str:
        return f"<Tombstones {len(self)} of {self._capacity} floor_ms={self._floor_ms}>"

    def bury(self, source: str, *, key: str | None = None, prefix: str | None = None, now_ms: int) -> None:
        """The key, or everything that begins with the prefix, is invalid as of `now_ms` (wall clock)."""
        if key is not None:
            self._set((source, False, key), now_ms)
        if prefix is not None and self._set((source, True, prefix), now_ms):
            self._lengths.setdefault(source, Counter())[len(prefix)] += 1
        while len(self) > self._capacity:
            self._forget_oldest()

    def buried(self, source: str, key: str, born_ms: int) -> bool:
        """Whether an answer whose call began at `born_ms` may be older than an invalidation of it."""
        until_ms = self._until_ms
        if born_ms <= self._floor_ms or born_ms <= until_ms.get((source, False, key), -1):
            return True
        # As many look-ups as the prefixes of this source have different lengths, however many prefixes there are.
        lengths = self._lengths.get(source, ())
        return any(
            born_ms <= until_ms.get((source, True, key[:length]), -1) for length in lengths if length <= len(key)
        )

    def _set(self, endpoint: Place, now_ms: int) -> bool:
        """Whether it is a new one. A clock that was put back does not shorten what was said before."""
        last_ms = self._until_ms.pop(endpoint, None)
        self._until_ms[endpoint] = max(now_ms + self._tolerance_ms, last_ms or 0)
        return last_ms is None

    def _forget_oldest(self) -> None:
        endpoint = next(iter(self._until_ms))
        self._floor_ms = max(self._floor_ms, self._until_ms.pop(endpoint))
        source, of_prefix, text = endpoint
        if of_prefix:
            lengths = self._lengths[source]
            lengths[len(text)] -= 1
            if not lengths[len(text)]:
                del lengths[len(text)]
