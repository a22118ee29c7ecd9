"""How long a cached answer may be used, and for what.

Pure decisions of the cache; storage is elsewhere.
"""

from __future__ import annotations

import math
from random import Random
from typing import Annotated

from msgspec import Meta, Struct

_S_NS = 1_000_000_000
# Spreads the refreshes of answers that were fetched together.
_JITTER = 0.1

Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class CacheSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`cache`: how old an answer may be, counted from the start of its call; 0 turns a use off.

    `fresh_s`: served as new. `stale_s`: served while a new answer is fetched in the background.
    `error_s`: served if no new answer can be had. `negative_s`: how long a "not found" is served.
    """

    fresh_s: Seconds = 0
    stale_s: Seconds = 0
    error_s: Seconds = 0
    negative_s: Seconds = 0

    def faults(self) -> tuple[str, ...]:
        """Return what is wrong, each with its remedy."""
        if self.stale_s and self.stale_s < self.fresh_s:
            return (
                f"stale_s = {self.stale_s:g} is below fresh_s = {self.fresh_s:g};"
                " all count from the start of the call, so stale_s must be the longer",
            )
        if self.error_s and self.error_s < max(self.stale_s, self.fresh_s):
            return (
                f"error_s = {self.error_s:g} is below stale_s or fresh_s;"
                " all count from the start of the call, so error_s must be the longest",
            )
        return ()

    @property
    def on(self) -> bool:
        return max(self.fresh_s, self.stale_s, self.error_s, self.negative_s) > 0

    @property
    def longest_s(self) -> float:
        """The longest that an answer serves for any use."""
        return max(self.fresh_s, self.stale_s, self.error_s)

    def at_most(self, seconds: float) -> CacheSettings:
        """With no use longer than this but that on error."""
        return CacheSettings(
            min(self.fresh_s, seconds), min(self.stale_s, seconds), self.error_s, min(self.negative_s, seconds)
        )


class Lifetime(Struct, frozen=True, gc=False):
    """Until when an answer serves, by the caller's clock:

    `early_ns` ≤ `fresh_ns` ≤ `stale_ns` ≤ `error_ns`.

    From `early_ns` on, a background refresh is worthwhile although the answer is still fresh.
    """

    early_ns: int
    fresh_ns: int
    stale_ns: int
    error_ns: int


def lifetime(settings: CacheSettings, born_ns: int, took_ns: int, *, not_found: bool, random: Random) -> Lifetime:
    """Return the lifetime of an answer whose call started at `born_ns` and took `took_ns`.

    Early refresh is XFetch (Vattani, VLDB 2015): now − took · ln(random) ≥ expiry. Drawn once per
    entry, not at each hit: within a process one refresh is enough, and between processes the
    moments spread in the same way.
    """
    if not_found:
        until_ns = born_ns + round(settings.negative_s * _S_NS)
        return Lifetime(until_ns, until_ns, until_ns, until_ns)
    fresh_ns = born_ns + round(settings.fresh_s * _S_NS * random.uniform(1 - _JITTER, 1.0))
    early_ns = fresh_ns + round(took_ns * math.log(1 - random.random()))
    stale_ns = max(fresh_ns, born_ns + round(settings.stale_s * _S_NS))
    error_ns = max(stale_ns, born_ns + round(settings.error_s * _S_NS))
    return Lifetime(max(born_ns, early_ns), fresh_ns, stale_ns, error_ns)
