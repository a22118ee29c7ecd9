"""Latency by offered load: what a program adds to its slowest source. One source takes 5 ms, the others 2; all eight live.

First the peak in terms of CPU: what a closed loop says that a consultation costs, as consultations that fill the program's core. Then open
arrivals at random, seeded, at 10 to 90 % of each program's own peak, latency from when each was meant to go out. Added latency is latency
less the median time for which the slowest source really held its answers back, taken by itself in the same stretch. Rounds interleave.
The lab's own share is measured in the same way, without any program: the load asks the slowest source itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import Spent, disturbed, lacking, spent, unanswered
from benchmarks.lab.load import Load, loaded
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.programs import OURS, Program, started
from benchmarks.lab.requests import USERS, consultations
from benchmarks.lab.upstream import Upstream, upstream
from benchmarks.lab.upstream_control import Behaviour, Held
from benchmarks.lean_upstream import FIRST
from benchmarks.results import Figure, Finding, Line, Lines, Row, Table
from cashier.consultation.plan import SOURCE_NAMES

COMPARED = (OURS, "nginx_lua")
SLOWEST, SLOWEST_MS, OTHER_MS = "balance", 5.0, 2.0
BEHAVIOUR = Behaviour({**dict.fromkeys(SOURCE_NAMES, OTHER_MS), SLOWEST: SLOWEST_MS})
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
HALF = 0.5
STRETCH_S = 2.5
CONNECTIONS = 256
# In flight while the peak is looked for: with more, a busy machine lets consultations run out of time.
WIDTH = 16
CROWDED = 0.8


class Point(NamedTuple):
    """One stretch at one rate. `held`: by the slowest source."""

    spent: Spent
    held: Held

    def added_ms(self, quantile: float) -> float:
        return self.spent.stretch.at(quantile) - self.held.p50_ms


class Course(NamedTuple):
    """One program: its peak, and what was found at each share of it, round by round."""

    program: Program
    peak_per_s: float
    points: dict[float, list[Point]]

    def added(self, share: float, quantile: float) -> Figure:
        return added(self.points[share], quantile)

    def at(self, share: float, quantile: float) -> Figure:
        return Figure(tuple(point.spent.stretch.at(quantile) for point in self.points[share]))

    def other_busy(self, share: float) -> float:
        return statistics.median(point.spent.other_busy for point in self.points[share])

    @property
    def everything(self) -> list[Point]:
        return [point for points in self.points.values() for point in points]


def measure(lab: Lab) -> Finding:
    began_s = time.perf_counter()
    users = lab.count(USERS)
    with pinned(LOAD_CORE), upstream(lab, users=users, behaviour=BEHAVIOUR) as answering, ExitStack() as running:
        programs = started(lab, answering, running, COMPARED)
        courses, floor = uvloop.run(raced(lab, programs, answering, users))
    return finding(courses, floor, time.perf_counter() - began_s)


async def raced(
    lab: Lab, programs: Sequence[Program], answering: Upstream, users: int
) -> tuple[list[Course], list[Point]]:
    """Every program, and the lab alone at half of our peak."""
    requests, courses, floor = consultations(users), [], []
    async with AsyncExitStack() as opened:
        loads: dict[str, Load] = {}
        for program in programs:
            load = await opened.enter_async_context(
                loaded(program.served.port, requests, connections=CONNECTIONS, check=program.check)
            )
            loads[program.name] = load
            courses.append(Course(program, await peak(lab, load, program, answering), {share: [] for share in SHARES}))
        directly = await opened.enter_async_context(loaded(port(answering), direct(users), connections=CONNECTIONS))
        for turn in range(lab.rounds):
            lab.say(f"round {turn + 1} of {lab.rounds}: {', '.join(f'{share:.0%}' for share in SHARES)} of the peak")
            floor.append(await point(lab, directly, HALF * courses[0].peak_per_s, answering.pid, answering))
            for share in SHARES:
                for course in courses:
                    found = await point(
                        lab, loads[course.program.name], share * course.peak_per_s, course.program.served.pid, answering
                    )
                    course.points[share].append(found)
    return courses, floor


def port(answering: Upstream) -> int:
    return int(answering.urls[SLOWEST].rpartition(":")[2])


def direct(users: int) -> list[bytes]:
    """What a program asks the slowest source."""
    return [b"GET /members/u_%d/balances HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(FIRST, FIRST + users)]


async def peak(lab: Lab, load: Load, program: Program, answering: Upstream) -> float:
    """Consultations a second that would fill the program's core."""
    await load.open(100, lab.seconds(0.5))
    await load.closed(lab.seconds(1.5), width=WIDTH)
    found = await spent(load.closed(lab.seconds(2.0), width=WIDTH), program.served.pid, answering.pid)
    per_s = 1e6 / found.cpu_us
    lab.say(f"{program.title}: {found.cpu_us:,.0f} µs a consultation, so at most {per_s:,.0f} a second")
    return per_s


async def point(lab: Lab, load: Load, per_s: float, pid: int, answering: Upstream) -> Point:
    answering.behave(BEHAVIOUR)  # nothing is under way, so nobody waits while this one call blocks
    found = await spent(load.open(per_s, lab.seconds(STRETCH_S)), pid, answering.pid)
    return Point(found, answering.seen().held[SLOWEST])


def finding(courses: Sequence[Course], floor: Sequence[Point], seconds: float) -> Finding:
    ours = courses[0]
    return Finding(
        name="latency",
        title="Latency by offered load",
        about=__doc__ or "",
        seconds=seconds,
        key={**key(ours), "added_ms.lab_p50": added(floor, 0.5), "added_ms.lab_p99": added(floor, 0.99)},
        tables=[*map(table, courses), lab_alone(ours, floor)],
        drawings=[drawing(courses)],
        notes=notes(courses),
    )


def added(points: Sequence[Point], quantile: float) -> Figure:
    return Figure(tuple(point.added_ms(quantile) for point in points))


def lab_alone(ours: Course, floor: Sequence[Point]) -> Table:
    row = Row(
        f"{HALF * ours.peak_per_s:,.0f} a second",
        {
            "added p50 ms": added(floor, 0.5),
            "added p99 ms": added(floor, 0.99),
            "sent late p99 ms": Figure(tuple(point.spent.stretch.late.at(0.99) for point in floor)),
        },
    )
    note = "The slowest source asked directly: what the lab adds by itself. It is in every figure above, and is not taken off."
    return Table("The lab alone, no program between", [row], note)


def key(ours: Course) -> dict[str, Figure]:
    return {
        "added_ms.p50": ours.added(HALF, 0.5),
        "added_ms.p99": ours.added(HALF, 0.99),
        "latency.peak_per_s": Figure.of(ours.peak_per_s),
    }


def table(course: Course) -> Table:
    rows = [Row(f"{share:.0%}: {share * course.peak_per_s:,.0f} a second", columns(course, share)) for share in SHARES]
    return Table(f"{course.program.title}, peak {course.peak_per_s:,.0f} a second", rows)


def columns(course: Course, share: float) -> dict[str, Figure]:
    points = course.points[share]
    return {
        "added p50 ms": course.added(share, 0.5),
        "added p99 ms": course.added(share, 0.99),
        "p50 ms": course.at(share, 0.5),
        "p99 ms": course.at(share, 0.99),
        "p99.9 ms": course.at(share, 0.999),
        "source held p50 ms": Figure(tuple(point.held.p50_ms for point in points)),
        "source held p99 ms": Figure(tuple(point.held.p99_ms for point in points)),
        "sent late p99 ms": Figure(tuple(point.spent.stretch.late.at(0.99) for point in points)),
        "program busy %": Figure(tuple(100 * point.spent.program_busy for point in points)),
        "others on its core %": Figure(tuple(100 * point.spent.strangers for point in points)),
        "load and upstream busy %": Figure(tuple(100 * point.spent.other_busy for point in points)),
    }


def drawing(courses: Sequence[Course]) -> Lines:
    lines = [
        Line(f"{course.program.title}, {word}", line(course, quantile), ours=course.program.ours)
        for course in courses
        for word, quantile in (("p50", 0.5), ("p99", 0.99))
    ]
    return Lines(
        "Latency by offered load, slowest source 5 ms",
        "offered a second",
        "ms",
        lines,
        x_logarithmic=True,
        y_logarithmic=True,
        marks={"slowest source": SLOWEST_MS},
    )


def line(course: Course, quantile: float) -> list[tuple[float, Figure]]:
    return [(share * course.peak_per_s, course.at(share, quantile)) for share in SHARES]


def notes(courses: Sequence[Course]) -> list[str]:
    found = []
    for course in courses:
        title = course.program.title
        stretches = [point.spent.stretch for point in course.everything]
        doubts = unanswered(stretches), lacking(stretches), disturbed([point.spent for point in course.everything])
        found += [f"{title}: {said}." for said in doubts if said]
        crowded = [f"{share:.0%}" for share in SHARES if course.other_busy(share) > CROWDED]
        if crowded:
            found.append(
                f"{title}, at {', '.join(crowded)} of the peak: load and upstream took more than {CROWDED:.0%} of their core. "
                "Latencies there are partly theirs."
            )
    found += absent(courses)
    return found


def absent(courses: Sequence[Course]) -> list[str]:
    here = {course.program.name for course in courses}
    return [f"{name} could not be compared." for name in COMPARED if name not in here]
