"""The line at the door: so many consultations begin in one turn of the loop, the others in the turns after it, first come first served.

One is half a millisecond of work in all. A hundred that come at once, begun at once, keep the loop from its sockets for as long as all of
them take: answers of sources wait, and who has to be refused hears of it last. In line they cost the same, and the loop looks up between
them. How long the line is tells at once what lateness would tell later: `DegradationLadder.waiting_ms`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter_ns
from typing import NamedTuple

from cashier.fanout.load_shedding import DegradationLadder

# A turn of two milliseconds, with what the ones before still have to do. More at once save nothing: a turn costs microseconds.
STARTS_PER_TURN = 4
# What one takes, until some have been in line.
_INITIAL_WORK_NS = 400_000.0
_SMOOTHING = 16


class QueueTicket(NamedTuple):
    """One who waits since `since_ns`, with so many `before`."""

    turn: asyncio.Future[None]
    since_ns: int
    before: int


class AdmissionQueue:
    """Belongs to one loop. `ladder`: who is told how long the line is, and knows how long it may be."""

    __slots__ = ("_begun", "_each_ns", "_ladder", "_places", "_turning")

    def __init__(self, ladder: DegradationLadder | None = None) -> None:
        self._ladder = ladder
        self._places: deque[QueueTicket] = deque()
        self._begun = 0
        self._turning = False
        self._each_ns = _INITIAL_WORK_NS

    def __repr__(self) -> str:
        return f"<Line of {len(self._places)}, {self._each_ns / 1e6:.2f} ms each>"

    def enters(self) -> bool:
        """Whether whoever comes now may begin at once. Who may not has to `wait`."""
        if self._places or self._begun >= STARTS_PER_TURN:
            return False
        self._begun += 1
        self._look_again()
        return True

    async def wait(self) -> None:
        """For the turn."""
        turn = asyncio.get_running_loop().create_future()
        self._places.append(QueueTicket(turn, perf_counter_ns(), len(self._places)))
        self._look_again()
        await turn

    @property
    def waiting(self) -> bool:
        """Whether anybody is in line."""
        return bool(self._places)

    def is_too_long(self, priority: int) -> bool:
        """Whether whoever came now would wait longer than is good for anybody of that priority."""
        if not self._places or self._ladder is None:
            return False
        return self._ladder.too_late(len(self._places) * self._each_ns / 1e6, priority)

    def _look_again(self) -> None:
        """After the loop has been at its sockets."""
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._begun = 0
        self._turning = False
        places = self._places
        now_ns = perf_counter_ns()
        while places and self._begun < STARTS_PER_TURN:
            place = places.popleft()
            if not place.turn.done():  # who has gone has no turn
                place.turn.set_result(None)
                self._begun += 1
                self._each_ns += ((now_ns - place.since_ns) / (place.before + 1) - self._each_ns) / _SMOOTHING
        if self._ladder is not None:
            self._ladder.waiting_ms = (now_ns - places[0].since_ns) / 1e6 if places else 0.0
        if places or self._begun:
            self._look_again()
