"""CPU per consultation, beside the peers.

The figure is the user and system time of a process tree ÷ answered consultations.
All programs are started at once, and each is alone on core 0 during its load; idle ones cost
nothing. Upstream and load are on core 1. The load is a closed loop of 16 connections, because this
is about CPU; its latencies say nothing about load. Rounds interleave: the first of each program,
then the second of each. Cashier does all of its domain work, metrics and mechanisms included; the
peers merge the eight bodies and do nothing else. The cached group is 2,000 customers who return
within seconds, so that everything cacheable is cached: order, balance and quota are asked each
time. The upstream counts the calls for each consultation.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import CpuUsage, disturbance_note, incomplete_note, measure_cpu, unanswered_note
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.load_results import LoadInterval
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.programs import Program, start_programs
from benchmarks.lab.requests import USERS, consultations
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.lab.upstream_control import Behaviour
from benchmarks.results import BarChart, Figure, Finding, Row, Table

ROUND_S = 2.5
WARM_S = 2.0
# Before each round: refills short-lived caches and those of the processor.
AGAIN_S, AGAIN_CACHED_S = 0.3, 1.5
# Lura, the engine of KrakenD, cannot be installed from a package index. Measured separately in
# paired rounds, it costs 4.0 × nginx + Lua with subrequests (`capture_multi`). The peer here uses
# cosockets, which are cheaper by a fifth.
LURA_IN_NGINX = 5.0
PROFILE_S = 15.0
# cashier's fan-out without its domain.
BARE = "own_fanout"
CROWDED = 0.9


class ProgramCost(NamedTuple):
    """Measurements of one program.

    `calls`: upstream per consultation, by round, as it counts them.
    """

    program: Program
    rounds: list[CpuUsage]
    calls: list[float]

    @property
    def intervals(self) -> list[LoadInterval]:
        return [each.interval for each in self.rounds]

    @property
    def compared(self) -> bool:
        """False for a peer with incomplete answers, which would have an advantage."""
        return self.program.ours or not incomplete_note(self.intervals)

    def figure(self, name: str) -> Figure:
        return Figure(tuple(getattr(each, name) for each in self.rounds))

    def percent(self, name: str) -> Figure:
        return Figure(tuple(100 * getattr(each, name) for each in self.rounds))

    def at(self, quantile: float) -> Figure:
        return Figure(tuple(each.interval.at(quantile) for each in self.rounds))


def measure(lab: Lab) -> Finding:
    start_s = time.perf_counter()
    users = lab.count(USERS)
    with pinned(LOAD_CORE), start_upstream(lab, users=users) as upstream, ExitStack() as running:
        programs = start_programs(lab, upstream, running)
        results = uvloop.run(measure_programs(lab, programs, upstream, consultations(users)))
        if lab.profile:
            uvloop.run(record_profile(lab, programs[0], consultations(users)))
    return finding(results, time.perf_counter() - start_s)


async def measure_programs(
    lab: Lab, programs: Sequence[Program], upstream: LeanUpstream, requests: Sequence[bytes]
) -> list[ProgramCost]:
    """Interleave the live programs, then the cached ones, so that ratios compare one minute."""
    async with AsyncExitStack() as open_loads:
        loads = {
            program.name: await open_loads.enter_async_context(
                open_load(program.served.port, requests, check=program.check)
            )
            for program in programs
        }
        results = {program.name: ProgramCost(program, [], []) for program in programs}
        for caches, again_s in ((False, AGAIN_S), (True, AGAIN_CACHED_S)):
            group = [program for program in programs if program.caches is caches]
            for program in group:
                await loads[program.name].closed(lab.seconds(WARM_S))
            for turn in range(lab.rounds):
                for program in group:
                    await loads[program.name].closed(lab.seconds(again_s))
                    await measure_round(lab, loads[program.name], results[program.name], upstream)
                lab.report(
                    f"round {turn + 1} of {lab.rounds}, µs: "
                    + ", ".join(f"{each.title} {last_cost(results[each.name])}" for each in group)
                )
        return list(results.values())


async def measure_round(lab: Lab, load: Load, result: ProgramCost, upstream: LeanUpstream) -> None:
    upstream.behave(Behaviour())  # resets its counts; blocks while no request waits
    usage = await measure_cpu(load.closed(lab.seconds(ROUND_S)), result.program.served.pid, upstream.pid)
    result.rounds.append(usage)
    result.calls.append(sum(upstream.seen().calls.values()) / usage.interval.answered)


def last_cost(result: ProgramCost) -> str:
    return f"{result.rounds[-1].cpu_us:,.0f}"


async def record_profile(lab: Lab, program: Program, requests: Sequence[bytes]) -> None:
    """Write a flame graph of cashier under the same load, after the measurements, because it costs
    CPU.
    """
    seconds = lab.seconds(PROFILE_S)
    words = [
        "py-spy",
        "record",
        "--pid",
        str(program.served.pid),
        "--rate",
        "500",
        "--native",
        "--duration",
        str(max(1, int(seconds))),
    ]
    async with open_load(program.served.port, requests) as load:
        try:
            spying = await asyncio.create_subprocess_exec(
                *words, "--output", str(lab.profile), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except FileNotFoundError:
            lab.skip("no flame graph: py-spy is not installed")
            return
        while spying.returncode is None:
            await load.closed(1.0)
        if spying.returncode:
            lab.skip(f"no flame graph: py-spy ended with {spying.returncode}")


def finding(results: Sequence[ProgramCost], seconds: float) -> Finding:
    by_name = {result.program.name: result for result in results}
    live = [result for result in results if not result.program.caches]
    cached = [result for result in results if result.program.caches]
    return Finding(
        name="cost",
        title="CPU per consultation, beside the peers",
        about=__doc__ or "",
        seconds=seconds,
        key=key(by_name),
        tables=(
            table("All eight live", live, by_name["cashier"], by_name.get(BARE)),
            table("Cached as by default, returning customers", cached, by_name["cashier_cached"], None),
        ),
        drawings=(
            bars("CPU per consultation, all eight live", live),
            bars("CPU per consultation, cached as by default", cached),
            user_and_system("User and system time", [*live, *cached]),
        ),
        notes=notes(results),
    )


def key(by_name: dict[str, ProgramCost]) -> dict[str, Figure]:
    figures = {f"cpu_us.{name}": result.figure("cpu_us") for name, result in by_name.items()}
    for name, result in by_name.items():
        ours = figures["cpu_us.cashier_cached" if result.program.caches else "cpu_us.cashier"]
        if not result.program.ours and result.compared:
            figures[f"{'ratio_cached' if result.program.caches else 'ratio'}.{name}"] = ours.over(
                figures[f"cpu_us.{name}"]
            )
        if BARE in by_name and not result.program.ours and not result.program.caches and result.compared:
            figures[f"bare_ratio.{name}"] = figures[f"cpu_us.{BARE}"].over(figures[f"cpu_us.{name}"])
    if "ratio.nginx_lua" in figures:
        figures["ratio.lura_derived"] = Figure(
            tuple(each / LURA_IN_NGINX for each in figures["ratio.nginx_lua"].rounds)
        )
    return figures


def table(title: str, results: Sequence[ProgramCost], ours: ProgramCost, bare: ProgramCost | None) -> Table:
    note = (
        "Ours ÷ theirs is taken round by round; below 1 we cost less. Like for like: our fan-out with a bare merge ÷ "
        "theirs."
    )
    return Table(title, [row(result, ours, bare) for result in results], note)


def row(result: ProgramCost, ours: ProgramCost, bare: ProgramCost | None) -> Row:
    figures = {
        "CPU µs": result.figure("cpu_us"),
        "of it user µs": result.figure("user_us"),
        "of it system µs": result.figure("system_us"),
        "calls": Figure(tuple(result.calls)),
        "p50 ms": result.at(0.5),
        "p99 ms": result.at(0.99),
        "a second": Figure(tuple(each.interval.per_s for each in result.rounds)),
        "program busy %": result.percent("program_busy"),
        "others on its core %": result.percent("others_busy"),
        "upstream busy %": result.percent("upstream_busy"),
        "load busy %": Figure(tuple(100 * each.interval.load_busy for each in result.rounds)),
    }
    if result is not ours and result.compared:
        figures["ours ÷ theirs"] = ours.figure("cpu_us").over(result.figure("cpu_us"))
        if bare is not None and result is not bare:
            figures["like for like"] = bare.figure("cpu_us").over(result.figure("cpu_us"))
    return Row(result.program.title, figures, note="" if result.compared else "not compared, see the notes")


def bars(title: str, results: Sequence[ProgramCost]) -> BarChart:
    return BarChart(
        title,
        "CPU µs",
        [result.program.title for result in results],
        {"CPU": [result.figure("cpu_us") for result in results]},
        ours=[result.program.title for result in results if result.program.ours],
        y_logarithmic=len(results) > 2,
    )


def user_and_system(title: str, results: Sequence[ProgramCost]) -> BarChart:
    groups = {
        "user": [result.figure("user_us") for result in results],
        "system": [result.figure("system_us") for result in results],
    }
    titles = [result.program.title for result in results]
    return BarChart(title, "CPU µs", titles, groups, ours=titles[:1], y_logarithmic=True)


def notes(results: Sequence[ProgramCost]) -> list[str]:
    texts = [
        "Lura, the engine of KrakenD, cannot be installed from a package index. Measured separately it costs "
        f"{LURA_IN_NGINX:g} × nginx + Lua, so ratio.lura_derived is ours ÷ ({LURA_IN_NGINX:g} × nginx + Lua): "
        "derived, not measured here.",
        "The kernel samples the split of user and system time every few ms; their sum is exact to 10 ms of a round.",
    ]
    for result in results:
        title = result.program.title
        texts += [
            f"{title}: {note}."
            for note in (
                unanswered_note(result.intervals),
                incomplete_note(result.intervals),
                disturbance_note(result.rounds),
            )
            if note
        ]
        most = max(each.load_core_busy for each in result.rounds)
        if most > CROWDED:
            texts.append(
                f"{title}: load and upstream took {most:.0%} of their core. CPU is valid, rate and latency are "
                "limited by them."
            )
    return texts + hit_rate_notes([result for result in results if result.program.caches])


def hit_rate_notes(cached: Sequence[ProgramCost]) -> list[str]:
    """A note if the hit rates of the programs with caches differ."""
    calls = {result.program.title: statistics.median(result.calls) for result in cached}
    if max(calls.values()) <= 1.1 * min(calls.values()):
        return []
    calls_text = ", ".join(f"{title} {each:.2f}" for title, each in calls.items())
    return [
        f"Upstream calls per consultation differ: {calls_text}. A faster program has its customers back sooner and "
        "hits more often."
    ]
