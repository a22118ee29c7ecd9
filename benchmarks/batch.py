"""What batching brings and costs, over real sockets: `python -m benchmarks.batch [--quick]`.

Six sources are asked for each arrival, as a consultation of a user who is not cached does, once each alone and once through `Batch`.
Arrivals are open and irregular, from a process of their own, and latency counts from when each was due. The upstream, on the other core
too, holds each answer back by `--delay-ms`. CPU is this process's own user + system time, kernel included, for each key that it asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple

import msgspec
import uvloop

from benchmarks.eight import process
from benchmarks.upstream import FIRST
from cashier.answer import SourceError
from cashier.domain.order import ConsultRequest
from cashier.fanout.batch import Batch, Gathering
from cashier.fanout.upstream import Upstream
from cashier.plan import QUESTIONS, known
from cashier.sandbox import World
from cashier.sources.call import OverWire
from cashier.sources.many import ManyOverWire
from cashier.wire.exchange import Trip
from cashier.wire.http1 import Http1

PATHS = {
    "order": "/batch/orders",
    "member": "/batch/members",
    "card": "/batch/cards",
    "balance": "/batch/balances",
    "quota": "/batch/quotas",
    "marketing": "/batch/promotions",
}
SOURCES = {question.source.name: question.source for question in QUESTIONS}
RATES = (500, 1000, 2000)
BUDGET_MS = 100
TRIP = Trip("batch-bench")
CORES = sorted(os.sched_getaffinity(0))
_DUE = struct.Struct("=q")


class Found(NamedTuple):
    """One measured stretch. Latencies of single keys, in ms, sorted."""

    keys: int
    calls: int
    failed: int
    cpu_us: float
    latencies_ms: list[float]

    def at(self, share: float) -> float:
        return self.latencies_ms[int(share * (len(self.latencies_ms) - 1))]


class Arrivals(asyncio.Protocol):
    """Reads when consultations are due, and asks every source for each."""

    def __init__(self, upstreams: Iterable[Upstream], known: list[dict[str, Any]]) -> None:
        self._upstreams = tuple(upstreams)
        self._known = known
        self._unread = b""
        self.begun = asyncio.Event()
        self.asked = 0
        self.failed = 0
        self.latencies_ms: list[float] = []

    def data_received(self, data: bytes) -> None:
        data = self._unread + data
        whole = len(data) // _DUE.size * _DUE.size
        self._unread = data[whole:]
        for (due_ns,) in _DUE.iter_unpack(data[:whole]):
            self._ask(due_ns)
        self.begun.set()

    def _ask(self, due_ns: int) -> None:
        def heard(outcome: Any, none: bool = False, body: bytes | None = None) -> None:
            self.latencies_ms.append((time.monotonic_ns() - due_ns) / 1e6)
            self.failed += isinstance(outcome, SourceError)

        known = self._known[self.asked % len(self._known)]
        self.asked += 1
        for upstream in self._upstreams:
            upstream.call(known, TRIP, BUDGET_MS, heard)


def pace(rate: int) -> None:
    """Write to standard output when arrivals are due, irregularly, as they are, until nobody reads."""
    due_ns = time.monotonic_ns()
    with suppress(BrokenPipeError):
        while True:
            due_ns += int(random.expovariate(rate) * 1e9)
            time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
            os.write(1, _DUE.pack(due_ns))


@contextmanager
def arriving(rate: int) -> Iterator[IO[bytes]]:
    with subprocess.Popen([sys.executable, "-m", "benchmarks.batch", "--pace", str(rate)], stdout=subprocess.PIPE) as pacer:
        assert pacer.stdout is not None
        try:
            yield pacer.stdout
        finally:
            pacer.terminate()


async def measure(port: str, known: list[dict[str, Any]], due: IO[bytes], seconds: float, numbers: Gathering | None) -> Found:
    """One stretch; without `numbers` each key is a call of its own."""
    wires = {name: Http1([f"http://127.0.0.1:{port}"]) for name in PATHS}
    for wire in wires.values():
        await wire.open()
    batches = [Batch(ManyOverWire(SOURCES[name], wire, PATHS[name]), numbers) for name, wire in wires.items()] if numbers else []
    arrivals = Arrivals(batches or [OverWire(SOURCES[name], wire) for name, wire in wires.items()], known)
    reading, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: arrivals, due)
    await arrivals.begun.wait()
    await asyncio.sleep(0.3)  # connections are opened, code is warm
    found = await between_marks(arrivals, batches, seconds)
    reading.close()
    await asyncio.sleep(BUDGET_MS / 1000)  # what is under way comes back
    for wire in wires.values():
        await wire.close()
    return found


async def between_marks(arrivals: Arrivals, batches: list[Batch], seconds: float) -> Found:
    arrivals.latencies_ms, arrivals.failed = [], 0
    asked, calls, cpu_s = arrivals.asked, sum(batch.calls for batch in batches), time.process_time()
    await asyncio.sleep(seconds)
    used_s, keys = time.process_time() - cpu_s, (arrivals.asked - asked) * len(PATHS)
    made = sum(batch.calls for batch in batches) - calls if batches else keys
    return Found(keys, made, arrivals.failed, used_s / keys * 1e6, sorted(arrivals.latencies_ms))


def report(rate: int, alone: Found, batched: Found) -> None:
    per_call = batched.keys / batched.calls
    print(
        f"{rate:6}/s {alone.keys:8} {batched.keys:8}  {per_call:6.2f} {len(PATHS) / per_call:8.2f}"
        f"  {batched.at(0.5) - alone.at(0.5):+8.2f} {batched.at(0.99) - alone.at(0.99):+8.2f}"
        f"  {alone.at(0.5):6.2f} {alone.at(0.99):6.2f}  {alone.cpu_us:7.1f} {batched.cpu_us:7.1f}"
    )
    if failed := alone.failed + batched.failed:
        print(f"{failed} keys came to nothing: this machine is too busy for the figures to mean anything")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short stretch, to see that it works")
    parser.add_argument("--room", type=int, default=Gathering().room)
    parser.add_argument("--wait-ms", type=int, default=Gathering().wait_ms)
    parser.add_argument("--delay-ms", type=float, default=5, help="how long the upstream takes")
    parser.add_argument("--pace", type=int, help=argparse.SUPPRESS)
    told = parser.parse_args()
    os.sched_setaffinity(0, {CORES[-1 if told.pace else 0]})
    if told.pace:
        pace(told.pace)
        return
    users, seconds, rates = (20, 0.3, RATES[:1]) if told.quick else (1_000, 2.0, RATES)
    numbers = Gathering(room=told.room, wait_ms=told.wait_ms)
    crowd = World().cast.crowd
    asked = [known(msgspec.convert(crowd.consult_request(n), ConsultRequest)) for n in range(FIRST, FIRST + users)]
    print(f"six sources, an upstream of {told.delay_ms} ms, {numbers}; added is to the latency of a key, alone is that latency and CPU")
    print("arrivals   alone  batched keys/call  calls of 6  added p50  p99   alone p50  p99   CPU µs a key: alone, batched")
    with process(1, "benchmarks.upstream", "--users", str(users), "--delay-ms", str(told.delay_ms)) as (_, port):
        for rate in rates:
            found = []
            for each in (None, numbers):
                with arriving(rate) as due:
                    found.append(uvloop.run(measure(port, asked, due, seconds, each)))
            report(rate, *found)


if __name__ == "__main__":
    main()
