"""A bounded cache that keeps only what recurs.

To keep what is never met again is dear: it has left the processor's caches when it is freed. So a
key gets a value when it is met the second time, and of a key that was met once only the hash is
kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class RecurringValues(Generic[Value]):
    """At most `size` values, and as many hashes of keys that were met once. The oldest go first.

    By hash, because to hash a key of many parts costs more than all else here. Of two keys with one
    hash, only one has a value.
    """

    __slots__ = ("_kept", "_met", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[int, tuple[Hashable, Value]] = {}
        self._met: dict[int, None] = {}

    def find(self, key: Hashable, make: Callable[[], Value]) -> Value | None:
        """The value of an equal key, made when the key recurs; None at first."""
        key_hash = hash(key)
        kept = self._kept.get(key_hash)
        if kept is None:
            if key_hash not in self._met:
                self._make_room(self._met)
                self._met[key_hash] = None
                return None
            del self._met[key_hash]
            self._make_room(self._kept)
            kept = self._kept[key_hash] = (key, make())
        return kept[1] if kept[0] == key else None

    def _make_room(self, entries: dict[int, Any]) -> None:
        if len(entries) >= self._size:
            del entries[next(iter(entries))]

    def __repr__(self) -> str:
        return f"<RecurringValues: {len(self._kept)} of {self._size}>"
