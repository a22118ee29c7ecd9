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
from benchmarks.lab.cpu_usage import OTHERS_LIMIT
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.load_results import OK, REFUSED, LoadInterval, RequestOutcome
from benchmarks.lab.process import LOAD_CORE, PROGRAM_CORE, core_time, cpu_s, pinned
from benchmarks.lab.requests import consultations
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table

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


class OverloadRound(NamedTuple):
    """One round. `outcomes`: of the calm before it, of the overload, and of what came after. `busy`: shares of time, during the overload."""

    peak_per_s: float
    start_s: float
    end_s: float
    until_s: float
    normal_p99_s: float
    outcomes: Sequence[RequestOutcome]
    busy: Mapping[str, float]

    @property
    def during(self) -> list[RequestOutcome]:
        return [outcome for outcome in self.outcomes if self.start_s <= outcome.due_s < self.end_s]

    @property
    def good_per_s(self) -> float:
        return sum(map(in_time, self.during)) / (self.end_s - self.start_s)

    @property
    def goodput(self) -> float:
        return self.good_per_s / self.peak_per_s if self.peak_per_s else 0.0

    def at_ms(self, status: int, share: float) -> float:
        return 1000 * quantile([outcome.latency_s for outcome in self.during if outcome.status == status], share)

    def served(self, priority: str) -> float:
        those = [in_time(outcome) for outcome in self.during if PRIORITIES[outcome.request % len(PRIORITIES)] == priority]
        return 100 * sum(those) / len(those) if those else 0.0

    @property
    def neither(self) -> int:
        return sum(outcome.status not in {OK, REFUSED} for outcome in self.during)

    @property
    def recovered_s(self) -> float | None:
        return recovery_s(self.outcomes, self.end_s, self.until_s, self.normal_p99_s)


def in_time(outcome: RequestOutcome) -> bool:
    return outcome.status == OK and outcome.latency_s <= DEADLINE_S


def refused(outcome: RequestOutcome) -> bool:
    return outcome.status == REFUSED


def quantile(values: Iterable[float], share: float) -> float:
    """Of nothing, 0."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def recovery_s(outcomes: Sequence[RequestOutcome], end_s: float, until_s: float, normal_p99_s: float) -> float | None:
    """From the end of the overload to the first window in which all were served, at no more than twice the normal p99; None: never."""
    at_s = end_s
    while at_s + WINDOW_S <= until_s:
        window = [outcome for outcome in outcomes if at_s <= outcome.due_s < at_s + WINDOW_S]
        slowest_s = quantile((outcome.latency_s for outcome in window), 0.99)
        if window and all(outcome.status == OK for outcome in window) and slowest_s <= 2 * normal_p99_s:
            return at_s - end_s
        at_s += WINDOW_S / 4
    return None


def requests(users: int) -> list[bytes]:
    """Of each user one of each priority, in the mix of PRIORITIES."""
    by_priority = {priority: consultations(users, (f"X-Priority: {priority}",)) for priority in set(PRIORITIES)}
    return [by_priority[priority][n] for n in range(users) for priority in PRIORITIES]


def measure(lab: Lab) -> Finding:
    start_s = time.perf_counter()
    users = lab.count(USERS)
    asked = requests(users)
    with pinned(LOAD_CORE), start_upstream(lab, users=users) as upstream:
        with start_service(lab, upstream.urls, cached=True, shed=True) as served:
            per_s, rounds = uvloop.run(measure_rounds(lab, served, upstream, asked, None))
        with start_service(lab, upstream.urls, cached=True) as served:
            _, without = uvloop.run(measure_rounds(lab, served, upstream, asked, per_s))
    return finding(per_s, rounds, without, time.perf_counter() - start_s)


async def measure_rounds(
    lab: Lab, served: Served, upstream: LeanUpstream, asked: Sequence[bytes], peak_per_s: float | None
) -> tuple[float, list[OverloadRound]]:
    """With shedding, looking for the peak first; or, where it is known, one round without."""
    async with open_load(served.port, asked, connections=CONNECTIONS) as load:
        await load.open(200, lab.seconds(1.0))
        await load.open(400, lab.seconds(1.0))
        per_s = peak_per_s or await find_peak(lab, load)
        normal_p99_s = (await load.open(per_s / 2, lab.seconds(2 * CALM_S))).at(0.99) / 1000
        count = 1 if peak_per_s else lab.rounds
        rounds = []
        for turn in range(count):
            # Without shedding it could stand still from here on: then the peak is the one that was found with it.
            best_per_s = peak_per_s or good_per_s(await load.open(per_s, lab.seconds(RECOVERING_S), keep=True))
            found = await measure_round(lab, load, per_s, {"program": served.pid, "upstream": upstream.pid})
            rounds.append(found._replace(peak_per_s=best_per_s, normal_p99_s=normal_p99_s))
            lab.report(f"round {turn + 1} of {count}: {rounds[-1].goodput:.2f} of the peak, {best_per_s:,.0f} a second")
        return per_s, rounds


async def find_peak(lab: Lab, load: Load) -> float:
    """The most that is answered in time, of rates that rise until three were too much: one may have been the machine's fault."""
    best, rate, too_much = 0.0, 600.0, 0
    while too_much < 3:
        found = await load.open(rate, lab.seconds(RAMP_S), keep=True)
        good = good_per_s(found)
        lab.report(f"{rate:,.0f} a second: {good:,.0f} in time, load {found.load_busy:.0%} busy")
        too_much += good < 0.9 * found.statuses.total() / found.seconds
        best = max(best, good)
        rate *= 1.15
    return best


def good_per_s(interval: LoadInterval) -> float:
    return sum(map(in_time, interval.outcomes)) / interval.seconds


async def measure_round(lab: Lab, load: Load, per_s: float, pids: Mapping[str, int]) -> OverloadRound:
    calm = await load.arrive(per_s / 2, lab.seconds(CALM_S), keep=True)
    used_s, core_s = {name: cpu_s(pid) for name, pid in pids.items()}, sum(core_time(PROGRAM_CORE))
    start_s = time.perf_counter()
    during = await load.arrive(OVERLOAD * per_s, lab.seconds(OVERLOAD_S), keep=True)
    end_s = time.perf_counter()
    busy = {name: (cpu_s(pid) - used_s[name]) / (end_s - start_s) for name, pid in pids.items()}
    others = (sum(core_time(PROGRAM_CORE)) - core_s) / (end_s - start_s) - busy["program"]
    after = await load.open(per_s / 2, lab.seconds(RECOVERING_S), keep=True)
    return OverloadRound(
        peak_per_s=per_s,
        start_s=start_s,
        end_s=end_s,
        until_s=end_s + after.seconds,
        normal_p99_s=0.0,
        # An answer is counted in the interval in which it came; when each was due says where it belongs.
        outcomes=[*calm.outcomes, *during.outcomes, *after.outcomes],
        busy={**busy, "load": during.load_busy, "others on its core": max(0.0, others)},
    )


def figure(values: Iterable[float]) -> Figure:
    return Figure(tuple(values))


def finding(per_s: float, rounds: Sequence[OverloadRound], without: Sequence[OverloadRound], seconds: float) -> Finding:
    key = {
        "overload.goodput": figure(each.goodput for each in rounds),
        "overload.admitted_p99_ms": figure(each.at_ms(OK, 0.99) for each in rounds),
        "overload.refused_p50_ms": figure(each.at_ms(REFUSED, 0.5) for each in rounds),
        "overload.refused_p99_ms": figure(each.at_ms(REFUSED, 0.99) for each in rounds),
        "overload.peak_per_s": figure(each.peak_per_s for each in rounds),
        "overload.goodput_without_shedding": figure(each.goodput for each in without),
    }
    recovered = [each.recovered_s for each in rounds]
    if known := [each for each in recovered if each is not None]:
        key["overload.recovered_s"] = figure(known)
    return Finding(
        name="overload",
        title="Three times the peak",
        about=__doc__ or "",
        seconds=seconds,
        key=key,
        tables=[Table(f"{OVERLOAD * per_s:,.0f} a second", [row("with shedding", rounds), row("without", without)])],
        drawings=[drawing(rounds)],
        notes=notes(rounds, without),
    )


def row(label: str, rounds: Sequence[OverloadRound]) -> Row:
    figures = {
        "in time a second": figure(each.good_per_s for each in rounds),
        "of the peak": figure(each.goodput for each in rounds),
        "admitted p50 ms": figure(each.at_ms(OK, 0.5) for each in rounds),
        "admitted p99 ms": figure(each.at_ms(OK, 0.99) for each in rounds),
        "refused p50 ms": figure(each.at_ms(REFUSED, 0.5) for each in rounds),
        "refused p99 ms": figure(each.at_ms(REFUSED, 0.99) for each in rounds),
        "neither": figure(each.neither for each in rounds),
    }
    figures |= {
        f"{name} in time %": figure(each.served(name) for each in rounds) for name in ("high", "normal", "low")
    }
    figures |= {f"{name} busy %": figure(100 * each.busy[name] for each in rounds) for name in BUSY}
    return Row(label, figures)


def drawing(rounds: Sequence[OverloadRound]) -> LineChart:
    """What was offered, and what became of it, by when it was due."""
    ways: dict[str, Callable[[RequestOutcome], bool]] = {
        "offered": lambda _: True,
        "answered in time": in_time,
        "refused": refused,
    }
    windows = min(int((each.until_s - each.start_s) / DRAWN_S) for each in rounds)
    first = -int((rounds[0].start_s - min(outcome.due_s for outcome in rounds[0].outcomes)) / DRAWN_S)
    lines = []
    for label, belongs in ways.items():
        counts = [count_by_window(each, [outcome for outcome in each.outcomes if belongs(outcome)]) for each in rounds]
        points = [(n * DRAWN_S, figure(count.get(n, 0) / DRAWN_S for count in counts)) for n in range(first, windows)]
        lines.append(Line(label, points, ours=label == "answered in time"))
    return LineChart(
        "Overload and recovery", "s since it began", "a second", lines, marks={"the peak": rounds[0].peak_per_s}
    )


def count_by_window(measured: OverloadRound, outcomes: Iterable[RequestOutcome]) -> dict[int, int]:
    """By window since the overload began."""
    found: dict[int, int] = {}
    for outcome in outcomes:
        window = int((outcome.due_s - measured.start_s) // DRAWN_S)
        found[window] = found.get(window, 0) + 1
    return found


def notes(rounds: Sequence[OverloadRound], without: Sequence[OverloadRound]) -> list[str]:
    found = []
    if never := sum(each.recovered_s is None for each in rounds):
        found.append(
            f"In {never} of {len(rounds)} rounds it had not recovered {RECOVERING_S:.0f} s after the overload, when the round ended."
        )
    if neither := sum(each.neither for each in rounds):
        total = sum(len(each.during) for each in rounds)
        found.append(
            f"With shedding, {neither:,} of {total:,} were neither answered with 200 nor refused: cut off, never sent, or failed."
        )
    most = max(each.busy["upstream"] + each.busy["load"] for each in (*rounds, *without))
    if most > CROWDED:
        found.append(
            f"During the overload, load and upstream took up to {most:.0%} of their core: waits are partly theirs."
        )
    if statistics.median(each.goodput for each in rounds) > 1.1:
        found.append(
            "It answered more in time during the overload than at what was taken for its peak, which was found too low."
        )
    others_busy = max(each.busy["others on its core"] for each in (*rounds, *without))
    if others_busy > OTHERS_LIMIT:
        found.append(
            f"Other programs, interrupts or the host took up to {others_busy:.0%} of the program's core during the overload."
        )
    return found
