"""The hedge delay of a source. Pure: updated once a second from the latency histogram.

The delay is the 95th percentile of current latencies, so at most one call in twenty is hedged, and
never below what a timer can measure. No hedges while the whole source is slow: they would only add
load (Finagle's BackupRequestFilter; "The Tail at Scale").
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from cashier.fanout.latency_histogram import NEVER_NS

_MIN_CALLS = 100
# A source is slow as a whole if its median has doubled. The usual median rises slowly: an hour's
# load shift is learned within minutes, a minute of trouble is not. It falls faster: a speed once
# reached is possible.
_SLOW_FACTOR = 2
_SLOW_MARGIN_NS = 1_000_000
_RISE = 0.003
_FALL = 0.1


class HedgeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`hedge`: when to start a second call.

    Once the first has taken longer than `quantile_bps` of calls, and at least `least_ms`.
    """

    quantile_bps: Annotated[int, Meta(ge=5_000, le=9_999)] = 9_500
    least_ms: Annotated[int, Meta(ge=1)] = 2


class Hedge:
    """`delay_ns`: from the start of the first call to the hedge; NEVER_NS while hedging is off."""

    __slots__ = ("_usual_ns", "delay_ns", "settings")

    def __init__(self, settings: HedgeSettings | None) -> None:
        """None: never hedge."""
        self.settings = settings
        self.delay_ns = NEVER_NS
        self._usual_ns = 0.0

    @property
    def quantile(self) -> float:
        """The share of calls that end before a hedge."""
        return 1.0 if self.settings is None else self.settings.quantile_bps / 10_000

    def learn(self, count: int, p50_ns: int, quantile_ns: int, *, allowed: bool) -> None:
        """Update from `count` latencies, of which the share `quantile` ended within `quantile_ns`.

        `allowed`: the source has room for more calls.
        """
        if self.settings is None or count < _MIN_CALLS or NEVER_NS in (p50_ns, quantile_ns):
            self.delay_ns = NEVER_NS
            return
        slow = self._usual_ns > 0 and p50_ns > max(_SLOW_FACTOR * self._usual_ns, self._usual_ns + _SLOW_MARGIN_NS)
        if not self._usual_ns:
            self._usual_ns = float(p50_ns)
        else:
            self._usual_ns += (p50_ns - self._usual_ns) * (_RISE if p50_ns > self._usual_ns else _FALL)
        self.delay_ns = NEVER_NS if slow or not allowed else max(quantile_ns, self.settings.least_ms * 1_000_000)

    def __repr__(self) -> str:
        return "<Hedge never>" if self.delay_ns == NEVER_NS else f"<Hedge after {self.delay_ns / 1e6:.1f} ms>"
