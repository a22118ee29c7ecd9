"""An upstream with a capacity, in virtual time, and a crowd that comes again when it fails.

Work is not saved by a caller that gives up: a request that has arrived is served, late or not. So
an overload can feed itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from statistics import median
from typing import Any, NamedTuple

from cashier.fanout.ask import AskCall, Known, SourceStatus, Start
from cashier.fanout.upstream_protocol import OnAnswer
from cashier.source_errors import SourceError, Unreachable
from tests.support.virtual_time import clock_ns

# A failed caller comes again after this long, so many times.
AGAIN_S = 0.5
AGAIN_TIMES = 3


class QueuedCall:
    """A request in the queue or being served."""

    def __init__(self, address_index: int, known: Known, on_answer: OnAnswer) -> None:
        self.address_index = address_index
        self.known = known
        self.on_answer: OnAnswer | None = on_answer

    def abandon(self) -> None:
        self.on_answer = None

    def end(self, outcome: Any) -> None:
        on_answer, self.on_answer = self.on_answer, None
        if on_answer is not None:
            on_answer(outcome, False, None)


class QueueingUpstream:
    """An `Upstream` with one queue and `servers`, each busy for `service_ms` with a request.

    `slowness`: a factor of that. `failure`: what every request ends with, after its service.
    `refuses`: it takes no requests.
    """

    def __init__(self, servers: int, service_ms: float, places: int = 1) -> None:
        self.addresses = tuple(f"address {index}" for index in range(places))
        self.calls = 0
        self.slowness = 1.0
        self.failure: SourceError | None = None
        self.refuses = False
        self._service_ms = service_ms
        self._free = servers
        self._queue: deque[QueuedCall] = deque()
        self._served: dict[QueuedCall, None] = {}
        self._random = Random(1)

    def call(self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, avoid: int = 0) -> QueuedCall:
        places = [index for index in range(len(self.addresses)) if not avoid >> index & 1] or [0]
        call = QueuedCall(places[self.calls % len(places)], known, on_answer)
        self.calls += 1
        if self.refuses:
            asyncio.get_running_loop().call_soon(call.end, Unreachable("refused"))
            return call
        self._queue.append(call)
        self._serve()
        return call

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        return body.decode()

    def drop_connections(self) -> None:
        """All requests that have arrived end without an answer, at once."""
        dropped, self._queue = [*self._served, *self._queue], deque()
        for call in dropped:
            call.end(Unreachable("reset"))

    def _serve(self) -> None:
        while self._free and self._queue:
            self._free -= 1
            call = self._queue.popleft()
            self._served[call] = None
            took_ms = self._service_ms * self.slowness * self._random.uniform(0.8, 1.2)
            asyncio.get_running_loop().call_later(took_ms / 1_000, self._end, call)

    def _end(self, call: QueuedCall) -> None:
        self._free += 1
        del self._served[call]
        call.end(self.failure or "an answer")
        self._serve()


class Visit(NamedTuple):
    """One try of a caller. `took_ms`: None if it failed."""

    at_s: float
    took_ms: float | None


class Health(NamedTuple):
    """`goodput`: the share of visits that got an answer. `p50_ms`: of those."""

    goodput: float
    p50_ms: float


class Crowd:
    """Callers at a constant rate; one that fails comes again, `again` times.

    `key_of`: the key of a new caller, by its number.
    """

    def __init__(
        self,
        start: Start,
        per_s: float,
        waits_ms: int,
        key_of: Callable[[int], str] = str,
        again: int = AGAIN_TIMES,
    ) -> None:
        self._again = again
        self.visits: list[Visit] = []
        self._start = start
        self._every_s = 1 / per_s
        self._waits_ms = waits_ms
        self._key_of = key_of
        self._number = 0
        self._random = Random(2)

    async def come(self, for_s: float) -> Health:
        """Let them come for that long. Returns the health of the last second."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + for_s
        while loop.time() < until_s:
            self._number += 1
            self._visit(self._key_of(self._number), self._again)
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * self._every_s)
        last = [visit for visit in self.visits if visit.at_s >= until_s - 1 - self._waits_ms / 1_000]
        return health(last)

    def _visit(self, key: str, again: int) -> None:
        loop = asyncio.get_running_loop()
        at_s, began_ns, ended = loop.time(), clock_ns(), False
        pending: AskCall | None = None

        def end(outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
            nonlocal ended
            if ended:
                return
            ended = True
            failed = isinstance(outcome, SourceError)
            self.visits.append(Visit(at_s, None if failed else (clock_ns() - began_ns) / 1e6))
            if failed and again:
                loop.call_later(AGAIN_S * self._random.uniform(0.5, 1.5), self._visit, key, again - 1)

        def give_up() -> None:
            if not ended:
                if pending is not None:
                    pending.abandon()
                end(Unreachable("given up"))

        pending = self._start({"key": key}, None, self._waits_ms, end)
        if not ended:
            loop.call_later(self._waits_ms / 1_000, give_up)


def health(visits: Sequence[Visit]) -> Health:
    answered = [visit.took_ms for visit in visits if visit.took_ms is not None]
    return Health(len(answered) / len(visits), median(answered) if answered else float("inf"))
