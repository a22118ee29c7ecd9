"""The timeout of a source, learned below its ceiling.

Pure: updated once a second from the latency histogram.

The target is the 99.9th percentile of current latencies plus 10 %: one call in a thousand times out
wrongly (Amazon's rule). A step lowers the timeout by at most 20 % and raises it by at most 10 %. If
more calls time out than that, it returns to the ceiling at once: a method that cannot be offered
costs more than the wait.
"""

from __future__ import annotations

from cashier.fanout.latency_histogram import NEVER_NS

_MIN_CALLS = 100
_FLOOR_MS = 5
_MARGIN = 1.1
_DOWN, _UP = 0.8, 1.1
# Ten times the intended share of timeouts.
_MAX_TIMEOUT_SHARE = 0.01
QUANTILE = 0.999


class AdaptiveTimeout:
    """`timeout_ms`: whole, between the floor and the ceiling.

    With `learning` off it stays at the ceiling.
    """

    __slots__ = ("_ms", "_timeouts", "ceiling_ms", "learning", "timeout_ms")

    def __init__(self, ceiling_ms: int, *, learning: bool) -> None:
        self.ceiling_ms = ceiling_ms
        self.learning = learning
        self.timeout_ms = ceiling_ms
        self._ms = float(ceiling_ms)
        self._timeouts = 0

    def count_timeout(self) -> None:
        """Count a call that was abandoned because of `timeout_ms`."""
        self._timeouts += 1

    def reconfigure(self, ceiling_ms: int, *, learning: bool) -> None:
        self.ceiling_ms = ceiling_ms
        self.learning = learning
        self._set(self._ms if learning else ceiling_ms)

    def learn(self, count: int, quantile_ns: int, calls: int, gathering_ms: int = 0) -> None:
        """Update from `count` latencies, of which the share QUANTILE is below `quantile_ns`.

        `calls`: calls started since the last update. `gathering_ms`: the longest wait in a batch,
        which grows at once when traffic does.
        """
        timeouts, self._timeouts = self._timeouts, 0
        if not self.learning or count < _MIN_CALLS or timeouts > max(1, calls * _MAX_TIMEOUT_SHARE):
            self._set(self.ceiling_ms)
            return
        target_ms = self.ceiling_ms if quantile_ns == NEVER_NS else quantile_ns / 1e6 * _MARGIN + gathering_ms
        self._set(min(max(target_ms, self._ms * _DOWN), self._ms * _UP))

    def _set(self, ms: float) -> None:
        self._ms = min(max(ms, _FLOOR_MS), self.ceiling_ms)
        self.timeout_ms = max(1, round(self._ms))

    def __repr__(self) -> str:
        return f"<AdaptiveTimeout {self.timeout_ms} of {self.ceiling_ms} ms>"
