"""What one consultation costs in CPU: the workload "eight", all sources live, over real sockets.

The service on core 0, upstream and load on core 1 (where there is one). A closed loop of keep-alive connections, users and orders varied;
CPU is the service's own user + system time between two marks, divided by the consultations in between. Rounds are repeated; the table has
the median and the spread. `python -m benchmarks.eight [--quick] [--cached] [--profile FILE]`.

All mechanisms are on, but nothing is cached, so that there are eight live calls a consultation; with `--cached` the caches are as they are
by default. Shedding is off: what it leaves out would not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import httptools
import msgspec
import uvloop

from benchmarks.upstream import FIRST
from cashier.plan import NAMES
from cashier.sandbox import World

USERS = 2_000
CONNECTIONS = 16
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_CORES = sorted(os.sched_getaffinity(0))


class Round(NamedTuple):
    """One measured stretch. Latencies in ms, sorted."""

    consultations: int
    cpu_us: float
    busy: float
    refused: int
    latencies_ms: list[float]


class Load(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it is answered."""

    def __init__(self, requests: Iterator[bytes], load: Closed) -> None:
        self._requests = requests
        self._load = load
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._ask()

    def _ask(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._load.refused += self._parser.get_status_code() != 200
        self._load.latencies_ms.append((time.perf_counter() - self._began) * 1000)
        self._parser = httptools.HttpResponseParser(self)
        if not self._load.over:
            asyncio.get_running_loop().call_soon(self._ask)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._load.over, f"the service closed a connection: {exc}"


class Closed:
    """A closed loop over several connections."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self.port = port
        self.latencies_ms: list[float] = []
        self.refused = 0
        self.over = False
        self._requests = requests

    def _turns(self, first: int) -> Iterator[bytes]:
        at = first
        while True:
            yield self._requests[at % len(self._requests)]
            at += CONNECTIONS

    async def measure(self, pid: int, warm_s: float, seconds: float, rounds: int) -> list[Round]:
        loop = asyncio.get_running_loop()
        made = [await loop.create_connection(lambda n=n: Load(self._turns(n), self), "127.0.0.1", self.port) for n in range(CONNECTIONS)]  # type: ignore[misc]  # n is bound
        await asyncio.sleep(warm_s)
        found = []
        for _ in range(rounds):
            self.latencies_ms, self.refused = [], 0
            began, cpu = time.perf_counter(), cpu_s(pid)
            await asyncio.sleep(seconds)
            used, lasted = cpu_s(pid) - cpu, time.perf_counter() - began
            count = len(self.latencies_ms)
            found.append(Round(count, used / count * 1e6, used / lasted, self.refused, sorted(self.latencies_ms)))
        self.over = True
        for transport, _ in made:
            transport.abort()
        await asyncio.sleep(0)  # until they are gone
        return found


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def requests(users: int) -> list[bytes]:
    crowd = World().cast.crowd
    found = []
    for n in range(FIRST, FIRST + users):
        body = msgspec.json.encode(crowd.consult_request(n))
        head = f"POST /v1/consult HTTP/1.1\r\nHost: cashier\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        found.append(head.encode() + body)
    return found


@contextmanager
def process(core: int, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A Python process on a core of its own, and the first line that it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CASHIER_TOKEN_SECRET": "b" * 32},
        preexec_fn=lambda: os.sched_setaffinity(0, {_CORES[core % len(_CORES)]}),  # noqa: PLW1509  # nothing else runs in this process
    ) as child:
        assert child.stdout is not None
        try:
            yield child, child.stdout.readline().strip()
        finally:
            child.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--cached", action="store_true", help="with the caches as they are by default, for customers who come back")
    parser.add_argument("--profile", help="write a py-spy flame graph (SVG) of the service under this load")
    told = parser.parse_args()
    seconds, rounds, users = (0.5, 1, 100) if told.quick else (4.0, 5, USERS)
    os.sched_setaffinity(0, {_CORES[-1]})
    with tempfile.TemporaryDirectory() as directory, process(1, "benchmarks.upstream", "--users", str(users)) as (_, port):
        config = Path(directory) / "cashier.toml"
        config.write_text(configured(port, cached=told.cached))
        with process(0, "cashier", "serve", "--config", str(config), "--port", "0") as (service, address):
            load = Closed(int(address.rpartition(":")[2]), requests(users))
            if told.profile:
                spied = [
                    "py-spy",
                    "record",
                    "--pid",
                    str(service.pid),
                    "--rate",
                    "500",
                    "--native",
                    "--duration",
                    "15",
                    "--output",
                    told.profile,
                ]
                subprocess.Popen(spied)
                rounds = 5
            report(uvloop.run(load.measure(service.pid, 0.3 if told.quick else 2.0, seconds, rounds)), cached=told.cached)


def configured(port: str, *, cached: bool) -> str:
    source = f'url = "http://127.0.0.1:{port}"\n' + ("" if cached else "cache = false\n")
    return "[shed]\nenabled = false\n" + "".join(f"[sources.{name}]\n{source}" for name in NAMES)


def report(rounds: list[Round], *, cached: bool) -> None:
    cpu = sorted(each.cpu_us for each in rounds)
    latencies = sorted(each for found in rounds for each in found.latencies_ms)
    rate = statistics.median(each.cpu_us and each.busy / each.cpu_us * 1e6 for each in rounds)
    what = "eight sources, cached by default" if cached else "eight live sources"
    print(f"{what}, {CONNECTIONS} connections in a closed loop, {len(rounds)} rounds, {len(latencies)} consultations")
    if refused := sum(each.refused for each in rounds):
        print(f"{refused} of them were not answered with 200: this machine is too busy for the figures to mean anything")
    print(f"CPU per consultation   {statistics.median(cpu):7.1f} µs   ({cpu[0]:.1f} to {cpu[-1]:.1f})")
    print(f"consultations/s        {rate:7.0f}      with the service's core {statistics.median(each.busy for each in rounds):.0%} busy")
    print(f"latency                p50 {latencies[len(latencies) // 2]:.2f} ms   p99 {latencies[len(latencies) * 99 // 100]:.2f} ms")


if __name__ == "__main__":
    main()
