"""The admission queue: a few consultations start per event-loop iteration, the others wait, FIFO.

A consultation costs about half a millisecond of CPU. A hundred started at once keep the loop away
from its sockets for the sum of their costs: upstream responses wait, and refusals go out last.
Queued, they cost the same in total, and the loop serves its sockets in between. The queue also
shows an overload earlier than loop lag does: see `DegradationLadder.queued_ms`.

Work is counted in CPU time of the loop's thread. On a starved machine a few queued consultations
wait long, but they are little work, and refusing one would gain the others nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter_ns, thread_time_ns
from typing import NamedTuple

from cashier.fanout.load_shedding import DegradationLadder
from cashier.metrics.store import Store

# About two milliseconds per iteration, beside the work of those started before. More per iteration
# saves nothing: an iteration costs microseconds.
STARTS_PER_TURN = 4
# Estimated CPU time of one consultation until the queue has measured some.
_INITIAL_WORK_NS = 400_000.0
# Divisor of the exponential moving average of that time.
_SMOOTHING = 16


class QueueTicket(NamedTuple):
    """One queued consultation: its turn, the CPU time when it was queued, how many were ahead."""

    turn: asyncio.Future[None]
    since_cpu_ns: int
    ahead: int


class AdmissionQueue:
    """Belongs to one event loop. Reports its work to `ladder`, which bounds it.

    `metrics`: where to count.
    """

    __slots__ = ("_clock_ns", "_ladder", "_scheduled", "_started", "_tickets", "_waits", "_work_ns")

    def __init__(
        self,
        ladder: DegradationLadder | None = None,
        metrics: Store | None = None,
        clock_ns: Callable[[], int] = perf_counter_ns,
    ) -> None:
        self._ladder = ladder
        self._clock_ns = clock_ns
        self._waits = (metrics or Store()).histogram("cashier_queue_wait_seconds")
        self._tickets: deque[QueueTicket] = deque()
        self._started = 0
        self._scheduled = False
        self._work_ns = _INITIAL_WORK_NS

    def __repr__(self) -> str:
        return f"<AdmissionQueue of {len(self._tickets)}, {self._work_ns / 1e6:.2f} ms each>"

    def try_start(self) -> bool:
        """Whether a consultation may start now. If not, it must `wait`."""
        if self._tickets or self._started >= STARTS_PER_TURN:
            return False
        self._started += 1
        self._schedule_turn()
        return True

    async def wait(self) -> None:
        """Wait until this consultation may start."""
        since_ns = self._clock_ns()
        turn = asyncio.get_running_loop().create_future()
        self._tickets.append(QueueTicket(turn, thread_time_ns(), len(self._tickets)))
        self._schedule_turn()
        await turn
        self._waits.record(self._clock_ns() - since_ns)

    @property
    def waiting(self) -> bool:
        """Whether any consultation is queued."""
        return bool(self._tickets)

    def is_too_long(self, priority: int) -> bool:
        """Whether more work is queued than the ladder allows ahead of this priority."""
        if not self._tickets or self._ladder is None:
            return False
        return self._ladder.refuses_wait(len(self._tickets) * self._work_ns / 1e6, priority)

    def _schedule_turn(self) -> None:
        """Schedule the next turn after the loop has polled its sockets."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._started = 0
        self._scheduled = False
        if self._tickets:
            self._start_queued(self._tickets)
        elif self._ladder is not None:
            self._ladder.queued_ms = 0.0
        if self._tickets or self._started:
            self._schedule_turn()

    def _start_queued(self, tickets: deque[QueueTicket]) -> None:
        cpu_ns = thread_time_ns()
        while tickets and self._started < STARTS_PER_TURN:
            ticket = tickets.popleft()
            # A client that disconnected has cancelled its turn.
            if not ticket.turn.done():
                ticket.turn.set_result(None)
                self._started += 1
                self._work_ns += ((cpu_ns - ticket.since_cpu_ns) / (ticket.ahead + 1) - self._work_ns) / _SMOOTHING
        if self._ladder is not None:
            self._ladder.queued_ms = len(tickets) * self._work_ns / 1e6
