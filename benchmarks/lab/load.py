"""Load over keep-alive connections: a closed loop, or open arrivals at a rate with latency from when each was meant to go out.

Belongs on a core of its own. Says of itself how busy it was: near 1 it measured itself. Judges nothing.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TypeAlias, cast

from benchmarks.lab.load_results import LOST, NEVER_SENT, OK, REFUSED, LoadInterval, RequestOutcome
from benchmarks.lab.precise_timer import PreciseTimer
from benchmarks.lab.response_reader import ResponseReader

CONNECTIONS = 16
# Whoever found no connection by then goes away.
PATIENCE_S = 1.0
# The longest that a interval waits for its last answers.
REST_S = 30.0

# So many answers of each interval are looked at, once nobody waits any more: looking takes longer than what is measured.
SAMPLES = 16

# Says of the body of an answer what is wrong with it, or None.
Check: TypeAlias = Callable[[bytes], str | None]
PendingRequest: TypeAlias = tuple[float, int]


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._answer = ResponseReader()
        self._asked: PendingRequest | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def ask(self, due_s: float, request: int) -> None:
        self._asked = (due_s, request)
        self._transport.write(self._load.requests[request])

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._answer.feed(data):
            return
        answer, self._answer = self._answer, ResponseReader()
        status = answer.status
        if status == OK and len(self._load.samples) < SAMPLES:
            self._load.samples.append(answer)
        if status == -REFUSED and b'"OVERLOADED"' in answer.body():
            status = REFUSED
        self._end(status)
        self._load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lose(self)
        if self._asked is not None:
            self._end(LOST)

    def _end(self, status: int) -> None:
        assert self._asked is not None, "an answer that nobody asked for"
        (due_s, request), self._asked = self._asked, None
        self._load.interval.count(RequestOutcome(due_s, request, status, time.perf_counter() - due_s))


class Load:
    """Connections to one program. Stretches follow each other; a connection that was lost is replaced before the next one begins.

    `requests`: whole HTTP requests, taken in turn by a closed loop, and at random, seeded, by open arrivals. `check`: what the first
    answers of each interval must hold; what it says is in `LoadInterval.wrong`.
    """

    def __init__(self, port: int, requests: Sequence[bytes], connections: int, seed: int, check: Check | None) -> None:
        self.requests = requests
        self.samples: list[ResponseReader] = []
        self.interval = LoadInterval()
        self._check = check
        self._port = port
        self._connections = connections
        self._random = random.Random(seed)
        self._timer = PreciseTimer(asyncio.get_running_loop())
        # The longest idle goes first: a program closes connections that it hears nothing from.
        self._idle: deque[Connection] = deque()
        self._busy: set[Connection] = set()
        self._waiting: deque[PendingRequest] = deque()
        self._turn = 0
        self._goes_on = False
        self._per_s = self._until_s = 0.0

    def __repr__(self) -> str:
        return f"Load({len(self._busy)} of {len(self._busy) + len(self._idle)} connections busy, {len(self._waiting)} waiting)"

    @property
    def wrong(self) -> str | None:
        """The first thing that was wrong with an answer of the interval that ended last."""
        return next(iter(self.interval.wrong), None)

    async def closed(self, seconds: float, *, width: int | None = None, keep: bool = False) -> LoadInterval:
        """Each connection, or `width` of them, asks again as soon as it is answered. Right for CPU; it hides stalls.

        Returns when all have been answered, so that what the program spent is for what is counted.
        """
        await self._connect()
        with self._measured(keep) as interval:
            self._goes_on = True
            for connection in [self._idle.popleft() for _ in range(min(width or len(self._idle), len(self._idle)))]:
                self.free(connection)
            await asyncio.sleep(seconds)
            self._goes_on = False
            await self.rest()
        return interval

    async def open(self, per_s: float, seconds: float, *, keep: bool = False) -> LoadInterval:
        """Arrivals at random, so many a second on average, whoever else waits. Returns when all have been answered."""
        await self.arrive(per_s, seconds, keep=keep)
        return await self.rest()

    async def arrive(self, per_s: float, seconds: float, *, keep: bool = False) -> LoadInterval:
        """The same, but returns when the last has come: answers are counted in this interval until the next one begins."""
        await self._connect()
        with self._measured(keep) as interval:
            self._per_s = per_s
            self._until_s = time.perf_counter() + seconds
            self._next(self._until_s - seconds)
            while self._timer:  # noqa: ASYNC110  # the loop may be late with the last arrivals
                await asyncio.sleep(max(0.001, self._until_s - time.perf_counter()))
        interval.seconds = seconds
        return interval

    async def rest(self) -> LoadInterval:
        """Until everybody has been answered or has gone."""
        until_s = time.perf_counter() + REST_S
        while (self._busy or self._waiting) and time.perf_counter() < until_s:
            self._leave(time.perf_counter())
            await asyncio.sleep(0.001)
        for connection in tuple(self._busy):
            connection.abort()
        self._look()
        return self.interval

    def close(self) -> None:
        self._timer.close()
        for connection in (*self._idle, *self._busy):
            connection.abort()

    def free(self, connection: Connection) -> None:
        """Whoever waits is next; else, in a closed loop, the next request."""
        if self._waiting:
            self._send(connection, *self._waiting.popleft())
        elif self._goes_on:
            self._turn = (self._turn + 1) % len(self.requests)
            self._send(connection, time.perf_counter(), self._turn)
        else:
            self._busy.discard(connection)
            self._idle.append(connection)

    def lose(self, connection: Connection) -> None:
        self._busy.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    @contextmanager
    def _measured(self, keep: bool) -> Iterator[LoadInterval]:
        self.interval = interval = LoadInterval(keep=keep)
        self.samples = []
        start_s, mine_s = time.perf_counter(), time.process_time()
        yield interval
        interval.seconds = time.perf_counter() - start_s
        interval.load_busy = (time.process_time() - mine_s) / interval.seconds

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        while len(self._idle) + len(self._busy) < self._connections:
            _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
            self._idle.append(connection)

    def _look(self) -> None:
        if self._check is not None:
            said = [self._check(answer.body()) for answer in self.samples]
            self.interval.looked_at = len(said)
            self.interval.wrong = [each for each in said if each]

    def _next(self, due_s: float) -> None:
        due_s += self._random.expovariate(self._per_s)
        if due_s < self._until_s:
            self._timer.at(due_s, partial(self._arrive, due_s))

    def _arrive(self, due_s: float) -> None:
        asked = due_s, self._random.randrange(len(self.requests))
        if self._idle:
            self._send(self._idle.popleft(), *asked)
            self.interval.late.record(time.perf_counter() - due_s)
        else:
            self._leave(due_s)
            self._waiting.append(asked)
        self._next(due_s)

    def _send(self, connection: Connection, due_s: float, request: int) -> None:
        self._busy.add(connection)
        connection.ask(due_s, request)

    def _leave(self, now_s: float) -> None:
        while self._waiting and now_s - self._waiting[0][0] > PATIENCE_S:
            due_s, request = self._waiting.popleft()
            self.interval.count(RequestOutcome(due_s, request, NEVER_SENT, PATIENCE_S))


@asynccontextmanager
async def open_load(
    port: int, requests: Sequence[bytes], *, connections: int = CONNECTIONS, seed: int = 1, check: Check | None = None
) -> AsyncIterator[Load]:
    """Connections to the program on this port, closed in the end."""
    load = Load(port, requests, connections, seed, check)
    gc.collect()
    gc.freeze()  # what the suite holds need not be looked at while time is taken
    try:
        yield load
    finally:
        load.close()
        gc.unfreeze()
        await asyncio.sleep(0)  # until they are gone
