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
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import CpuUsage, doubts, incomplete, measure_cpu
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.requests import consultations
from benchmarks.lab.upstream import USERS, Behaviour, LeanUpstream, start_upstream
from benchmarks.peers import Program, start_programs
from benchmarks.results import BarChart, Columns, Figure, Finding, Row, Table, figures

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


class Round(NamedTuple):
    """`calls`: upstream per consultation, as it counts them."""

    usage: CpuUsage
    calls: float


CPU: Columns[Round] = {
    "CPU µs": lambda each: each.usage.cpu_us,
    "of it user µs": lambda each: each.usage.user_us,
    "of it system µs": lambda each: each.usage.system_us,
}
COLUMNS: Columns[Round] = {
    **CPU,
    "calls": lambda each: each.calls,
    "p50 ms": lambda each: each.usage.interval.at(0.5),
    "p99 ms": lambda each: each.usage.interval.at(0.99),
    "a second": lambda each: each.usage.interval.per_s,
    "program busy %": lambda each: 100 * each.usage.program_busy,
    "others on its core %": lambda each: 100 * each.usage.others_busy,
    "upstream busy %": lambda each: 100 * each.usage.upstream_busy,
    "load busy %": lambda each: 100 * each.usage.interval.load_busy,
}


class ProgramCost(NamedTuple):
    """Measurements of one program."""

    program: Program
    rounds: list[Round]

    @property
    def compared(self) -> bool:
        """False for a peer with incomplete answers, which would have an advantage."""
        return self.program.ours or not incomplete([each.usage.interval for each in self.rounds])

    def figure(self, name: str = "CPU µs") -> Figure:
        return figures(self.rounds, CPU)[name]


def measure(lab: Lab) -> Finding:
    users = lab.count(USERS)
    with pinned(LOAD_CORE), start_upstream(lab, users=users) as upstream, ExitStack() as running:
        programs = start_programs(lab, upstream, running)
        results = uvloop.run(measure_programs(lab, programs, upstream, consultations(users)))
        if lab.profile:
            uvloop.run(record_profile(lab, programs[0], consultations(users)))
    return finding(results)


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
        results = {program.name: ProgramCost(program, []) for program in programs}
        for caches, again_s in ((False, AGAIN_S), (True, AGAIN_CACHED_S)):
            group = [program for program in programs if program.caches is caches]
            for program in group:
                await loads[program.name].closed(lab.seconds(WARM_S))
            for turn in range(lab.rounds):
                for program in group:
                    await loads[program.name].closed(lab.seconds(again_s))
                    measured = await measure_round(lab, loads[program.name], program, upstream)
                    results[program.name].rounds.append(measured)
                costs = (f"{each.title} {results[each.name].rounds[-1].usage.cpu_us:,.0f}" for each in group)
                lab.report(f"round {turn + 1} of {lab.rounds}, µs: {', '.join(costs)}")
        return list(results.values())


async def measure_round(lab: Lab, load: Load, program: Program, upstream: LeanUpstream) -> Round:
    upstream.behave(Behaviour())  # resets its counts; blocks while no request waits
    usage = await measure_cpu(load.closed(lab.seconds(ROUND_S)), program.served.pid, upstream.pid)
    return Round(usage, upstream.seen().total / usage.interval.answered)


async def record_profile(lab: Lab, program: Program, requests: Sequence[bytes]) -> None:
    """Write a flame graph of cashier under the same load, after the measurements: it costs CPU."""
    options = f"--pid {program.served.pid} --rate 500 --native --duration {max(1, int(lab.seconds(PROFILE_S)))}"
    words = ("py-spy", "record", *options.split(), "--output", str(lab.profile))
    async with open_load(program.served.port, requests) as load:
        try:
            quiet = subprocess.DEVNULL
            spying = await asyncio.create_subprocess_exec(*words, stdout=quiet, stderr=quiet)
        except FileNotFoundError:
            lab.skip("no flame graph: py-spy is not installed")
            return
        while spying.returncode is None:
            await load.closed(1.0)
        if spying.returncode:
            lab.skip(f"no flame graph: py-spy ended with {spying.returncode}")


def finding(results: Sequence[ProgramCost]) -> Finding:
    by_name = {result.program.name: result for result in results}
    live = [result for result in results if not result.program.caches]
    cached = [result for result in results if result.program.caches]
    return Finding(
        "CPU per consultation, beside the peers",
        key=key(by_name),
        tables=(
            table("All eight live", live, by_name["cashier"], by_name.get(BARE)),
            table("Cached as by default, returning customers", cached, by_name["cashier_cached"], None),
        ),
        drawings=(
            bars("CPU per consultation, all eight live", live),
            bars("CPU per consultation, cached as by default", cached),
            user_and_system([*live, *cached]),
        ),
        notes=notes(results),
    )


def key(by_name: dict[str, ProgramCost]) -> dict[str, Figure]:
    key = {f"cpu_us.{name}": result.figure() for name, result in by_name.items()}
    for name, result in by_name.items():
        caches, its_cpu_us = result.program.caches, key[f"cpu_us.{name}"]
        if not result.program.ours and result.compared:
            ours = key["cpu_us.cashier_cached" if caches else "cpu_us.cashier"]
            key[f"{'ratio_cached' if caches else 'ratio'}.{name}"] = ours.over(its_cpu_us)
            if BARE in by_name and not caches:
                key[f"bare_ratio.{name}"] = key[f"cpu_us.{BARE}"].over(its_cpu_us)
    if "ratio.nginx_lua" in key:
        key["ratio.lura_derived"] = Figure.by_round(each / LURA_IN_NGINX for each in key["ratio.nginx_lua"].rounds)
    return key


def table(title: str, results: Sequence[ProgramCost], ours: ProgramCost, bare: ProgramCost | None) -> Table:
    def row(result: ProgramCost) -> Row:
        columns = figures(result.rounds, COLUMNS)
        if result is not ours and result.compared:
            columns["ours ÷ theirs"] = ours.figure().over(result.figure())
            if bare is not None and result is not bare:
                columns["like for like"] = bare.figure().over(result.figure())
        return Row(result.program.title, columns, "" if result.compared else "not compared, see the notes")

    note = (
        "Ours ÷ theirs is taken round by round; below 1 we cost less. Like for like: our fan-out with a bare merge ÷ "
        "theirs."
    )
    return Table(title, [row(result) for result in results], note)


def bars(title: str, results: Sequence[ProgramCost]) -> BarChart:
    titles = [result.program.title for result in results]
    ours = [result.program.title for result in results if result.program.ours]
    cpu = {"CPU": [result.figure() for result in results]}
    return BarChart(title, "CPU µs", titles, cpu, ours=ours, y_logarithmic=len(results) > 2)


def user_and_system(results: Sequence[ProgramCost]) -> BarChart:
    groups = {kind: [result.figure(f"of it {kind} µs") for result in results] for kind in ("user", "system")}
    titles = [result.program.title for result in results]
    return BarChart("User and system time", "CPU µs", titles, groups, ours=titles[:1], y_logarithmic=True)


def notes(results: Sequence[ProgramCost]) -> list[str]:
    return [
        "Lura, the engine of KrakenD, cannot be installed from a package index. Measured separately it costs "
        f"{LURA_IN_NGINX:g} × nginx + Lua, so ratio.lura_derived is ours ÷ ({LURA_IN_NGINX:g} × nginx + Lua): "
        "derived, not measured here.",
        "The kernel samples the split of user and system time every few ms; their sum is exact to 10 ms of a round.",
        *(text for each in results for text in doubts(each.program.title, [one.usage for one in each.rounds])),
        *hit_rate_notes([result for result in results if result.program.caches]),
    ]


def hit_rate_notes(cached: Sequence[ProgramCost]) -> list[str]:
    """A note if the hit rates of the programs with caches differ."""
    calls = {result.program.title: statistics.median(each.calls for each in result.rounds) for result in cached}
    if max(calls.values()) <= 1.1 * min(calls.values()):
        return []
    calls_text = ", ".join(f"{title} {each:.2f}" for title, each in calls.items())
    return [
        f"Upstream calls per consultation differ: {calls_text}. A faster program has its customers back sooner and "
        "hits more often."
    ]
