"""The marks that slow calls pass, watched by one timer for the calls of all sources.

A timer wheel: it keeps calls by the millisecond in which their next mark is due. Most end before
that. Their end costs nothing here: they are dropped when the timer fires, or when many have come.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from heapq import heappop, heappush
from itertools import chain
from typing import Protocol

from cashier.fanout.latency_histogram import NEVER_NS
from cashier.fanout.loop_stall import TURN_S, stalled

_MS_NS = 1_000_000
# Ended calls are dropped after this number of new calls, or after as many as were in progress at
# the last drop, if that is more.
_LEAST_ROOM = 256


class WatchedCall(Protocol):
    """`due_ns`: when its next mark is due; NEVER_NS: there is none. `guard`: its source."""

    due_ns: int

    @property
    def guard(self) -> object: ...

    @property
    def ended(self) -> bool: ...

    def pass_mark(self, now_ns: int) -> None:
        """Set `due_ns` to the next mark, then act on the one that is due."""

    def cancel_attempts(self) -> None: ...


class TimerWheel:
    """One for all sources of an event loop."""

    __slots__ = (
        "_by_ms", "_clock_ns", "_due", "_due_ns", "_loop", "_milliseconds", "_room", "_timer", "_waited_for_stall",
    )  # fmt: skip

    def __init__(self, clock_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock_ns = clock_ns
        self._by_ms: dict[int, list[WatchedCall]] = {}
        self._milliseconds: list[int] = []  # the keys, as a heap
        self._due: deque[WatchedCall] = deque()  # taken from there to pass their marks
        self._room = _LEAST_ROOM
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = NEVER_NS
        self._waited_for_stall = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, call: WatchedCall, now_ns: int) -> None:
        """Let the call pass its marks until it ends or has none left."""
        due_ns = call.due_ns
        ms = due_ns // _MS_NS
        calls = self._by_ms.get(ms)
        if calls is None:
            self._by_ms[ms] = [call]
            heappush(self._milliseconds, ms)
        else:
            calls.append(call)
        self._room -= 1
        if not self._room:
            self._drop_ended()
        if due_ns < self._due_ns:
            self._arm(due_ns, now_ns)

    def _drop_ended(self) -> None:
        self._by_ms = {
            ms: in_progress
            for ms, calls in self._by_ms.items()
            if (in_progress := [call for call in calls if not call.ended])
        }
        self._milliseconds = sorted(self._by_ms)  # which is a heap
        self._room = max(_LEAST_ROOM, sum(map(len, self._by_ms.values())))

    def _arm(self, due_ns: int, now_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Looked up once: before Python 3.12 each look-up asks the kernel for the process id.
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        # Whole milliseconds, rounded up: uvloop rounds to them, and an early timer would only be
        # armed again.
        delay_s = max(1, -((now_ns - due_ns) // _MS_NS)) / 1000
        # Not the context of one call, for the marks of all.
        self._timer = self._loop.call_later(delay_s, self._on_timer, context=Context())
        self._due_ns = due_ns

    def _on_timer(self) -> None:
        due_ns = self._due_ns
        self._timer = None
        self._due_ns = NEVER_NS
        now_ns = self._clock_ns()
        if not self._waited_for_stall and stalled(due_ns, now_ns):
            self._waited_for_stall = True
            self._timer = asyncio.get_running_loop().call_later(TURN_S, self._on_timer, context=Context())
            self._due_ns = now_ns
            return
        self._waited_for_stall = False
        try:
            self._pass_marks(now_ns)
        finally:  # a bug in one call must not leave all others unwatched
            due_ns = now_ns if self._due else self._next_due_ns()
            if due_ns < self._due_ns:
                self._arm(due_ns, now_ns)

    def _pass_marks(self, now_ns: int) -> None:
        while self._milliseconds and self._milliseconds[0] * _MS_NS <= now_ns:
            self._due += self._by_ms.pop(heappop(self._milliseconds))
        while self._due:
            call = self._due[0]
            if not call.ended:
                if call.due_ns <= now_ns:
                    call.pass_mark(now_ns)
                    continue
                if call.due_ns < NEVER_NS:
                    self.watch(call, now_ns)
            self._due.popleft()

    def _next_due_ns(self) -> int:
        """When the first mark is due; NEVER_NS: none. Drops calls that ended before it."""
        while self._milliseconds:
            calls = self._by_ms[self._milliseconds[0]]
            due_ns = min((call.due_ns for call in calls if not call.ended), default=NEVER_NS)
            if due_ns < NEVER_NS:
                return due_ns
            del self._by_ms[heappop(self._milliseconds)]
        return NEVER_NS

    def cancel_calls(self, guard: object) -> None:
        """Cancel the calls of one source now."""
        for call in tuple(chain(self._due, *self._by_ms.values())):
            if call.guard is guard:
                call.cancel_attempts()
        self._drop_ended()
        if self._timer is not None and not (self._due or self._by_ms):
            self._timer.cancel()
            self._timer = None
            self._due_ns = NEVER_NS

    def __repr__(self) -> str:
        calls = [call for call in chain(self._due, *self._by_ms.values()) if not call.ended]
        return f"<TimerWheel of {len(calls)} calls>"
