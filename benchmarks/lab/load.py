"""Load over keep-alive connections: a closed loop, or open arrivals at a rate.

With open arrivals latency counts from the time at which a request was due. The load needs a core of
its own, and reports how busy it was: near 1 it has measured itself.
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

CONNECTIONS = 16
# A request that finds no connection within this time is given up.
PATIENCE_S = 1.0
# The longest wait for the last answers of an interval.
REST_S = 30.0

# Answers of each interval to check, after all were answered: the check costs more than the answer.
SAMPLES = 16

# Returns what is wrong with the body of an answer, or None.
Check: TypeAlias = Callable[[bytes], str | None]
PendingRequest: TypeAlias = tuple[float, int]


class ResponseReader:
    """Finds the end and the status of a response, fed in pieces: all that the load has to read.

    A response without Content-Length is an error: no program that is measured sends one.
    """

    __slots__ = ("_body_at", "_missing", "_parts", "status")

    def __init__(self) -> None:
        self.status = 0
        self._parts: list[bytes] = []
        self._missing = 0
        self._body_at = 0

    def feed(self, data: bytes) -> bool:
        """Return True when the response is complete.

        Raises `ValueError` if it is not HTTP/1.1 or longer than declared.
        """
        self._parts.append(data)
        return self._count_body(len(data)) if self._body_at else self._read_head()

    def body(self) -> bytes:
        """The body of a complete response."""
        return b"".join(self._parts)[self._body_at :]

    def _read_head(self) -> bool:
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        response = self._parts[0]
        end = response.find(b"\r\n\r\n")
        if end < 0:
            return False
        self.status = int(response[9:12])
        self._body_at = end + 4
        head = response[: end + 2].lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            raise ValueError(f"no Content-Length: {head!r}")
        self._missing = int(head[at + 17 : head.index(b"\r", at + 2)])
        return self._count_body(len(response) - self._body_at)

    def _count_body(self, received: int) -> bool:
        self._missing -= received
        if self._missing < 0:
            raise ValueError(f"{-self._missing} bytes more than declared")
        return not self._missing


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._answer = ResponseReader()
        self._pending: PendingRequest | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport does not subclass asyncio.Transport
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, due_s: float, request: int) -> None:
        self._pending = (due_s, request)
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
        if self._pending is not None:
            self._end(LOST)

    def _end(self, status: int) -> None:
        assert self._pending is not None, "an answer without a request"
        (due_s, request), self._pending = self._pending, None
        self._load.interval.count(RequestOutcome(due_s, request, status, time.perf_counter() - due_s))


class Load:
    """Connections to one program. Lost connections are replaced before the next interval.

    `requests`: complete HTTP requests, taken in turn by a closed loop, and at random (seeded) by
    open arrivals. `check`: applied to the first answers of each interval; its results are in
    `LoadInterval.wrong`.
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
        # The longest idle first, because a program closes idle connections.
        self._idle: deque[Connection] = deque()
        self._busy: set[Connection] = set()
        self._waiting: deque[PendingRequest] = deque()
        self._turn = 0
        self._closed_loop = False
        self._per_s = self._until_s = 0.0

    def __repr__(self) -> str:
        total = len(self._busy) + len(self._idle)
        return f"Load({len(self._busy)} of {total} connections busy, {len(self._waiting)} waiting)"

    @property
    def wrong(self) -> str | None:
        """The first problem with an answer of the last interval."""
        return next(iter(self.interval.wrong), None)

    async def closed(self, seconds: float, *, width: int | None = None, keep: bool = False) -> LoadInterval:
        """Send the next request on each connection, or on `width` of them, after each answer.

        Right for CPU; it hides stalls. Returns when all are answered, so that the CPU spent belongs
        to the requests counted.
        """
        await self._connect()
        with self._measured(keep) as interval:
            self._closed_loop = True
            for connection in [self._idle.popleft() for _ in range(min(width or len(self._idle), len(self._idle)))]:
                self.free(connection)
            await asyncio.sleep(seconds)
            self._closed_loop = False
            await self.rest()
        return interval

    async def open(self, per_s: float, seconds: float, *, keep: bool = False) -> LoadInterval:
        """Send requests at random times, `per_s` on average. Returns when all are answered."""
        await self.arrive(per_s, seconds, keep=keep)
        return await self.rest()

    async def arrive(self, per_s: float, seconds: float, *, keep: bool = False) -> LoadInterval:
        """The same, but return after the last arrival.

        Later answers count in this interval until the next one begins.
        """
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
        """Wait until all requests are answered or given up."""
        until_s = time.perf_counter() + REST_S
        while (self._busy or self._waiting) and time.perf_counter() < until_s:
            self._give_up(time.perf_counter())
            await asyncio.sleep(0.001)
        for connection in tuple(self._busy):
            connection.abort()
        self._check_samples()
        return self.interval

    def close(self) -> None:
        self._timer.close()
        for connection in (*self._idle, *self._busy):
            connection.abort()

    def free(self, connection: Connection) -> None:
        """Send the longest waiting request; else, in a closed loop, the next one."""
        if self._waiting:
            self._send(connection, *self._waiting.popleft())
        elif self._closed_loop:
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

    def _check_samples(self) -> None:
        if self._check is not None:
            problems = [self._check(answer.body()) for answer in self.samples]
            self.interval.looked_at = len(problems)
            self.interval.wrong = [problem for problem in problems if problem]

    def _next(self, due_s: float) -> None:
        due_s += self._random.expovariate(self._per_s)
        if due_s < self._until_s:
            self._timer.at(due_s, partial(self._arrive, due_s))

    def _arrive(self, due_s: float) -> None:
        pending = due_s, self._random.randrange(len(self.requests))
        if self._idle:
            self._send(self._idle.popleft(), *pending)
            self.interval.late.record(time.perf_counter() - due_s)
        else:
            self._give_up(due_s)
            self._waiting.append(pending)
        self._next(due_s)

    def _send(self, connection: Connection, due_s: float, request: int) -> None:
        self._busy.add(connection)
        connection.ask(due_s, request)

    def _give_up(self, now_s: float) -> None:
        while self._waiting and now_s - self._waiting[0][0] > PATIENCE_S:
            due_s, request = self._waiting.popleft()
            self.interval.count(RequestOutcome(due_s, request, NEVER_SENT, PATIENCE_S))


@asynccontextmanager
async def open_load(
    port: int, requests: Sequence[bytes], *, connections: int = CONNECTIONS, seed: int = 1, check: Check | None = None
) -> AsyncIterator[Load]:
    """Open connections to the program on this port, and close them at the end."""
    load = Load(port, requests, connections, seed, check)
    gc.collect()
    gc.freeze()  # the collector need not visit the suite's own objects during a measurement
    try:
        yield load
    finally:
        load.close()
        gc.unfreeze()
        await asyncio.sleep(0)  # until the connections are closed
