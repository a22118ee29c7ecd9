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
from benchmarks.lab.cpu_usage import Spent, disturbed, lacking, spent, unanswered
from benchmarks.lab.load import Load, loaded
from benchmarks.lab.load_results import Stretch
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.programs import Program, started
from benchmarks.lab.requests import USERS, consultations
from benchmarks.lab.upstream import Upstream, upstream
from benchmarks.lab.upstream_control import Behaviour
from benchmarks.results import Bars, Figure, Finding, Row, Table

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


class Course(NamedTuple):
    """What was measured of one program. `calls`: that it made upstream for a consultation, round by round, as the upstream counts them."""

    program: Program
    rounds: list[Spent]
    calls: list[float]

    @property
    def stretches(self) -> list[Stretch]:
        return [each.stretch for each in self.rounds]

    @property
    def compared(self) -> bool:
        """A peer whose answers lack something would win by it."""
        return self.program.ours or not lacking(self.stretches)

    def figure(self, name: str) -> Figure:
        return Figure(tuple(getattr(each, name) for each in self.rounds))

    def percent(self, name: str) -> Figure:
        return Figure(tuple(100 * getattr(each, name) for each in self.rounds))

    def at(self, quantile: float) -> Figure:
        return Figure(tuple(each.stretch.at(quantile) for each in self.rounds))


def measure(lab: Lab) -> Finding:
    began_s = time.perf_counter()
    users = lab.count(USERS)
    with pinned(LOAD_CORE), upstream(lab, users=users) as answering, ExitStack() as running:
        programs = started(lab, answering, running)
        courses = uvloop.run(raced(lab, programs, answering, consultations(users)))
        if lab.profile:
            uvloop.run(profiled(lab, programs[0], consultations(users)))
    return finding(courses, time.perf_counter() - began_s)


async def raced(lab: Lab, programs: Sequence[Program], answering: Upstream, requests: Sequence[bytes]) -> list[Course]:
    """The live ones among each other, then the cached ones: both halves of a ratio have the same minute."""
    async with AsyncExitStack() as open_loads:
        loads = {
            program.name: await open_loads.enter_async_context(
                loaded(program.served.port, requests, check=program.check)
            )
            for program in programs
        }
        courses = {program.name: Course(program, [], []) for program in programs}
        for caches, again_s in ((False, AGAIN_S), (True, AGAIN_CACHED_S)):
            group = [program for program in programs if program.caches is caches]
            for program in group:
                await loads[program.name].closed(lab.seconds(WARM_S))
            for turn in range(lab.rounds):
                for program in group:
                    await loads[program.name].closed(lab.seconds(again_s))
                    await one_round(lab, loads[program.name], courses[program.name], answering)
                lab.say(
                    f"round {turn + 1} of {lab.rounds}, µs: "
                    + ", ".join(f"{each.title} {said(courses[each.name])}" for each in group)
                )
        return list(courses.values())


async def one_round(lab: Lab, load: Load, course: Course, answering: Upstream) -> None:
    answering.behave(Behaviour())  # counts its calls anew; nobody waits while this one blocks
    found = await spent(load.closed(lab.seconds(ROUND_S)), course.program.served.pid, answering.pid)
    course.rounds.append(found)
    course.calls.append(sum(answering.seen().calls.values()) / found.stretch.answered)


def said(course: Course) -> str:
    return f"{course.rounds[-1].cpu_us:,.0f}"


async def profiled(lab: Lab, program: Program, requests: Sequence[bytes]) -> None:
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
    async with loaded(program.served.port, requests) as load:
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


def finding(courses: Sequence[Course], seconds: float) -> Finding:
    by_name = {course.program.name: course for course in courses}
    live = [course for course in courses if not course.program.caches]
    cached = [course for course in courses if course.program.caches]
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
            divided("Where it goes: the program's own time, and the kernel's for it", [*live, *cached]),
        ),
        notes=notes(courses),
    )


def key(by_name: dict[str, Course]) -> dict[str, Figure]:
    found = {f"cpu_us.{name}": course.figure("cpu_us") for name, course in by_name.items()}
    for name, course in by_name.items():
        ours = found["cpu_us.cashier_cached" if course.program.caches else "cpu_us.cashier"]
        if not course.program.ours and course.compared:
            found[f"{'ratio_cached' if course.program.caches else 'ratio'}.{name}"] = ours.over(found[f"cpu_us.{name}"])
        if BARE in by_name and not course.program.ours and not course.program.caches and course.compared:
            found[f"bare_ratio.{name}"] = found[f"cpu_us.{BARE}"].over(found[f"cpu_us.{name}"])
    if "ratio.nginx_lua" in found:
        found["ratio.lura_derived"] = Figure(tuple(each / LURA_IN_NGINX for each in found["ratio.nginx_lua"].rounds))
    return found


def table(title: str, courses: Sequence[Course], ours: Course, bare: Course | None) -> Table:
    note = "Ours ÷ theirs is taken round by round; below 1 we cost less. Like for like is our fan-out with a bare merge ÷ theirs."
    return Table(title, [row(course, ours, bare) for course in courses], note)


def row(course: Course, ours: Course, bare: Course | None) -> Row:
    figures = {
        "CPU µs": course.figure("cpu_us"),
        "of it user µs": course.figure("user_us"),
        "of it system µs": course.figure("system_us"),
        "calls": Figure(tuple(course.calls)),
        "p50 ms": course.at(0.5),
        "p99 ms": course.at(0.99),
        "a second": Figure(tuple(each.stretch.per_s for each in course.rounds)),
        "program busy %": course.percent("program_busy"),
        "others on its core %": course.percent("strangers"),
        "upstream busy %": course.percent("upstream_busy"),
        "load busy %": Figure(tuple(100 * each.stretch.load_busy for each in course.rounds)),
    }
    if course is not ours and course.compared:
        figures["ours ÷ theirs"] = ours.figure("cpu_us").over(course.figure("cpu_us"))
        if bare is not None and course is not bare:
            figures["like for like"] = bare.figure("cpu_us").over(course.figure("cpu_us"))
    return Row(course.program.title, figures, note="" if course.compared else "not compared, see the notes")


def bars(title: str, courses: Sequence[Course]) -> Bars:
    return Bars(
        title,
        "CPU µs",
        [course.program.title for course in courses],
        {"CPU": [course.figure("cpu_us") for course in courses]},
        ours=[course.program.title for course in courses if course.program.ours],
        y_logarithmic=len(courses) > 2,
    )


def divided(title: str, courses: Sequence[Course]) -> Bars:
    groups = {
        "user": [course.figure("user_us") for course in courses],
        "system": [course.figure("system_us") for course in courses],
    }
    titles = [course.program.title for course in courses]
    return Bars(title, "CPU µs", titles, groups, ours=titles[:1], y_logarithmic=True)


def notes(courses: Sequence[Course]) -> list[str]:
    found = [
        "Lura, the engine of KrakenD, cannot be installed from a package index. Measured apart it costs "
        f"{LURA_IN_NGINX:g} × nginx + Lua, so ratio.lura_derived is ours ÷ ({LURA_IN_NGINX:g} × nginx + Lua): derived, not measured here.",
        "How time divides into user and system is sampled by the kernel every few ms; their sum is exact to 10 ms of a round.",
    ]
    for course in courses:
        title = course.program.title
        found += [
            f"{title}: {said}."
            for said in (unanswered(course.stretches), lacking(course.stretches), disturbed(course.rounds))
            if said
        ]
        most = max(each.other_busy for each in course.rounds)
        if most > CROWDED:
            found.append(
                f"{title}: load and upstream took {most:.0%} of their core. CPU stands, but rate and latency are partly theirs."
            )
    return found + unlike([course for course in courses if course.program.caches])


def unlike(cached: Sequence[Course]) -> list[str]:
    """Of programs with caches, where one was asked by each customer so much sooner again that its caches did more."""
    calls = {course.program.title: statistics.median(course.calls) for course in cached}
    if max(calls.values()) <= 1.1 * min(calls.values()):
        return []
    said = ", ".join(f"{title} {each:.2f}" for title, each in calls.items())
    return [
        f"Calls upstream for a consultation differ: {said}. Who answers faster sees its customers again sooner, and hits more often."
    ]
