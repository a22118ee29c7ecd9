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

from benchmarks.lab.load_results import LOST, NEVER_SENT, OK, REFUSED, Stretch, Visit
from benchmarks.lab.precise_timer import Alarm
from benchmarks.lab.response_reader import Answer

CONNECTIONS = 16
# Whoever found no connection by then goes away.
PATIENCE_S = 1.0
# The longest that a stretch waits for its last answers.
REST_S = 30.0

# So many answers of each stretch are looked at, once nobody waits any more: looking takes longer than what is measured.
SAMPLES = 16

# Says of the body of an answer what is wrong with it, or None.
Check: TypeAlias = Callable[[bytes], str | None]
Asked: TypeAlias = tuple[float, int]


class Caller(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._answer = Answer()
        self._asked: Asked | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def ask(self, at_s: float, which: int) -> None:
        self._asked = (at_s, which)
        self._transport.write(self._load.requests[which])

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._answer.feed(data):
            return
        answer, self._answer = self._answer, Answer()
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
        (at_s, which), self._asked = self._asked, None
        self._load.stretch.count(Visit(at_s, which, status, time.perf_counter() - at_s))


class Load:
    """Connections to one program. Stretches follow each other; a connection that was lost is replaced before the next one begins.

    `requests`: whole HTTP requests, taken in turn by a closed loop, and at random, seeded, by open arrivals. `check`: what the first
    answers of each stretch must hold; what it says is in `Stretch.wrong`.
    """

    def __init__(self, port: int, requests: Sequence[bytes], connections: int, seed: int, check: Check | None) -> None:
        self.requests = requests
        self.samples: list[Answer] = []
        self.stretch = Stretch()
        self._check = check
        self._port = port
        self._connections = connections
        self._random = random.Random(seed)
        self._alarm = Alarm(asyncio.get_running_loop())
        # The longest idle goes first: a program closes connections that it hears nothing from.
        self._idle: deque[Caller] = deque()
        self._busy: set[Caller] = set()
        self._waiting: deque[Asked] = deque()
        self._turn = 0
        self._goes_on = False
        self._per_s = self._until_s = 0.0

    def __repr__(self) -> str:
        return f"Load({len(self._busy)} of {len(self._busy) + len(self._idle)} connections busy, {len(self._waiting)} waiting)"

    @property
    def wrong(self) -> str | None:
        """The first thing that was wrong with an answer of the stretch that ended last."""
        return next(iter(self.stretch.wrong), None)

    async def closed(self, seconds: float, *, width: int | None = None, keep: bool = False) -> Stretch:
        """Each connection, or `width` of them, asks again as soon as it is answered. Right for CPU; it hides stalls.

        Returns when all have been answered, so that what the program spent is for what is counted.
        """
        await self._connect()
        with self._measured(keep) as stretch:
            self._goes_on = True
            for caller in [self._idle.popleft() for _ in range(min(width or len(self._idle), len(self._idle)))]:
                self.free(caller)
            await asyncio.sleep(seconds)
            self._goes_on = False
            await self.rest()
        return stretch

    async def open(self, per_s: float, seconds: float, *, keep: bool = False) -> Stretch:
        """Arrivals at random, so many a second on average, whoever else waits. Returns when all have been answered."""
        await self.arrive(per_s, seconds, keep=keep)
        return await self.rest()

    async def arrive(self, per_s: float, seconds: float, *, keep: bool = False) -> Stretch:
        """The same, but returns when the last has come: answers are counted in this stretch until the next one begins."""
        await self._connect()
        with self._measured(keep) as stretch:
            self._per_s = per_s
            self._until_s = time.perf_counter() + seconds
            self._next(self._until_s - seconds)
            while self._alarm:  # noqa: ASYNC110  # the loop may be late with the last arrivals
                await asyncio.sleep(max(0.001, self._until_s - time.perf_counter()))
        stretch.seconds = seconds
        return stretch

    async def rest(self) -> Stretch:
        """Until everybody has been answered or has gone."""
        until_s = time.perf_counter() + REST_S
        while (self._busy or self._waiting) and time.perf_counter() < until_s:
            self._leave(time.perf_counter())
            await asyncio.sleep(0.001)
        for caller in tuple(self._busy):
            caller.abort()
        self._look()
        return self.stretch

    def close(self) -> None:
        self._alarm.close()
        for caller in (*self._idle, *self._busy):
            caller.abort()

    def free(self, caller: Caller) -> None:
        """Whoever waits is next; else, in a closed loop, the next request."""
        if self._waiting:
            self._send(caller, *self._waiting.popleft())
        elif self._goes_on:
            self._turn = (self._turn + 1) % len(self.requests)
            self._send(caller, time.perf_counter(), self._turn)
        else:
            self._busy.discard(caller)
            self._idle.append(caller)

    def lose(self, caller: Caller) -> None:
        self._busy.discard(caller)
        if caller in self._idle:
            self._idle.remove(caller)

    @contextmanager
    def _measured(self, keep: bool) -> Iterator[Stretch]:
        self.stretch = stretch = Stretch(keep=keep)
        self.samples = []
        began_s, mine_s = time.perf_counter(), time.process_time()
        yield stretch
        stretch.seconds = time.perf_counter() - began_s
        stretch.load_busy = (time.process_time() - mine_s) / stretch.seconds

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        while len(self._idle) + len(self._busy) < self._connections:
            _, caller = await loop.create_connection(lambda: Caller(self), "127.0.0.1", self._port)
            self._idle.append(caller)

    def _look(self) -> None:
        if self._check is not None:
            said = [self._check(answer.body()) for answer in self.samples]
            self.stretch.looked_at = len(said)
            self.stretch.wrong = [each for each in said if each]

    def _next(self, due_s: float) -> None:
        due_s += self._random.expovariate(self._per_s)
        if due_s < self._until_s:
            self._alarm.at(due_s, partial(self._arrive, due_s))

    def _arrive(self, due_s: float) -> None:
        asked = due_s, self._random.randrange(len(self.requests))
        if self._idle:
            self._send(self._idle.popleft(), *asked)
            self.stretch.late.record(time.perf_counter() - due_s)
        else:
            self._leave(due_s)
            self._waiting.append(asked)
        self._next(due_s)

    def _send(self, caller: Caller, at_s: float, which: int) -> None:
        self._busy.add(caller)
        caller.ask(at_s, which)

    def _leave(self, now_s: float) -> None:
        while self._waiting and now_s - self._waiting[0][0] > PATIENCE_S:
            at_s, which = self._waiting.popleft()
            self.stretch.count(Visit(at_s, which, NEVER_SENT, PATIENCE_S))


@asynccontextmanager
async def loaded(
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
