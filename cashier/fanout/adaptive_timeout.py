"""Patience: how long a source is waited for, learned below its ceiling. Pure: learns once a second from the sketch's figures.

The 99.9th percentile of what calls take now and a tenth more: one call in a thousand is given up wrongly (Amazon's rule). Down by no more
than a fifth a step, up by a tenth; but straight back to the ceiling when more are cut than that, because what an answer that is cut off
costs a checkout, a method nobody can choose, is dearer than the wait.
"""

from __future__ import annotations

from cashier.fanout.latency_histogram import NEVER_NS

_ENOUGH = 100
_FLOOR_MS = 5
_MARGIN = 1.1
_DOWN, _UP = 0.8, 1.1
# Ten times as many as should be.
_CUT_SHARE = 0.01
SHARE = 0.999


class AdaptiveTimeout:
    """`timeout_ms`, whole and between the floor and the ceiling. Not `learning`, it stays at the ceiling."""

    __slots__ = ("_cut", "_ms", "ceiling_ms", "learning", "timeout_ms")

    def __init__(self, ceiling_ms: int, *, learning: bool) -> None:
        self.ceiling_ms = ceiling_ms
        self.learning = learning
        self.timeout_ms = ceiling_ms
        self._ms = float(ceiling_ms)
        self._cut = 0

    def gave_up(self) -> None:
        """A call was not waited for any longer because of `timeout_ms`."""
        self._cut += 1

    def reconfigure(self, ceiling_ms: int, *, learning: bool) -> None:
        self.ceiling_ms = ceiling_ms
        self.learning = learning
        self._set(self._ms if learning else ceiling_ms)

    def learn(self, count: int, share_ns: int, calls: int) -> None:
        """From so many calls that count, and within how long SHARE of them ended. `calls`: so many began since the last time."""
        cut, self._cut = self._cut, 0
        if not self.learning or count < _ENOUGH or cut > max(1, calls * _CUT_SHARE):
            self._set(self.ceiling_ms)
            return
        wanted_ms = self.ceiling_ms if share_ns == NEVER_NS else share_ns / 1e6 * _MARGIN
        self._set(min(max(wanted_ms, self._ms * _DOWN), self._ms * _UP))

    def _set(self, ms: float) -> None:
        self._ms = min(max(ms, _FLOOR_MS), self.ceiling_ms)
        self.timeout_ms = max(1, round(self._ms))

    def __repr__(self) -> str:
        return f"<Patience {self.timeout_ms} of {self.ceiling_ms} ms>"
