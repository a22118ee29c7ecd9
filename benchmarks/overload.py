"""Three times as much as the service can do: what is still answered in time, how soon the others are told, and how soon it is over.

The service on core 0, upstream and load on core 1. The load is open: arrivals at random at a fixed rate over many keep-alive connections,
latency counted from when a request was meant to go out. First the peak: the most that is answered with 200 within the deadline, by a ramp.
Then in turns the peak again, three times the peak, and half of it, once without shedding and three times with it. One in five callers
says that it matters more, one in five that it matters less. `python -m benchmarks.overload [--quick]`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
import uvloop

from benchmarks.eight import cpu_s, process
from benchmarks.upstream import FIRST
from cashier.plan import NAMES
from cashier.sandbox import World

USERS = 1_000
CONNECTIONS = 512
DEADLINE_MS = 150.0
# Whoever could not even send by then goes away.
PATIENCE_S = 1.0
# In the place of its status: a refusal, told apart from the 503 of a consultation that began and came to nothing.
REFUSED = -503
WINDOW_S = 0.2
CLASSES = ("high", "normal", "low")
_MIX = ("high", "normal", "normal", "normal", "low")


class Visit(NamedTuple):
    """One request: when it was meant to go out, which class, its status (REFUSED; 0: never sent or cut off), and latency from then on."""

    at_s: float
    word: str
    status: int
    latency_ms: float


class Caller(asyncio.Protocol):
    """One keep-alive connection. Reads of an answer what it must: the status, and where it ends."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._missing = 0
        self._head = b""
        self._status = 0
        self._asked: tuple[float, str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def ask(self, at_s: float, word: str, data: bytes) -> None:
        self._asked = (at_s, word)
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            at = self._head.find(b"content-length: ") + 16
            self._missing = end + 4 + int(self._head[at : self._head.find(b"\r", at)]) - len(self._head)
            self._status = REFUSED if b'"OVERLOADED"' in self._head else int(self._head[9:12])
            self._head = b""
        if not self._missing:
            self._end(self._status)
            self._crowd.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asked is not None:
            self._end(0)
        self._crowd.lose(self)

    def _end(self, status: int) -> None:
        assert self._asked is not None
        (at_s, word), self._asked = self._asked, None
        self._crowd.visits.append(Visit(at_s, word, status, (time.perf_counter() - at_s) * 1000))


class Crowd:
    """Arrivals at random. Whoever finds no connection free waits for one, and the wait counts."""

    def __init__(self, requests: dict[str, list[bytes]], seed: int) -> None:
        self.visits: list[Visit] = []
        self._requests = requests
        self._random = random.Random(seed)
        # The longest idle goes first: the service closes connections that it hears nothing from.
        self._idle: deque[Caller] = deque()
        self._connected = 0
        self._waiting: deque[tuple[float, str]] = deque()

    async def connect(self, port: int, connections: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, caller = await loop.create_connection(lambda: Caller(self), "127.0.0.1", port)
            self._idle.append(caller)
            self._connected += 1

    async def come(self, per_s: float, seconds: float) -> list[Visit]:
        """So many a second for so long. Returns those who have been answered, or have gone, a moment later."""
        self.visits = []
        due_s = time.perf_counter()
        until_s = due_s + seconds
        while due_s < until_s:
            due_s += self._random.expovariate(per_s)
            # Timers count in whole ms: whoever is due within one goes out together, and is late by the rest at most.
            while (ahead_s := due_s - time.perf_counter()) > 0:
                self._leave(due_s - ahead_s)
                await asyncio.sleep(max(0.001, ahead_s) if ahead_s > 0.0005 else 0)
            self._arrive(due_s)
        return self.visits

    async def rest(self) -> None:
        """Until everybody has gone."""
        while self._waiting or len(self._idle) < self._connected:
            self._leave(time.perf_counter())
            await asyncio.sleep(0.05)

    def close(self) -> None:
        for caller in self._idle:
            caller.close()

    def free(self, caller: Caller) -> None:
        if self._waiting:
            self._send(caller, *self._waiting.popleft())
        else:
            self._idle.append(caller)

    def lose(self, caller: Caller) -> None:
        self._connected -= 1
        if caller in self._idle:
            self._idle.remove(caller)

    def _arrive(self, at_s: float) -> None:
        word = self._random.choice(_MIX)
        if self._idle:
            self._send(self._idle.popleft(), at_s, word)
        else:
            self._waiting.append((at_s, word))

    def _send(self, caller: Caller, at_s: float, word: str) -> None:
        caller.ask(at_s, word, self._random.choice(self._requests[word]))

    def _leave(self, now_s: float) -> None:
        while self._waiting and now_s - self._waiting[0][0] > PATIENCE_S:
            at_s, word = self._waiting.popleft()
            self.visits.append(Visit(at_s, word, 0, PATIENCE_S * 1000))


class Told(NamedTuple):
    """What came of one stretch of arrivals."""

    visits: list[Visit]
    seconds: float
    load_busy: float
    service_busy: float

    @property
    def good_per_s(self) -> float:
        return sum(each.status == 200 and each.latency_ms <= DEADLINE_MS for each in self.visits) / self.seconds

    def latencies_ms(self, status: int) -> list[float]:
        return sorted(each.latency_ms for each in self.visits if each.status == status)

    def served(self, word: str) -> float:
        asked = [each.status == 200 and each.latency_ms <= DEADLINE_MS for each in self.visits if each.word == word]
        return sum(asked) / max(1, len(asked))


class Bench(NamedTuple):
    """A running service and its crowd."""

    crowd: Crowd
    pid: int

    async def stretch(self, per_s: float, seconds: float) -> Told:
        began, mine, its = time.perf_counter(), time.process_time(), cpu_s(self.pid)
        visits = await self.crowd.come(per_s, seconds)
        lasted = time.perf_counter() - began
        return Told(visits, seconds, (time.process_time() - mine) / lasted, (cpu_s(self.pid) - its) / lasted)

    async def settled(self, per_s: float, seconds: float) -> Told:
        """The same, with all answers in."""
        told = await self.stretch(per_s, seconds)
        await self.crowd.rest()
        return told


def quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def recovery_s(visits: Iterable[Visit], end_s: float, until_s: float, normal_p99_ms: float) -> float | None:
    """From the end of the overload to the first window in which all were served, at no more than twice the normal p99; None: never."""
    found = list(visits)
    at_s = end_s
    while at_s + WINDOW_S <= until_s:
        window = [each for each in found if at_s <= each.at_s < at_s + WINDOW_S]
        if all(each.status == 200 for each in window):
            slowest = quantile(sorted(each.latency_ms for each in window), 0.99)
            if slowest <= 2 * normal_p99_ms:
                return at_s - end_s
        at_s += WINDOW_S / 4
    return None


def requests(users: int) -> dict[str, list[bytes]]:
    crowd = World().cast.crowd
    found: dict[str, list[bytes]] = {word: [] for word in CLASSES}
    for n in range(FIRST, FIRST + users):
        body = msgspec.json.encode(crowd.consult_request(n))
        for word, those in found.items():
            head = f"POST /v1/consult HTTP/1.1\r\nHost: cashier\r\nContent-Type: application/json\r\nX-Priority: {word}\r\n"
            those.append(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return found


async def peak(bench: Bench, seconds: float) -> float:
    """The most that is answered in time, of rates that rise until it has fallen twice: the first time may be the machine's."""
    await bench.settled(200, 1.0)
    best, rate, falls = 0.0, 600.0, 0
    while falls < 2:
        told = await bench.settled(rate, seconds)
        print(
            f"  {rate:6.0f} a second: {told.good_per_s:6.0f} in time, service {told.service_busy:.0%}, load {told.load_busy:.0%}",
            flush=True,
        )
        falls += told.good_per_s < 0.9 * best
        best = max(best, told.good_per_s)
        rate *= 1.15 if told.good_per_s > 0.97 * rate else 1.05
    return best


async def overload(bench: Bench, per_s: float, seconds: float, rounds: int) -> None:
    """In each round the peak again, so that both halves of a ratio have the same machine, then three times that, then half of it."""
    before = await bench.settled(per_s / 2, seconds / 2)
    normal_ms = quantile(before.latencies_ms(200), 0.99)
    print(f"  before        p99 {normal_ms:.1f} ms at half of the peak")
    ratios = []
    for _ in range(rounds):
        best = await bench.settled(per_s, seconds / 2)
        during = await bench.stretch(3 * per_s, seconds)
        end_s = time.perf_counter()
        after = await bench.settled(per_s / 2, seconds / 2)
        visits = [*during.visits, *after.visits]
        # Those of the overload whose answers came after its end belong to it.
        during = during._replace(visits=[each for each in visits if each.at_s < end_s])
        ratios.append(during.good_per_s / best.good_per_s)
        report(during, best.good_per_s, recovery_s(visits, end_s, end_s + seconds / 2, normal_ms))
    print(
        f"  goodput       {statistics.median(ratios):.2f} of the peak ({min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds)",
        flush=True,
    )


def report(during: Told, peak_per_s: float, recovered_s: float | None) -> None:
    served, refused = during.latencies_ms(200), during.latencies_ms(REFUSED)
    print(f"  in time       {during.good_per_s:6.0f} a second = {during.good_per_s / peak_per_s:.2f} of {peak_per_s:.0f} at the peak")
    print(f"  answered      {len(served)}: p50 {quantile(served, 0.5):.1f} ms   p99 {quantile(served, 0.99):.1f} ms")
    print(f"  refused       {len(refused)}: p50 {quantile(refused, 0.5):.1f} ms   p99 {quantile(refused, 0.99):.1f} ms")
    print(f"  neither       {len(during.visits) - len(served) - len(refused)}")
    print("  served        " + "   ".join(f"{word} {during.served(word):.0%}" for word in CLASSES))
    print(f"  recovered     {'never' if recovered_s is None else f'{recovered_s:.2f} s after the end'}")
    print(f"  busy          service {during.service_busy:.0%}   load {during.load_busy:.0%}", flush=True)


@contextmanager
def service(upstream_port: str, shed: bool) -> Iterator[tuple[subprocess.Popen[str], int]]:
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "cashier.toml"
        sources = "".join(f'[sources.{name}]\nurl = "http://127.0.0.1:{upstream_port}"\n' for name in NAMES)
        config.write_text(f"[shed]\nenabled = {str(shed).lower()}\n{sources}")
        with process(0, "cashier", "serve", "--config", str(config), "--port", "0") as (child, address):
            yield child, int(address.rpartition(":")[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short stretches, to see that it works")
    parser.add_argument("--peak", type=float, help="do not look for the peak, take this rate")
    parser.add_argument("--only-with", action="store_true", help="leave out the run without shedding")
    told = parser.parse_args()
    seconds, users, rounds = (1.5, 100, 1) if told.quick else (6.0, USERS, 3)
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    asked = requests(users)

    async def run(shed: bool, found: float | None) -> float:
        with service(port, shed) as (child, at):
            crowd = Crowd(asked, seed=1)
            await crowd.connect(at, CONNECTIONS)
            bench = Bench(crowd, child.pid)
            if found is None:
                found = await peak(bench, seconds / 4)
                print(f"the peak is {found:.0f} a second")
            else:
                await bench.settled(found / 2, 1.0)
            print(f"{3 * found:.0f} a second, {'with' if shed else 'without'} shedding", flush=True)
            await overload(bench, found, seconds, rounds if shed else 1)
            return found

    with process(1, "benchmarks.upstream", "--users", str(users)) as (upstream, port):
        found = told.peak
        if not told.only_with:
            found = uvloop.run(run(False, found))
        began, used = time.perf_counter(), cpu_s(upstream.pid)
        uvloop.run(run(True, found))
        print(f"  upstream      busy {(cpu_s(upstream.pid) - used) / (time.perf_counter() - began):.0%} on the load's core, on the whole")


if __name__ == "__main__":
    main()
