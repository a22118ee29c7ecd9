"""Sets the gauges of a worker twice a second, so that a scrape reads memory and calls nothing.

Where no other process reads the metrics, a snapshot sets them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import structlog

from cashier.metrics.store import Histogram, Store

_log = structlog.get_logger("cashier")

INTERVAL_S = 0.5
_S_NS = 1_000_000_000


class GaugeSampler:
    """Calls each of `samples` in turn. `lag`: records how late its timer ran; None: it does not.

    `store`: where they count. A sample that raises is a bug, which the log tells; the others
    and the next round run.
    """

    def __init__(
        self,
        samples: Sequence[Callable[[], None]],
        store: Store,
        lag: Histogram | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._samples = samples
        self._store = store
        self._lag = lag
        self._clock_ns = clock_ns
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start in the running loop, with a first sample now."""
        self.sample()
        self._store.before_snapshot.append(self.sample)
        if self._store.is_shared:
            self._schedule()

    def stop(self) -> None:
        """Stop, after a last sample: what has ended is no longer in flight."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with contextlib.suppress(ValueError):  # not started
            self._store.before_snapshot.remove(self.sample)
        self.sample()

    def sample(self) -> None:
        for sample in self._samples:
            try:
                sample()
            except Exception as bug:  # noqa: BLE001 - of one gauge: the others must stay true
                _log.error("a gauge could not be read", exc_info=bug)

    def _schedule(self) -> None:
        due_ns = self._clock_ns() + round(INTERVAL_S * _S_NS)
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._tick, due_ns)

    def _tick(self, due_ns: int) -> None:
        if self._lag is not None:
            self._lag.record(max(0, self._clock_ns() - due_ns))
        self.sample()
        self._schedule()

    def __repr__(self) -> str:
        return f"<GaugeSampler of {len(self._samples)} parts, {'running' if self._timer else 'stopped'}>"
