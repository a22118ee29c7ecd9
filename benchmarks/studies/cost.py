"""CPU per consultation, ours beside what others would use: user + system time of a program's process tree ÷ consultations answered.

All programs are started at once, each alone on core 0 while it is asked; idle ones cost nothing. Upstream and load are on core 1. A closed
loop of 16 connections, since this is about CPU; latencies are those of the closed loop, and say nothing about load. Rounds interleave:
the first of each program, then the second of each. Ours does all of its domain work, metrics and mechanisms included; the peers merge
the eight bodies and do nothing else. The cached group is 2,000 customers who come back within seconds, so that what may be cached is:
order, balance and quota are asked each time. How many calls upstream each consultation took is counted by the upstream.
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
# Before each round: what is short-lived in a cache, and in the processor's, is there again.
AGAIN_S, AGAIN_CACHED_S = 0.3, 1.5
# Lura, the engine of KrakenD, cannot be installed from a package index. Measured apart, in paired rounds, it costs 4.0 × nginx + Lua that
# asks by subrequests (`capture_multi`). The one here asks by cosockets, which is cheaper by a fifth.
LURA_IN_NGINX = 5.0
PROFILE_S = 15.0
# Our own fan-out without its domain.
BARE = "own_fanout"
CROWDED = 0.9


class ProgramCost(NamedTuple):
    """What was measured of one program. `calls`: that it made upstream for a consultation, round by round, as the upstream counts them."""

    program: Program
    rounds: list[CpuUsage]
    calls: list[float]

    @property
    def intervals(self) -> list[LoadInterval]:
        return [each.interval for each in self.rounds]

    @property
    def compared(self) -> bool:
        """A peer whose answers lack something would win by it."""
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


async def measure_programs(lab: Lab, programs: Sequence[Program], upstream: LeanUpstream, requests: Sequence[bytes]) -> list[ProgramCost]:
    """The live ones among each other, then the cached ones: both halves of a ratio have the same minute."""
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
    upstream.behave(Behaviour())  # counts its calls anew; nobody waits while this one blocks
    found = await measure_cpu(load.closed(lab.seconds(ROUND_S)), result.program.served.pid, upstream.pid)
    result.rounds.append(found)
    result.calls.append(sum(upstream.seen().calls.values()) / found.interval.answered)


def last_cost(result: ProgramCost) -> str:
    return f"{result.rounds[-1].cpu_us:,.0f}"


async def record_profile(lab: Lab, program: Program, requests: Sequence[bytes]) -> None:
    """A flame graph of ours under the same load, after all has been measured: watching costs."""
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
        title="CPU per consultation, beside what others would use",
        about=__doc__ or "",
        seconds=seconds,
        key=key(by_name),
        tables=(
            table("All eight live", live, by_name["cashier"], by_name.get(BARE)),
            table("Cached as by default, customers who come back", cached, by_name["cashier_cached"], None),
        ),
        drawings=(
            bars("CPU per consultation, all eight live", live),
            bars("CPU per consultation, cached as by default", cached),
            user_and_system("Where it goes: the program's own time, and the kernel's for it", [*live, *cached]),
        ),
        notes=notes(results),
    )


def key(by_name: dict[str, ProgramCost]) -> dict[str, Figure]:
    found = {f"cpu_us.{name}": result.figure("cpu_us") for name, result in by_name.items()}
    for name, result in by_name.items():
        ours = found["cpu_us.cashier_cached" if result.program.caches else "cpu_us.cashier"]
        if not result.program.ours and result.compared:
            found[f"{'ratio_cached' if result.program.caches else 'ratio'}.{name}"] = ours.over(found[f"cpu_us.{name}"])
        if BARE in by_name and not result.program.ours and not result.program.caches and result.compared:
            found[f"bare_ratio.{name}"] = found[f"cpu_us.{BARE}"].over(found[f"cpu_us.{name}"])
    if "ratio.nginx_lua" in found:
        found["ratio.lura_derived"] = Figure(tuple(each / LURA_IN_NGINX for each in found["ratio.nginx_lua"].rounds))
    return found


def table(title: str, results: Sequence[ProgramCost], ours: ProgramCost, bare: ProgramCost | None) -> Table:
    note = "Ours ÷ theirs is taken round by round; below 1 we cost less. Like for like is our fan-out with a bare merge ÷ theirs."
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
    found = [
        "Lura, the engine of KrakenD, cannot be installed from a package index. Measured apart it costs "
        f"{LURA_IN_NGINX:g} × nginx + Lua, so ratio.lura_derived is ours ÷ ({LURA_IN_NGINX:g} × nginx + Lua): derived, not measured here.",
        "How time divides into user and system is sampled by the kernel every few ms; their sum is exact to 10 ms of a round.",
    ]
    for result in results:
        title = result.program.title
        found += [
            f"{title}: {note}."
            for note in (unanswered_note(result.intervals), incomplete_note(result.intervals), disturbance_note(result.rounds))
            if note
        ]
        most = max(each.load_core_busy for each in result.rounds)
        if most > CROWDED:
            found.append(
                f"{title}: load and upstream took {most:.0%} of their core. CPU stands, but rate and latency are partly theirs."
            )
    return found + hit_rate_notes([result for result in results if result.program.caches])


def hit_rate_notes(cached: Sequence[ProgramCost]) -> list[str]:
    """Of programs with caches, where one was asked by each customer so much sooner again that its caches did more."""
    calls = {result.program.title: statistics.median(result.calls) for result in cached}
    if max(calls.values()) <= 1.1 * min(calls.values()):
        return []
    calls_text = ", ".join(f"{title} {each:.2f}" for title, each in calls.items())
    return [
        f"Calls upstream for a consultation differ: {calls_text}. Who answers faster sees its customers again sooner, and hits more often."
    ]
