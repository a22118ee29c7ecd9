"""One slow and one far endpoint among four: the choice between the addresses of a source.

Four addresses of one source, in a process on core 1: two answer after 4 ms, the far one after 20,
the slow one after 60; each time varies by a quarter, at random. This process, on core 0, calls them
with two clients that differ in the choice alone: least calls in flight, ties in turn, as before;
and three choices by recent latency × calls in flight. No hedges, retries or breakers. Open arrivals
at random at two rates, latency from the due time; rounds interleave, after a warm-up. Both clients
keep what they have learned from round to round, as a service does. The second table is of the same
arrivals and delays in virtual time: what the choice alone does, whatever else the machine does.

`python -m benchmarks.studies.endpoints MS…` is the server: it prints one port per delay, and serves
until its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple, TypeVar, cast

import httptools
import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.load_results import Histogram
from benchmarks.lab.precise_timer import PreciseTimer
from benchmarks.lab.process import LOAD_CORE, PROGRAM_CORE, pinned, process, python
from benchmarks.results import BarChart, Columns, Figure, Finding, Row, Table, figures
from cashier.source_errors import SourceError
from cashier.wire.http1 import Http1Client
from cashier.wire.load_balancing import BackOff, BalancedHost, LatencyEstimate, LoadBalancer
from cashier.wire.transport import CallHeaders, Request, Response

DELAYS_MS = (4.0, 4.0, 20.0, 60.0)
VARIATION = 0.25
FAR, SLOW = 2, 3
RATES = (50, 500)
INTERVAL_S = 4.0
WARM_S = 1.0
SIMULATED_S = 30.0
PERCENTILES = ("p50", "p90", "p99")
BEFORE, AFTER = CHOICES = ("least in flight", "latency × in flight")
CALL_HEADERS = CallHeaders("0f3f9c2e-bench")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


Host = TypeVar("Host", bound=BalancedHost)


class LeastInFlight(LoadBalancer[Host]):
    """The choice as it was before: of all addresses, the one with the least calls in flight."""

    def pick(self, now_s: float, avoid: int = 0, unproven: int = 0) -> Host:
        count = len(self.hosts)
        self._turn = (self._turn + 1) % count
        return min((self.hosts[(self._turn + step) % count] for step in range(count)), key=lambda host: host.load)


class EndpointRound(NamedTuple):
    """One interval. `calls`: by address."""

    histogram: Histogram
    late: Histogram
    calls: Counter[int]
    failed: int

    def share(self, index: int) -> float:
        return 100 * self.calls[index] / max(1, self.calls.total())


COLUMNS: Columns[EndpointRound] = {
    "p50 ms": lambda each: each.histogram.at(0.5),
    "p90 ms": lambda each: each.histogram.at(0.9),
    "p99 ms": lambda each: each.histogram.at(0.99),
    "to the far one %": lambda each: each.share(FAR),
    "to the slow one %": lambda each: each.share(SLOW),
}
LATE: Columns[EndpointRound] = {"sent late, p99 ms": lambda each: each.late.at(0.99)}
Rounds = dict[tuple[int, str], list[EndpointRound]]


def measure(lab: Lab) -> Finding:
    words = python("benchmarks.studies.endpoints", *map(str, DELAYS_MS))
    with pinned(PROGRAM_CORE), process(LOAD_CORE, *words) as child:
        return finding(uvloop.run(measure_choices(lab, json.loads(child.first_line))))


async def measure_choices(lab: Lab, ports: Sequence[int]) -> Rounds:
    rounds: Rounds = {(rate, name): [] for rate in RATES for name in CHOICES}
    timer = PreciseTimer(asyncio.get_running_loop())
    async with open_clients(ports) as clients:
        for rate in RATES:
            for client in clients.values():
                await call_openly(client, timer, rate, lab.seconds(WARM_S), Random(rate))
        for turn in lab.turns("endpoints"):
            for rate in RATES:
                for name, client in clients.items():
                    interval = await call_openly(client, timer, rate, lab.seconds(INTERVAL_S), Random(turn))
                    rounds[rate, name].append(interval)
    timer.close()
    return rounds


@contextlib.asynccontextmanager
async def open_clients(ports: Sequence[int]) -> AsyncIterator[dict[str, Http1Client]]:
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    clients = {name: Http1Client(urls) for name in CHOICES}
    before = clients[BEFORE]._hosts
    before._balancer = LeastInFlight(before.live)
    for client in clients.values():
        await client.open()
    try:
        yield clients
    finally:
        for client in clients.values():
            await client.close()


async def call_openly(
    client: Http1Client, timer: PreciseTimer, rate: int, seconds: float, random: Random
) -> EndpointRound:
    """Returns when every call has ended."""
    result = EndpointRound(Histogram(), Histogram(), Counter(), 0)
    failed, pending = 0, 1
    done = asyncio.get_running_loop().create_future()

    def ended() -> None:
        nonlocal pending
        pending -= 1
        if not pending:
            done.set_result(None)

    def call(due_s: float) -> None:
        def on_response(outcome: Response | SourceError) -> None:
            nonlocal failed
            if isinstance(outcome, Response):
                result.histogram.record(time.perf_counter() - due_s)
            else:
                failed += 1
            ended()

        result.late.record(time.perf_counter() - due_s)
        result.calls[client.send(Request("/"), CALL_HEADERS, 1000, on_response).address_index] += 1

    due_s = time.perf_counter()
    end_s = due_s + seconds
    while (due_s := due_s + random.expovariate(rate)) < end_s:
        pending += 1
        timer.at(due_s, lambda due_s=due_s: call(due_s))  # type: ignore[misc]  # a default binds it now
    timer.at(end_s, ended)
    await done
    return result._replace(failed=failed)


class SimulatedHost:
    """A `BalancedHost` without connections."""

    weight = 1.0
    priority = 0

    def __init__(self, delay_s: float) -> None:
        self.load = 0
        self.back_off = BackOff()
        self.latency = LatencyEstimate()
        self.delay_s = delay_s


def simulated(choice: type[LoadBalancer[SimulatedHost]], rate: int, seconds: float, random: Random) -> EndpointRound:
    """The same in virtual time."""
    result = EndpointRound(Histogram(), Histogram(), Counter(), 0)
    hosts = [SimulatedHost(delay_ms / 1000) for delay_ms in DELAYS_MS]
    balancer = choice(hosts, random)
    ends: list[tuple[float, int, float]] = []
    now_s = 0.0
    while (now_s := now_s + random.expovariate(rate)) < seconds:
        while ends and ends[0][0] <= now_s:
            end_s, index, took_s = heapq.heappop(ends)
            hosts[index].load -= 1
            balancer.record(hosts[index], took_s, end_s, failed=False)
        host = balancer.pick(now_s)
        index, took_s = hosts.index(host), host.delay_s * random.uniform(1 - VARIATION, 1 + VARIATION)
        host.load += 1
        heapq.heappush(ends, (now_s + took_s, index, took_s))
        result.histogram.record(took_s)
        result.calls[index] += 1
    return result


def simulate(rounds: int) -> Rounds:
    choices: dict[str, type[LoadBalancer[SimulatedHost]]] = {BEFORE: LeastInFlight, AFTER: LoadBalancer}
    return {
        (rate, name): [simulated(choice, rate, SIMULATED_S, Random(turn)) for turn in range(rounds)]
        for rate in RATES
        for name, choice in choices.items()
    }


def finding(rounds: Mapping[tuple[int, str], Sequence[EndpointRound]]) -> Finding:
    rows, key = compared(rounds, {**COLUMNS, **LATE}, "endpoints")
    virtual = simulate(len(rounds[RATES[0], BEFORE]))
    without_machine, simulated_key = compared(virtual, COLUMNS, "endpoints.simulated")
    columns = {case: figures(each, COLUMNS) for case, each in rounds.items()}
    groups: dict[str, list[Figure | None]] = {
        name: [columns[rate, name][f"{percentile} ms"] for rate in RATES for percentile in PERCENTILES]
        for name in CHOICES
    }
    labels = [f"{name} at {rate}/s" for rate in RATES for name in PERCENTILES]
    return Finding(
        "One slow and one far endpoint among four",
        key=key | simulated_key,
        tables=[
            Table("Latency of a call, and where the calls went", rows),
            Table("The same in virtual time", without_machine),
        ],
        drawings=[BarChart("Latency of a call", "ms", labels, groups, ours=[AFTER])],
        notes=list(notes(rounds)),
    )


def compared(
    rounds: Mapping[tuple[int, str], Sequence[EndpointRound]], columns: Columns[EndpointRound], prefix: str
) -> tuple[list[Row], dict[str, Figure]]:
    """The rows of both choices at each rate, and the ratios of their percentiles by key."""
    rows: list[Row] = []
    key: dict[str, Figure] = {}
    for rate in RATES:
        before, after = (figures(rounds[rate, name], columns) for name in CHOICES)
        ratios = {name: before[f"{name} ms"].over(after[f"{name} ms"]) for name in PERCENTILES}
        key |= {f"{prefix}.{name}_before_over_after_{rate}": ratio for name, ratio in ratios.items()}
        rows += [
            Row(f"{rate}/s, {BEFORE}", before),
            Row(
                f"{rate}/s, {AFTER}", {**after, **{f"{name}, before ÷ after": ratio for name, ratio in ratios.items()}}
            ),
        ]
    return rows, key


def notes(rounds: Mapping[tuple[int, str], Sequence[EndpointRound]]) -> Iterator[str]:
    failed = sum(each.failed for by_case in rounds.values() for each in by_case)
    if failed:
        yield f"{failed} calls failed."
    yield (
        "The slow and the far endpoint are not left for ever: the estimate of an idle one decays, and one call at a "
        "time tries it again."
    )


class DelayedConnection(asyncio.Protocol):
    """The server's side of a connection."""

    def __init__(self, timer: PreciseTimer, delay_s: float, random: Random) -> None:
        self.timer = timer
        self.delay_s = delay_s
        self.random = random

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport does not subclass asyncio.Transport
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        delay_s = self.delay_s * self.random.uniform(1 - VARIATION, 1 + VARIATION)
        self.timer.at(time.perf_counter() + delay_s, lambda: self.transport.write(ANSWER))


async def serve(delays_ms: Sequence[float]) -> None:
    loop = asyncio.get_running_loop()
    timer = PreciseTimer(loop)
    async with contextlib.AsyncExitStack() as opened:
        ports = []
        for delay_ms in delays_ms:

            def connection(delay_s: float = delay_ms / 1000) -> DelayedConnection:
                return DelayedConnection(timer, delay_s, Random(delay_s))

            server = await opened.enter_async_context(await loop.create_server(connection, "127.0.0.1", 0))
            ports.append(server.sockets[0].getsockname()[1])
        print(json.dumps(ports), flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve([float(word) for word in sys.argv[1:]]))
