"""The shared cache as one worker sees it: which answers lie there, and of when. Holds moments, no answers.

Bounded in two ways: by the time to live that each answer was given, and by memory. Where memory is what bounds it, the least lately written
goes, so that what stays is what was written in the last `holds_s` (Che's approximation, good for very many keys).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from random import Random
from typing import Any

from cashier.fanout.ttl import CacheSettings

S_NS = 1_000_000_000
# Freshness ends up to a tenth early, by chance; of many copies the first to end is what fetches anew.
_SHORTEST = 0.9


class SharedCacheModel:
    """Of one source. `others_per_s(key)`: how often other workers ask for a key that many users share; None where only one user does."""

    def __init__(
        self,
        settings: CacheSettings,
        holds_s: float,
        random: Random,
        others_per_s: Callable[[Any], float] | None = None,
    ) -> None:
        self._others_per_s = others_per_s
        self._fresh_ns = round(settings.fresh_s * S_NS)
        self._kept_ns = round(min(settings.longest_s, holds_s) * S_NS)
        self._random = random
        self._born_ns: dict[Hashable, int] = {}
        self._swept_ns = 0

    def __len__(self) -> int:
        return len(self._born_ns)

    def born_ns(self, key: Hashable, now_ns: int) -> int | None:
        """When the answer that lies there was asked for; None where none does."""
        born_ns = self._born_ns.get(key)
        if self._others_per_s is not None and (others_per_s := self._others_per_s(key)):
            born_ns = self._born_ns[key] = self._renewed(born_ns, now_ns, others_per_s)
        return None if born_ns is None or now_ns - born_ns >= self._kept_ns else born_ns

    def put(self, key: Hashable, born_ns: int) -> None:
        self._born_ns[key] = born_ns
        if born_ns - self._swept_ns > self._kept_ns:
            self._swept_ns = born_ns
            self._born_ns = {each: at_ns for each, at_ns in self._born_ns.items() if born_ns - at_ns < self._kept_ns}

    def left(self, key: Hashable, born_ns: int) -> None:
        """What lies there since an earlier visit that nobody has counted."""
        if self._born_ns.get(key, born_ns - 1) < born_ns:
            self._born_ns[key] = born_ns

    def elsewhere(self, key: Hashable, now_ns: int) -> None:
        """Another worker is asked: it fetches unless what lies there is fresh, whether or not it has a copy of its own."""
        born_ns = self._born_ns.get(key)
        if born_ns is None or now_ns - born_ns >= self._fresh_ns * self._random.uniform(_SHORTEST, 1):
            self.put(key, now_ns)

    def _renewed(self, born_ns: int | None, now_ns: int, others_per_s: float) -> int:
        """The others fetch anew when the first of them asks after it was fresh."""
        gap_ns, random = S_NS / others_per_s, self._random
        if born_ns is None:
            born_ns = now_ns - round(random.random() * (self._fresh_ns + gap_ns))
        while True:
            next_ns = born_ns + round(self._fresh_ns * random.uniform(_SHORTEST, 1) + random.expovariate(1) * gap_ns)
            if next_ns > now_ns:
                return born_ns
            born_ns = next_ns
