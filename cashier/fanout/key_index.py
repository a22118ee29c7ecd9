"""The keys of a cache by their first segment and in order, so that a prefix finds its keys.

No clock, no I/O. A key is a text, or several texts as a tuple; as a text it is written with
separators, and a separator in a part is escaped, so that no two keys are written alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Set
from typing import Any

from cashier.fanout.l2.invalidation import SEPARATOR, covers_key, segment_of

# New segments are sorted in when there are more: a sorted list takes one pass to extend.
_UNSORTED = 1000


def key_text(key: Hashable) -> str:
    """A key as operators and the second level write it: `u_1`, `CNY/CN`, `u_1/m_1/CNY/12800`.

    In a part `%` is written `%25`, and `/` is written `%2F`.
    """
    if isinstance(key, tuple):
        text = SEPARATOR.join(key)
        if "%" not in text and text.count(SEPARATOR) == len(key) - 1:
            return text
        return SEPARATOR.join(map(_escaped, key))
    return _escaped(str(key))


def parse_key_text(text: str) -> Hashable:
    parts = text.split(SEPARATOR)
    if "%" in text:
        parts = [part.replace("%2F", SEPARATOR).replace("%25", "%") for part in parts]
    return parts[0] if len(parts) == 1 else tuple(parts)


def _escaped(part: str) -> str:
    return part.replace("%", "%25").replace(SEPARATOR, "%2F") if "%" in part or SEPARATOR in part else part


class KeyIndex:
    """The keys of one cache. Adding and removing is constant; a prefix costs what it covers.

    The order is kept from the first text prefix on: it is not needed before. It is given up once
    most of it is of keys that have gone, so it takes memory by the present keys.
    """

    __slots__ = ("_by_segment", "_sorted", "_unsorted")

    def __init__(self) -> None:
        # A segment's only key, or the set of its keys: most have one, and a set is large.
        self._by_segment: dict[str, Any] = {}
        self._sorted: list[str] | None = None  # may hold segments that have no keys any more
        self._unsorted: list[str] = []

    def add(self, key: Hashable) -> None:
        segment = _first(key)
        keys = self._by_segment.get(segment)
        if keys is None:
            self._by_segment[segment] = key
            if self._sorted is not None:
                self._unsorted.append(segment)
                self._forget_if_outdated()
        elif isinstance(keys, set):
            keys.add(key)
        elif keys != key:
            self._by_segment[segment] = {keys, key}

    def discard(self, key: Hashable) -> None:
        segment = _first(key)
        keys = self._by_segment.get(segment)
        if isinstance(keys, set):
            keys.discard(key)
            if not keys:
                del self._by_segment[segment]
        elif keys == key:
            del self._by_segment[segment]

    def covered(self, prefix: str) -> list[Hashable]:
        """The keys that a prefix covers, see `covers_key`."""
        if not prefix:
            return [key for segment in self._by_segment for key in self._keys(segment)]
        segments = {segment_of(prefix)} if SEPARATOR in prefix else self._starting_with(prefix)
        return [key for segment in segments for key in self._keys(segment) if covers_key(prefix, key_text(key))]

    def _keys(self, segment: str) -> Set[Hashable]:
        keys = self._by_segment.get(segment)
        if isinstance(keys, set):
            return keys
        return set() if keys is None else {keys}

    def _starting_with(self, prefix: str) -> set[str]:
        self._forget_if_outdated()
        if self._sorted is None:
            self._sorted = sorted(self._by_segment)
        elif len(self._unsorted) > _UNSORTED:
            self._sorted = sorted(dict.fromkeys(self._sorted + sorted(self._unsorted)))
            self._unsorted = []
        found = {segment for segment in self._unsorted if segment.startswith(prefix)}
        for place in range(bisect_left(self._sorted, prefix), len(self._sorted)):
            segment = self._sorted[place]
            if not segment.startswith(prefix):
                break
            found.add(segment)
        return found

    def _forget_if_outdated(self) -> None:
        if len(self._sorted or ()) + len(self._unsorted) > 2 * len(self._by_segment) + _UNSORTED:
            self._sorted, self._unsorted = None, []

    def __len__(self) -> int:
        return sum(len(self._keys(segment)) for segment in self._by_segment)

    def __repr__(self) -> str:
        return f"<KeyIndex of {len(self._by_segment)} segments>"


def _first(key: Hashable) -> str:
    """The first segment of the key's text."""
    return _escaped(key[0] if isinstance(key, tuple) else str(key))
