"""Watch: what is to happen to calls that take long, by one timer for all calls of a source.

Every call passes three marks, each the same time after its start for all of them, so three queues in order of start are enough: the hedge,
the moment from which it counts as slow, and the end of what runs on unawaited. Calls that end sooner are dropped when their turn comes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from cashier.fanout.latency_histogram import NEVER_NS
from cashier.fanout.loop_stall import TURN_S, stalled

if TYPE_CHECKING:
    from cashier.fanout.guard import Guard
    from cashier.fanout.hedged_call import HedgedCall

_MS_NS = 1_000_000
# Beyond so many times the ceiling nothing is waited for, however useful it would be.
_LATE_FACTOR = 2


class CallTimers:
    """`late` counts the flights that run on unawaited."""

    __slots__ = ("_due_ns", "_guard", "_hedged", "_loop", "_new", "_slow", "_stalled", "_timer", "late")

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._new: deque[HedgedCall] = deque()
        self._hedged: deque[HedgedCall] = deque()
        self._slow: deque[HedgedCall] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = NEVER_NS
        self._stalled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.late = 0

    def over(self, flight: HedgedCall) -> None:
        """Watch over one that departs. Those before it that have ended are let go of: a mark may be far off."""
        new = self._new
        while new and new[0].over:
            new.popleft()
        new.append(flight)
        if len(new) == 1:
            self._arm(flight.began_ns)

    def _arm(self, now_ns: int) -> None:
        due_ns = min(self._hedge_due_ns(), self._slow_due_ns(), self._late_due_ns())
        if due_ns >= self._due_ns:
            return
        if self._timer is not None:
            self._timer.cancel()
        # Whole milliseconds, rounded up: uvloop rounds to them, and what fires too early would only be armed again.
        left_ms = max(1, -((now_ns - due_ns) // _MS_NS))
        self._timer = self._running_loop().call_later(left_ms / 1000, self._tick)
        self._due_ns = due_ns

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """Looked up once: before Python 3.12 every look asks the kernel for the process's id."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _hedge_due_ns(self) -> int:
        if not self._new:
            return NEVER_NS
        flight = self._new[0]
        return flight.began_ns + min(self._guard.hedge.after_ns, flight.place.slow_ns)

    def _slow_due_ns(self) -> int:
        return self._hedged[0].began_ns + self._hedged[0].place.slow_ns if self._hedged else NEVER_NS

    def _late_due_ns(self) -> int:
        return self._slow[0].began_ns + _LATE_FACTOR * self._guard.ceiling_ns if self._slow else NEVER_NS

    def _tick(self) -> None:
        due_ns = self._due_ns
        self._timer = None
        self._due_ns = NEVER_NS
        now_ns = self._guard.clock_ns()
        if not self._stalled and stalled(due_ns, now_ns):
            self._stalled = True
            self._timer = self._running_loop().call_later(TURN_S, self._tick)
            self._due_ns = now_ns
            return
        self._stalled = False
        try:
            self._pass_marks(now_ns)
        finally:  # a bug in one call must not leave all others unwatched for ever
            self._arm(now_ns)

    def _pass_marks(self, now_ns: int) -> None:
        guard = self._guard
        while self._new and (self._new[0].over or self._hedge_due_ns() <= now_ns):
            flight = self._new.popleft()
            if not flight.over:
                self._hedged.append(flight)
                if guard.hedge.after_ns != NEVER_NS:
                    flight.hedge(now_ns)
        while self._hedged and (self._hedged[0].over or self._slow_due_ns() <= now_ns):
            flight = self._hedged.popleft()
            if not flight.over:
                self._slow.append(flight)
                flight.drag(now_ns, lost=now_ns - flight.began_ns >= guard.ceiling_ns)
        while self._slow and (self._slow[0].over or self._late_due_ns() <= now_ns):
            flight = self._slow.popleft()
            if not flight.over:
                flight.cut_off()

    def close(self) -> None:
        """End all of them, at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due_ns = NEVER_NS
        for queue in (self._new, self._hedged, self._slow):
            while queue:
                queue.popleft().cut_off()

    def __repr__(self) -> str:
        return f"<Watch over {len(self._new)} + {len(self._hedged)} + {len(self._slow)} calls, {self.late} late>"
