"""The marks that slow calls pass, watched by one timer for all calls of a source.

Each call has three marks at the same distance from its start: the hedge, the moment at which it
counts as slow, and the end of a late call. Three queues in order of start are therefore enough.
Calls that end earlier leave a queue when they reach its head.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from cashier.fanout.adaptive_timeout import AdaptiveTimeout
from cashier.fanout.endpoint import Endpoint
from cashier.fanout.hedge import Hedge
from cashier.fanout.latency_histogram import NEVER_NS
from cashier.fanout.loop_stall import TURN_S, stalled

_MS_NS = 1_000_000
# A late call ends at this multiple of the ceiling.
LATE_FACTOR = 2


class WatchedCall(Protocol):
    """A call whose marks are watched."""

    started_ns: int
    endpoint: Endpoint

    @property
    def ended(self) -> bool: ...

    def hedge(self, now_ns: int) -> None: ...

    def count_as_slow(self, now_ns: int, *, overload: bool) -> None: ...

    def cancel_attempts(self) -> None: ...

    def is_awaited(self, now_ns: int) -> bool:
        """Whether a caller waits that has time left."""


class CallTimers:
    """`late_calls`: calls in progress without a waiter."""

    __slots__ = (
        "_clock_ns", "_due_ns", "_hedge", "_loop", "_past_hedge", "_past_slow", "_timeout", "_timer",
        "_waited_for_stall", "_young", "late_calls",
    )  # fmt: skip

    def __init__(self, hedge: Hedge, timeout: AdaptiveTimeout, clock_ns: Callable[[], int]) -> None:
        self._hedge = hedge
        self._timeout = timeout
        self._clock_ns = clock_ns
        self._young: deque[WatchedCall] = deque()
        self._past_hedge: deque[WatchedCall] = deque()
        self._past_slow: deque[WatchedCall] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = NEVER_NS
        self._waited_for_stall = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.late_calls = 0

    def watch(self, call: WatchedCall) -> None:
        """Watch a new call, and drop ended calls before it: their marks may be far off."""
        young = self._young
        while young and young[0].ended:
            young.popleft()
        young.append(call)
        if len(young) == 1:
            self._arm(call.started_ns)

    def _arm(self, now_ns: int) -> None:
        due_ns = min(self._hedge_due_ns(), self._slow_due_ns(), self._late_due_ns())
        if due_ns >= self._due_ns:
            return
        if self._timer is not None:
            self._timer.cancel()
        # Whole milliseconds, rounded up: uvloop rounds to them, and an early timer would only be
        # armed again.
        left_ms = max(1, -((now_ns - due_ns) // _MS_NS))
        self._timer = self._running_loop().call_later(left_ms / 1000, self._on_timer)
        self._due_ns = due_ns

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """Looked up once: before Python 3.12 each look-up asks the kernel for the process id."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _hedge_due_ns(self) -> int:
        if not self._young:
            return NEVER_NS
        call = self._young[0]
        return call.started_ns + min(self._hedge.delay_ns, call.endpoint.slow_ns)

    def _slow_due_ns(self) -> int:
        return self._past_hedge[0].started_ns + self._past_hedge[0].endpoint.slow_ns if self._past_hedge else NEVER_NS

    def _late_due_ns(self) -> int:
        return (
            self._past_slow[0].started_ns + LATE_FACTOR * self._timeout.ceiling_ms * _MS_NS
            if self._past_slow
            else NEVER_NS
        )

    def _on_timer(self) -> None:
        due_ns = self._due_ns
        self._timer = None
        self._due_ns = NEVER_NS
        now_ns = self._clock_ns()
        if not self._waited_for_stall and stalled(due_ns, now_ns):
            self._waited_for_stall = True
            self._timer = self._running_loop().call_later(TURN_S, self._on_timer)
            self._due_ns = now_ns
            return
        self._waited_for_stall = False
        try:
            self._pass_marks(now_ns)
        finally:  # a bug in one call must not leave all others unwatched
            self._arm(now_ns)

    def _pass_marks(self, now_ns: int) -> None:
        while self._young and (self._young[0].ended or self._hedge_due_ns() <= now_ns):
            call = self._young.popleft()
            if not call.ended:
                self._past_hedge.append(call)
                if self._hedge.delay_ns != NEVER_NS:
                    call.hedge(now_ns)
        while self._past_hedge and (self._past_hedge[0].ended or self._slow_due_ns() <= now_ns):
            call = self._past_hedge.popleft()
            if not call.ended:
                self._past_slow.append(call)
                call.count_as_slow(now_ns, overload=now_ns - call.started_ns >= self._timeout.ceiling_ms * _MS_NS)
        while self._past_slow and (self._past_slow[0].ended or self._late_due_ns() <= now_ns):
            call = self._past_slow.popleft()
            # A caller with more time, such as a payment, ends its call itself.
            if not (call.ended or call.is_awaited(now_ns)):
                call.cancel_attempts()

    def close(self) -> None:
        """Cancel all calls now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due_ns = NEVER_NS
        for queue in (self._young, self._past_hedge, self._past_slow):
            while queue:
                queue.popleft().cancel_attempts()

    def __repr__(self) -> str:
        watched = f"{len(self._young)} + {len(self._past_hedge)} + {len(self._past_slow)}"
        return f"<CallTimers of {watched} calls, {self.late_calls} late>"
