"""What is recorded, and how much of it: the share of good consultations, and bounds per second."""

from __future__ import annotations

from collections.abc import Callable
from random import random

from cashier.telemetry.trace_context import TraceContext

_S_NS = 1_000_000_000
_BPS = 10_000


class Sampling:
    """Decides for consultations that no trace has decided for. `share_bps`: of those."""

    __slots__ = ("_random", "share_bps")

    def __init__(self, share_bps: int, random: Callable[[], float] = random) -> None:
        self.share_bps = share_bps
        self._random = random

    def sampled(self, traceparent: str | None) -> bool:
        """The caller's flag decides; without a valid header, chance."""
        if traceparent is not None and (caller := TraceContext.parse(traceparent)) is not None:
            return caller.sampled
        return self._random() * _BPS < self.share_bps


class SecondBudget:
    """At most `most` in each second of the clock. `refused`: more than that, so far."""

    __slots__ = ("_left", "_second", "most", "refused")

    def __init__(self, most: int) -> None:
        self.most = most
        self.refused = 0
        self._left = most
        self._second = -1

    def take(self, now_ns: int) -> bool:
        second = now_ns // _S_NS
        if second != self._second:
            self._second = second
            self._left = self.most
        if self._left <= 0:
            self.refused += 1
            return False
        self._left -= 1
        return True
