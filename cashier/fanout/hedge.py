"""Hedge: after how long a call gets a second one beside it. Pure: learns once a second from the sketch's figures.

At the 95th percentile of what calls take now, so that one in twenty is doubled at most, and never below what a timer can measure. Not at
all while the whole source is slow: then hedging is load for nothing (Finagle's BackupRequestFilter; "The Tail at Scale").
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from cashier.fanout.latency_histogram import NEVER_NS

_ENOUGH = 100
# A source whose median has doubled is slow as a whole. What it usually takes follows upwards so slowly that an hour's load shift is learned
# in some minutes, and a minute's trouble is not; downwards sooner, because what it was seen to do it can do.
_SLOW_FACTOR = 2
_SLOWNESS_FLOOR_NS = 1_000_000
_FOLLOWS_UP = 0.003
_FOLLOWS_DOWN = 0.1


class HedgeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`hedge`. A second call goes out when the first has taken longer than `quantile_bps` of the calls do, and at least `least_ms`."""

    quantile_bps: Annotated[int, Meta(ge=5_000, le=9_999)] = 9_500
    least_ms: Annotated[int, Meta(ge=1)] = 2


class Hedge:
    """`after_ns`: from the start of the first call; NEVER_NS while there is no hedging."""

    __slots__ = ("_usual_ns", "after_ns", "settings")

    def __init__(self, settings: HedgeSettings | None) -> None:
        """None: never."""
        self.settings = settings
        self.after_ns = NEVER_NS
        self._usual_ns = 0.0

    @property
    def share(self) -> float:
        """Of the calls, those that end before a hedge."""
        return 1.0 if self.settings is None else self.settings.quantile_bps / 10_000

    def learn(self, count: int, p50_ns: int, share_ns: int, *, allowed: bool) -> None:
        """From so many calls: their median, and within how long `share` of them ended. `allowed`: the source and we have room for more."""
        if self.settings is None or count < _ENOUGH or NEVER_NS in (p50_ns, share_ns):
            self.after_ns = NEVER_NS
            return
        slow = self._usual_ns > 0 and p50_ns > max(_SLOW_FACTOR * self._usual_ns, self._usual_ns + _SLOWNESS_FLOOR_NS)
        if not self._usual_ns:
            self._usual_ns = float(p50_ns)
        else:
            self._usual_ns += (p50_ns - self._usual_ns) * (_FOLLOWS_UP if p50_ns > self._usual_ns else _FOLLOWS_DOWN)
        self.after_ns = NEVER_NS if slow or not allowed else max(share_ns, self.settings.least_ms * 1_000_000)

    def __repr__(self) -> str:
        return "<Hedge never>" if self.after_ns == NEVER_NS else f"<Hedge after {self.after_ns / 1e6:.1f} ms>"
