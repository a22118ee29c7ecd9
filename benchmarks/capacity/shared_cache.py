"""The shared cache as one worker sees it: the keys in it and the times of their answers.

Bounded by the time to live of each answer, and by memory. If memory is the bound, the least
recently written entries leave, so that it holds what was written in the last `holds_s` (Che's
approximation, good for very many keys).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from random import Random
from typing import Any

from cashier.fanout.cache_lifetime import CacheSettings

S_NS = 1_000_000_000
# Freshness ends up to a tenth early, at random; of many copies the first one to end causes a fetch.
_SHORTEST = 0.9


class SharedCacheModel:
    """One source. `others_per_s(key)`: rate of other workers for a shared key; None if one user
    owns it.
    """

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
        """The time at which the cached answer was requested, or None without one."""
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
        """Set the time of an answer left by an earlier, uncounted visit."""
        if self._born_ns.get(key, born_ns - 1) < born_ns:
            self._born_ns[key] = born_ns

    def elsewhere(self, key: Hashable, now_ns: int) -> None:
        """Another worker asks. It fetches unless the cached answer is fresh."""
        born_ns = self._born_ns.get(key)
        if born_ns is None or now_ns - born_ns >= self._fresh_ns * self._random.uniform(_SHORTEST, 1):
            self.put(key, now_ns)

    def _renewed(self, born_ns: int | None, now_ns: int, others_per_s: float) -> int:
        """Other workers fetch when the first of them asks after freshness has ended."""
        gap_ns, random = S_NS / others_per_s, self._random
        if born_ns is None:
            born_ns = now_ns - round(random.random() * (self._fresh_ns + gap_ns))
        while True:
            next_ns = born_ns + round(self._fresh_ns * random.uniform(_SHORTEST, 1) + random.expovariate(1) * gap_ns)
            if next_ns > now_ns:
                return born_ns
            born_ns = next_ns
