"""Measures the lag of the running event loop, and how long its thread had no core."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from cashier.fanout.load_shedding import DegradationLadder

_log = structlog.get_logger("cashier.load")
_SCHEDSTAT = "/proc/thread-self/schedstat"
_MS_NS = 1_000_000
_LOG_EVERY_NS = 60_000 * _MS_NS


class RunDelay:
    """Total time that the calling thread was ready to run but had no core, in ns.

    From the Linux scheduler, which counts the run queue and CPU quotas (CFS throttling), the same
    in every cgroup version and container. None on other systems. Not the host's steal time.
    """

    def __init__(self, path: str = _SCHEDSTAT) -> None:
        self._fd: int | None = None
        with suppress(OSError):
            self._fd = os.open(path, os.O_RDONLY)

    def __call__(self) -> int | None:
        if self._fd is None:
            return None
        try:
            # Time on a core, time in the run queue, number of time slices.
            return int(os.pread(self._fd, 80, 0).split()[1])
        except (OSError, ValueError, IndexError):
            self.close()
            return None

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __repr__(self) -> str:
        return f"<RunDelay {'unknown' if self._fd is None else 'known'}>"


class LoopLagMonitor:
    """Measures the lag of the running loop for the ladder.

    One per process; costs a timer for each tick of the ladder.
    """

    def __init__(
        self,
        ladder: DegradationLadder,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
        open_run_delay: Callable[[], RunDelay] = RunDelay,
    ) -> None:
        """`cpu_ns`: the CPU time of this thread so far."""
        self._ladder = ladder
        self._clock_ns = clock_ns
        self._cpu_ns = cpu_ns
        self._open_run_delay = open_run_delay
        self._run_delay: RunDelay | None = None
        # At the last tick
        self._now_ns = self._used_ns = 0
        self._delay_ns: int | None = None
        self._due_ns = 0
        self._logged_ns: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lag = ladder.metrics.histogram("cashier_loop_lag_seconds")

    def __repr__(self) -> str:
        return f"<LoopLagMonitor {'running' if self._timer else 'stopped'} of {self._ladder!r}>"

    def start(self) -> None:
        """Start in the loop to monitor. Does nothing if shedding is turned off."""
        if self._ladder.settings.enabled and self._timer is None:
            self._run_delay = run_delay = self._open_run_delay()
            self._now_ns, self._used_ns, self._delay_ns = self._clock_ns(), self._cpu_ns(), run_delay()
            self._schedule(asyncio.get_running_loop(), run_delay)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._run_delay is not None:
            self._run_delay.close()
            self._run_delay = None

    def _tick(self, loop: asyncio.AbstractEventLoop, run_delay: RunDelay) -> None:
        last_ns, last_used_ns, last_delay_ns = self._now_ns, self._used_ns, self._delay_ns
        self._now_ns = now_ns = self._clock_ns()
        self._used_ns = used_ns = self._cpu_ns()
        self._delay_ns = delay_ns = run_delay()
        off_cpu_ms = (now_ns - last_ns - used_ns + last_used_ns) / _MS_NS
        delay_ms = None if delay_ns is None or last_delay_ns is None else (delay_ns - last_delay_ns) / _MS_NS
        # uvloop counts whole ms from the start of its turn, so a timer may also be up to 1 ms
        # early.
        lag_ns = now_ns - self._due_ns if now_ns > self._due_ns else 0
        lag_ms = lag_ns / _MS_NS
        self._lag.record(lag_ns)
        # The two clocks differ a little.
        self._ladder.tick(lag_ms, now_ns, off_cpu_ms if off_cpu_ms > 0 else 0.0, delay_ms)
        if self._ladder.starved:
            self._log_starved(now_ns)
        self._schedule(loop, run_delay)

    def _schedule(self, loop: asyncio.AbstractEventLoop, run_delay: RunDelay) -> None:
        tick_ms = self._ladder.tick_ms
        self._due_ns = self._clock_ns() + tick_ms * _MS_NS
        self._timer = loop.call_later(tick_ms / 1000, self._tick, loop, run_delay)

    def _log_starved(self, now_ns: int) -> None:
        if self._logged_ns is None or now_ns - self._logged_ns >= _LOG_EVERY_NS:
            self._logged_ns = now_ns
            _log.warning(
                "the event loop is late, and not by its load: another program, a CPU quota or blocking code delays it",
                withheld_ms=round(self._ladder.withheld_ms),
                own_lag_ms=round(self._ladder.lag_ms),
            )
