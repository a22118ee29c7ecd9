"""Each mechanism once off and once on, over real sockets: what it is for, in figures. `python -m benchmarks.ablation [--quick] [NAME …]`.

The `Cashier` in this process, on core 0, with arrivals at random at a fixed rate and latency counted from when each was due. Its upstreams
are lean servers on the same loop, so that they can be told what to do and asked what they saw; where CPU is what counts they are a process
on core 1. CPU is this process's own user + system time, the load included. All else is as it ships, except: answers are not cached where a
call has to be made to be measured, and where two mechanisms would do the same job, the other one is off in both columns, as is noted.

Rounds off and on take turns; each figure is the median of its rounds, with the spread behind it. What stands under "off" is not this engine
without care, but without that one thing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeAlias, cast

import httptools
import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.batch import PATHS
from benchmarks.eight import process
from benchmarks.upstream import FIRST, NOT_FOUND, answers
from cashier import Cashier, ConsultRequest
from cashier.answer import SourceError
from cashier.consult import ConsultError
from cashier.fanout.ask import Importance, Status
from cashier.fanout.batch import Batch
from cashier.plan import NAMES, known
from cashier.sandbox import World
from cashier.web.server import GC_THRESHOLD
from cashier.wire.exchange import Trip

USERS = 500
CORES = sorted(os.sched_getaffinity(0))
TRIP = Trip("ablation")
Figures: TypeAlias = dict[str, float]


class Source:
    """A source on this loop. What it does may be changed at any time. `most`: so many calls it had at once; `opened` counts connections."""

    def __init__(self, name: str, found: Mapping[bytes, bytes]) -> None:
        self.found = found
        self.delay_ms = 3.0
        self.straggling_bps = 0
        self.hangs = False
        self.calls = self.opened = self.under_way = self.most = 0
        self._random = random.Random(name)  # each its own dice, or all straggle in the same consultation
        self.url = ""

    def draw_s(self) -> float:
        straggles = self._random.random() * 10_000 < self.straggling_bps
        return self.delay_ms * (12 if straggles else 1) / 1000


class Visitor(asyncio.Protocol):
    """One connection to a source."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._parser = httptools.HttpRequestParser(self)
        self._asked = b""
        self._asking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._source.opened += 1

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._asked += url

    def on_message_complete(self) -> None:
        source = self._source
        source.calls += 1
        source.under_way += 1
        source.most = max(source.most, source.under_way)
        self._asking = True
        answer, self._asked = source.found.get(self._asked, NOT_FOUND), b""
        if not source.hangs:
            asyncio.get_running_loop().call_later(source.draw_s(), self._answer, answer)

    def _answer(self, answer: bytes) -> None:
        if self._asking:
            self._gone()
            self._transport.write(answer)

    def _gone(self) -> None:
        self._asking = False
        self._source.under_way -= 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asking:
            self._gone()


class Stretch(NamedTuple):
    """What came of some time of arrivals. `lost`: consultations without an answer. `statuses`: by source and status."""

    latencies_ms: list[float]
    lost: int
    statuses: Counter[tuple[str, Status]]
    cpu_us: float

    @property
    def consultations(self) -> int:
        return len(self.latencies_ms)

    def at(self, share: float) -> float:
        return self.latencies_ms[int(share * (self.consultations - 1))]

    def timeouts(self, *names: str) -> int:
        return sum(self.statuses[name, Status.TIMEOUT] for name in names)


async def arrivals(cashier: Cashier, asked: Sequence[ConsultRequest], per_s: float, seconds: float) -> Stretch:
    """Consultations at random, `per_s` on average, for so long; returns when all have been answered."""
    latencies_ms: list[float] = []
    statuses: Counter[tuple[str, Status]] = Counter()
    lost = 0

    async def visit(due_s: float, request: ConsultRequest) -> None:
        nonlocal lost
        try:
            found = await cashier.consult(request)
            statuses.update((report.name, report.status) for report in found.sources)
        except ConsultError:
            lost += 1
        latencies_ms.append((time.perf_counter() - due_s) * 1000)

    cpu_s, due_s = time.process_time(), time.perf_counter()
    until_s = due_s + seconds
    visits = []
    while (due_s := due_s + random.expovariate(per_s)) < until_s:
        ahead_s = due_s - time.perf_counter()
        if ahead_s > 0:
            await asyncio.sleep(max(0.001, ahead_s))  # uvloop's timers count whole ms
        visits.append(asyncio.create_task(visit(due_s, random.choice(asked))))
    await asyncio.gather(*visits)
    return Stretch(sorted(latencies_ms), lost, statuses, (time.process_time() - cpu_s) / max(1, len(visits)) * 1e6)


class Bench(NamedTuple):
    """`scale`: of all times, so that a quick run is one. `asked`: the customers."""

    scale: float
    found: Mapping[bytes, bytes]
    asked: Sequence[ConsultRequest]

    @asynccontextmanager
    async def engine(
        self, each: Mapping[str, Any] | None = None, *, deadline_ms: int = 150, **other: Mapping[str, Any]
    ) -> AsyncIterator[tuple[Cashier, dict[str, Source]]]:
        """An engine and its sources, on this loop."""
        loop = asyncio.get_running_loop()
        sources = {name: Source(name, self.found) for name in NAMES}
        servers = []
        for source in sources.values():
            server = await loop.create_server(lambda to=source: Visitor(to), "127.0.0.1", 0, backlog=1024)  # type: ignore[misc]  # `to` is bound
            servers.append(server)
            source.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        config = configured({name: source.url for name, source in sources.items()}, each, other)
        async with Cashier(config={**config, "consult": {"deadline_ms": deadline_ms}}) as cashier:
            yield cashier, sources
        for server in servers:
            server.close()

    async def run(self, cashier: Cashier, per_s: float, seconds: float) -> Stretch:
        return await arrivals(cashier, self.asked, per_s, seconds * self.scale)


def configured(urls: Mapping[str, str], each: Mapping[str, Any] | None = None, other: Mapping[str, Any] | None = None) -> dict[str, Any]:
    sources = {name: {"url": urls[name], **(each or {}), **(other or {}).get(name, {})} for name in NAMES}
    return {"sources": sources, "tokens": {"secrets": ["b" * 32]}}


def first_calls(cashier: Cashier) -> int:
    """Of all sources. A batch is one."""
    made = 0
    for stack in cashier.stacks.values():
        upstream = stack.guard.upstream
        made += upstream.calls if isinstance(upstream, Batch) else stack.guard.counts.first
    return made


# The mechanisms


async def cache(bench: Bench, on: bool) -> Figures:
    """Customers who come back within seconds, 400 a second; upstream on another core, in 3 ms"""
    return await beside(bench, 400, 3, {} if on else {"cache": False})


async def batch(bench: Bench, on: bool) -> Figures:
    """1,000 a second, none cached; upstream on another core, in 5 ms; six of eight sources take batches"""
    other = {name: {"batch": {"path": path}} for name, path in PATHS.items()} if on else {}
    return await beside(bench, 1_000, 5, {"cache": False}, **other)


async def beside(bench: Bench, per_s: float, delay_ms: float, each: Mapping[str, Any], **other: Mapping[str, Any]) -> Figures:
    """With the upstream on the other core."""
    with process(1, "benchmarks.upstream", "--users", str(len(bench.asked)), "--delay-ms", str(delay_ms)) as (_, port):
        async with Cashier(config=configured(dict.fromkeys(NAMES, f"http://127.0.0.1:{port}"), each, other)) as cashier:
            await bench.run(cashier, per_s / 4, 0.7)  # connections are opened, code is warm
            await bench.run(cashier, per_s, 1)
            calls = first_calls(cashier)
            found = await bench.run(cashier, per_s, 1.5)
            made = first_calls(cashier) - calls
            await asyncio.sleep(delay_ms / 100)  # what is late comes in, before anybody closes the door on it
    return {
        "calls per consultation": made / found.consultations,
        "CPU µs per consultation": found.cpu_us,
        "p50 ms": found.at(0.5),
        "p99 ms": found.at(0.99),
        "without an answer %": 100 * found.lost / found.consultations,
    }


async def single_flight(bench: Bench, on: bool) -> Figures:
    """1,000 at once ask for the same channels, which nobody has asked for yet (no limiter: a pool's queue is the bound)"""
    answered: Counter[bool] = Counter()

    def done(outcome: Any, status: Status = Status.FRESH, age_ms: int = 0) -> None:
        answered[not isinstance(outcome, SourceError)] += 1

    async with bench.engine({"limiter": False, "timeout_ms": 900}, deadline_ms=1_000) as (cashier, sources):
        stack = cashier.stacks["channel"]
        start = stack.cache.start if on else stack.guard.start
        question = known(bench.asked[0])
        for _ in range(1_000):
            start(question, TRIP, 900, done)
        while answered.total() < 1_000:  # noqa: ASYNC110 - callbacks count, on this loop
            await asyncio.sleep(0.01)
        return {"calls": sources["channel"].calls, "answered of 1,000": answered[True]}


async def hedge(bench: Bench, on: bool) -> Figures:
    """8 ms, one call in a hundred takes twelve times as long; 150 a second, none cached"""
    async with bench.engine({"cache": False, "hedge": on}) as (cashier, sources):
        for source in sources.values():
            source.delay_ms, source.straggling_bps = 8, 100
        await bench.run(cashier, 150, 2)
        before = sum(source.calls for source in sources.values())
        found = await bench.run(cashier, 150, 4)
        calls = sum(source.calls for source in sources.values()) - before
    return {
        "p50 ms": found.at(0.5),
        "p95 ms": found.at(0.95),
        "p99 ms": found.at(0.99),
        "extra calls %": 100 * (calls / found.consultations / len(NAMES) - 1),
    }


async def breaker(bench: Bench, on: bool) -> Figures:
    """The quota service hangs for good, 100 a second (the limiter is off)"""
    async with bench.engine({"limiter": False}, quota={"breaker": on}) as (cashier, sources):
        await bench.run(cashier, 100, 1)
        sources["quota"].hangs = True
        await bench.run(cashier, 100, 2.5)
        before = sources["quota"].calls
        found = await bench.run(cashier, 100, 2)
        calls = sources["quota"].calls - before
    return {"p50 ms": found.at(0.5), "p99 ms": found.at(0.99), "calls to it %": 100 * calls / found.consultations}


async def adaptive_timeout(bench: Bench, on: bool) -> Figures:
    """After 6 s at 200 a second the quota service hangs: the first second, ceiling 100 ms (breaker and limiter are off)"""
    async with bench.engine({"cache": False, "breaker": False, "limiter": False, "adaptive_timeout": on}) as (cashier, sources):
        for source in sources.values():
            source.straggling_bps = 20
        before = await bench.run(cashier, 200, 6)
        sources["quota"].hangs = True
        found = await bench.run(cashier, 200, 0.8)
    judged = [stack.name for stack in cashier.stacks.values() if stack.question.importance is not Importance.REQUIRED]
    return {
        "p50 ms": found.at(0.5),
        "p99 ms": found.at(0.99),
        "given up wrongly, of 10,000": 10_000 * before.timeouts(*judged) / before.consultations / len(judged),
    }


async def late(bench: Bench, on: bool) -> Figures:
    """Marketing takes 60 ms where the others take 3: all wait the grace of 15 ms for it, in vain; 100 a second"""
    async with bench.engine(marketing={"late": on}) as (cashier, sources):
        sources["marketing"].delay_ms = 60
        await bench.run(cashier, 100, 1)
        opened, harvested = sources["marketing"].opened, cashier.stacks["marketing"].guard.counts.harvested
        found = await bench.run(cashier, 100, 2)
        opened = sources["marketing"].opened - opened
        harvested = cashier.stacks["marketing"].guard.counts.harvested - harvested
    cached = found.statuses["marketing", Status.CACHED] + found.statuses["marketing", Status.STALE]
    return {
        "connections opened, per 1,000": 1_000 * opened / found.consultations,
        "answers kept, per 1,000": 1_000 * harvested / found.consultations,
        "with promotions %": 100 * cached / found.consultations,
    }


async def retry(bench: Bench, on: bool) -> Figures:
    """Weather `stormy` from the sandbox, on another core: one call in ten goes wrong, in every way; 50 a second, none cached"""
    with process(1, "cashier", "sandbox", "--port", "0", "--weather", "stormy") as (_, address):
        urls = dict.fromkeys(NAMES, address.rpartition(" ")[2])
        async with Cashier(config=configured(urls, {"cache": False, "retry": on})) as cashier:
            await bench.run(cashier, 50, 0.5)
            found = await bench.run(cashier, 50, 3)
            counts = [stack.guard.counts for stack in cashier.stacks.values()]
    return {
        "without an answer %": 100 * found.lost / found.consultations,
        "retries per 100 calls": 100 * sum(each.retries for each in counts) / sum(each.first for each in counts),
    }


async def limiter(bench: Bench, on: bool) -> Figures:
    """The quota service takes 300 ms all of a sudden, three times its ceiling; 300 a second (the breaker is off)"""
    async with bench.engine({"cache": False, "breaker": False}, quota={"limiter": on}) as (cashier, sources):
        quota = sources["quota"]
        await bench.run(cashier, 300, 1)
        quota.delay_ms, quota.most = 300, 0
        await bench.run(cashier, 300, 2.5)
        first, quota.most = quota.most, 0
        found = await bench.run(cashier, 300, 1.5)
    return {"calls at once, most": first, "the same from 2.5 s on": quota.most, "p50 ms": found.at(0.5)}


MECHANISMS: dict[str, Callable[[Bench, bool], Awaitable[Figures]]] = {
    "cache": cache,
    "single flight": single_flight,
    "hedge": hedge,
    "breaker": breaker,
    "adaptive timeout": adaptive_timeout,
    "limiter": limiter,
    "late answers": late,
    "retry": retry,
    "batch": batch,
}


async def measured(bench: Bench, names: Sequence[str], rounds: int, show: Callable[[str, list[Figures], list[Figures]], None]) -> None:
    for name in names:
        off: list[Figures] = []
        on: list[Figures] = []
        for _ in range(rounds):
            off.append(await MECHANISMS[name](bench, False))
            on.append(await MECHANISMS[name](bench, True))
        show(name, off, on)


def several(rounds: Sequence[Figures], figure: str) -> str:
    values = sorted(each[figure] for each in rounds)
    middle = f"{statistics.median(values):.4g}"
    return middle if len(values) == 1 or values[0] == values[-1] else f"{middle} ({values[0]:.3g}–{values[-1]:.3g})"


async def compare(scale: float, rounds: int, users: int, names: Sequence[str]) -> None:
    crowd = World().cast.crowd
    asked = [msgspec.convert(crowd.consult_request(n), ConsultRequest) for n in range(FIRST, FIRST + users)]
    table = Table("mechanism", "figure", "off", "on", title=f"Each mechanism once off and once on, {rounds} round(s)", title_justify="left")

    def show(name: str, off: list[Figures], on: list[Figures]) -> None:
        table.add_section()
        table.add_row(f"[bold]{name}[/]", f"[dim]{MECHANISMS[name].__doc__}[/]")
        for figure in off[0]:
            table.add_row("", figure, several(off, figure), several(on, figure))

    found = await answers(users)
    gc.freeze()  # as the service does once it is warm
    gc.set_threshold(GC_THRESHOLD, 10, 10)
    await measured(Bench(scale, found, asked), names, rounds, show)
    Console(width=118).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works: its figures mean little")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("name", nargs="*", help=f"only these: {', '.join(MECHANISMS)}")
    told = parser.parse_args()
    if strange := set(told.name) - set(MECHANISMS):
        parser.error(f"no mechanism is called {', '.join(sorted(strange))}")
    os.sched_setaffinity(0, {CORES[0]})
    scale, rounds, users = (0.1, 1, 50) if told.quick else (1.0, told.rounds, USERS)
    uvloop.run(compare(scale, rounds, users, told.name or list(MECHANISMS)))


if __name__ == "__main__":
    main()
