"""Three times as much as the service can do: what is still answered in time, how soon the others are told, how soon it is over.

The service on core 0 as it ships, caches and shedding on; upstream and load on core 1. The load is open: arrivals at random, seeded, over
512 connections, latency from when each was meant to go out; who finds no connection waits, and the wait counts. One in five callers says
that it matters more, one in five that it matters less. First the peak by a ramp: the most that is answered with 200 within the deadline of
150 ms. Then in rounds: the peak again, so that both halves of a ratio have the same machine; a moment at half of it; three times the peak;
and half of it, to see it recover. One round is without shedding, to see what shedding is for.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import STRANGERS
from benchmarks.lab.load import Load, loaded
from benchmarks.lab.load_results import OK, REFUSED, Stretch, Visit
from benchmarks.lab.process import LOAD_CORE, PROGRAM_CORE, core_so_far, cpu_s, pinned
from benchmarks.lab.requests import consultations
from benchmarks.lab.service import Served, service
from benchmarks.lab.upstream import Upstream, upstream
from benchmarks.results import Figure, Finding, Line, Lines, Row, Table

USERS = 1_000
CONNECTIONS = 512
DEADLINE_S = 0.150
OVERLOAD = 3
OVERLOAD_S, CALM_S, RECOVERING_S, RAMP_S = 6.0, 1.0, 3.0, 1.5
WINDOW_S = 0.2
DRAWN_S = 0.1
CROWDED = 0.8
BUSY = ("program", "others on its core", "upstream", "load")
# What each request says of itself, in turn.
PRIORITIES = ("high", "normal", "normal", "normal", "low")


class Course(NamedTuple):
    """One round. `visits`: of the calm before it, of the overload, and of what came after. `busy`: shares of time, during the overload."""

    peak_per_s: float
    began_s: float
    end_s: float
    until_s: float
    normal_p99_s: float
    visits: Sequence[Visit]
    busy: Mapping[str, float]

    @property
    def during(self) -> list[Visit]:
        return [visit for visit in self.visits if self.began_s <= visit.at_s < self.end_s]

    @property
    def good_per_s(self) -> float:
        return sum(map(in_time, self.during)) / (self.end_s - self.began_s)

    @property
    def goodput(self) -> float:
        return self.good_per_s / self.peak_per_s if self.peak_per_s else 0.0

    def at_ms(self, status: int, share: float) -> float:
        return 1000 * quantile([visit.latency_s for visit in self.during if visit.status == status], share)

    def served(self, priority: str) -> float:
        those = [in_time(visit) for visit in self.during if PRIORITIES[visit.which % len(PRIORITIES)] == priority]
        return 100 * sum(those) / len(those) if those else 0.0

    @property
    def neither(self) -> int:
        return sum(visit.status not in {OK, REFUSED} for visit in self.during)

    @property
    def recovered_s(self) -> float | None:
        return recovery_s(self.visits, self.end_s, self.until_s, self.normal_p99_s)


def in_time(visit: Visit) -> bool:
    return visit.status == OK and visit.latency_s <= DEADLINE_S


def refused(visit: Visit) -> bool:
    return visit.status == REFUSED


def quantile(values: Iterable[float], share: float) -> float:
    """Of nothing, 0."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def recovery_s(visits: Sequence[Visit], end_s: float, until_s: float, normal_p99_s: float) -> float | None:
    """From the end of the overload to the first window in which all were served, at no more than twice the normal p99; None: never."""
    at_s = end_s
    while at_s + WINDOW_S <= until_s:
        window = [visit for visit in visits if at_s <= visit.at_s < at_s + WINDOW_S]
        slowest_s = quantile((visit.latency_s for visit in window), 0.99)
        if window and all(visit.status == OK for visit in window) and slowest_s <= 2 * normal_p99_s:
            return at_s - end_s
        at_s += WINDOW_S / 4
    return None


def requests(users: int) -> list[bytes]:
    """Of each user one of each priority, in the mix of PRIORITIES."""
    by_priority = {priority: consultations(users, (f"X-Priority: {priority}",)) for priority in set(PRIORITIES)}
    return [by_priority[priority][n] for n in range(users) for priority in PRIORITIES]


def measure(lab: Lab) -> Finding:
    began_s = time.perf_counter()
    users = lab.count(USERS)
    asked = requests(users)
    with pinned(LOAD_CORE), upstream(lab, users=users) as answering:
        with service(lab, answering.urls, cached=True, shed=True) as served:
            per_s, courses = uvloop.run(raced(lab, served, answering, asked, None))
        with service(lab, answering.urls, cached=True) as served:
            _, without = uvloop.run(raced(lab, served, answering, asked, per_s))
    return finding(per_s, courses, without, time.perf_counter() - began_s)


async def raced(
    lab: Lab, served: Served, answering: Upstream, asked: Sequence[bytes], peak_per_s: float | None
) -> tuple[float, list[Course]]:
    """With shedding, looking for the peak first; or, where it is known, one round without."""
    async with loaded(served.port, asked, connections=CONNECTIONS) as load:
        await load.open(200, lab.seconds(1.0))
        await load.open(400, lab.seconds(1.0))
        per_s = peak_per_s or await peak(lab, load)
        normal_p99_s = (await load.open(per_s / 2, lab.seconds(2 * CALM_S))).at(0.99) / 1000
        rounds = 1 if peak_per_s else lab.rounds
        courses = []
        for turn in range(rounds):
            # Without shedding it could stand still from here on: then the peak is the one that was found with it.
            best_per_s = peak_per_s or good_per_s(await load.open(per_s, lab.seconds(RECOVERING_S), keep=True))
            found = await course(lab, load, per_s, {"program": served.pid, "upstream": answering.pid})
            courses.append(found._replace(peak_per_s=best_per_s, normal_p99_s=normal_p99_s))
            lab.say(f"round {turn + 1} of {rounds}: {courses[-1].goodput:.2f} of the peak, {best_per_s:,.0f} a second")
        return per_s, courses


async def peak(lab: Lab, load: Load) -> float:
    """The most that is answered in time, of rates that rise until three were too much: one may have been the machine's fault."""
    best, rate, too_much = 0.0, 600.0, 0
    while too_much < 3:
        found = await load.open(rate, lab.seconds(RAMP_S), keep=True)
        good = good_per_s(found)
        lab.say(f"{rate:,.0f} a second: {good:,.0f} in time, load {found.load_busy:.0%} busy")
        too_much += good < 0.9 * found.statuses.total() / found.seconds
        best = max(best, good)
        rate *= 1.15
    return best


def good_per_s(stretch: Stretch) -> float:
    return sum(map(in_time, stretch.visits)) / stretch.seconds


async def course(lab: Lab, load: Load, per_s: float, pids: Mapping[str, int]) -> Course:
    calm = await load.arrive(per_s / 2, lab.seconds(CALM_S), keep=True)
    used_s, core_s = {name: cpu_s(pid) for name, pid in pids.items()}, sum(core_so_far(PROGRAM_CORE))
    began_s = time.perf_counter()
    during = await load.arrive(OVERLOAD * per_s, lab.seconds(OVERLOAD_S), keep=True)
    end_s = time.perf_counter()
    busy = {name: (cpu_s(pid) - used_s[name]) / (end_s - began_s) for name, pid in pids.items()}
    others = (sum(core_so_far(PROGRAM_CORE)) - core_s) / (end_s - began_s) - busy["program"]
    after = await load.open(per_s / 2, lab.seconds(RECOVERING_S), keep=True)
    return Course(
        peak_per_s=per_s,
        began_s=began_s,
        end_s=end_s,
        until_s=end_s + after.seconds,
        normal_p99_s=0.0,
        # An answer is counted in the stretch in which it came; when each was due says where it belongs.
        visits=[*calm.visits, *during.visits, *after.visits],
        busy={**busy, "load": during.load_busy, "others on its core": max(0.0, others)},
    )


def figure(values: Iterable[float]) -> Figure:
    return Figure(tuple(values))


def finding(per_s: float, courses: Sequence[Course], without: Sequence[Course], seconds: float) -> Finding:
    key = {
        "overload.goodput": figure(each.goodput for each in courses),
        "overload.admitted_p99_ms": figure(each.at_ms(OK, 0.99) for each in courses),
        "overload.refused_p50_ms": figure(each.at_ms(REFUSED, 0.5) for each in courses),
        "overload.refused_p99_ms": figure(each.at_ms(REFUSED, 0.99) for each in courses),
        "overload.peak_per_s": figure(each.peak_per_s for each in courses),
        "overload.goodput_without_shedding": figure(each.goodput for each in without),
    }
    recovered = [each.recovered_s for each in courses]
    if known := [each for each in recovered if each is not None]:
        key["overload.recovered_s"] = figure(known)
    return Finding(
        name="overload",
        title="Three times the peak",
        about=__doc__ or "",
        seconds=seconds,
        key=key,
        tables=[Table(f"{OVERLOAD * per_s:,.0f} a second", [row("with shedding", courses), row("without", without)])],
        drawings=[drawing(courses)],
        notes=notes(courses, without),
    )


def row(label: str, courses: Sequence[Course]) -> Row:
    figures = {
        "in time a second": figure(each.good_per_s for each in courses),
        "of the peak": figure(each.goodput for each in courses),
        "admitted p50 ms": figure(each.at_ms(OK, 0.5) for each in courses),
        "admitted p99 ms": figure(each.at_ms(OK, 0.99) for each in courses),
        "refused p50 ms": figure(each.at_ms(REFUSED, 0.5) for each in courses),
        "refused p99 ms": figure(each.at_ms(REFUSED, 0.99) for each in courses),
        "neither": figure(each.neither for each in courses),
    }
    figures |= {
        f"{name} in time %": figure(each.served(name) for each in courses) for name in ("high", "normal", "low")
    }
    figures |= {f"{name} busy %": figure(100 * each.busy[name] for each in courses) for name in BUSY}
    return Row(label, figures)


def drawing(courses: Sequence[Course]) -> Lines:
    """What was offered, and what became of it, by when it was due."""
    ways: dict[str, Callable[[Visit], bool]] = {
        "offered": lambda _: True,
        "answered in time": in_time,
        "refused": refused,
    }
    windows = min(int((each.until_s - each.began_s) / DRAWN_S) for each in courses)
    first = -int((courses[0].began_s - min(visit.at_s for visit in courses[0].visits)) / DRAWN_S)
    lines = []
    for label, belongs in ways.items():
        counts = [counted(each, [visit for visit in each.visits if belongs(visit)]) for each in courses]
        points = [(n * DRAWN_S, figure(count.get(n, 0) / DRAWN_S for count in counts)) for n in range(first, windows)]
        lines.append(Line(label, points, ours=label == "answered in time"))
    return Lines(
        "Overload and recovery", "s since it began", "a second", lines, marks={"the peak": courses[0].peak_per_s}
    )


def counted(course: Course, visits: Iterable[Visit]) -> dict[int, int]:
    """By window since the overload began."""
    found: dict[int, int] = {}
    for visit in visits:
        window = int((visit.at_s - course.began_s) // DRAWN_S)
        found[window] = found.get(window, 0) + 1
    return found


def notes(courses: Sequence[Course], without: Sequence[Course]) -> list[str]:
    found = []
    if never := sum(each.recovered_s is None for each in courses):
        found.append(
            f"In {never} of {len(courses)} rounds it had not recovered {RECOVERING_S:.0f} s after the overload, when the round ended."
        )
    if neither := sum(each.neither for each in courses):
        total = sum(len(each.during) for each in courses)
        found.append(
            f"With shedding, {neither:,} of {total:,} were neither answered with 200 nor refused: cut off, never sent, or failed."
        )
    most = max(each.busy["upstream"] + each.busy["load"] for each in (*courses, *without))
    if most > CROWDED:
        found.append(
            f"During the overload, load and upstream took up to {most:.0%} of their core: waits are partly theirs."
        )
    if statistics.median(each.goodput for each in courses) > 1.1:
        found.append(
            "It answered more in time during the overload than at what was taken for its peak, which was found too low."
        )
    strangers = max(each.busy["others on its core"] for each in (*courses, *without))
    if strangers > STRANGERS:
        found.append(
            f"Other programs, interrupts or the host took up to {strangers:.0%} of the program's core during the overload."
        )
    return found
