"""Three times the capacity offered: goodput, latency of refusals, recovery.

The service runs on core 0 with caches and load shedding on; upstream and load run on core 1. The
load is open: random arrivals, seeded, over 512 connections, latency from the due time; waiting for
a free connection counts. One in five callers has a higher priority and one in five a lower one.
First a ramp finds the peak: the highest rate answered with 200 within the deadline of 150 ms. Then
in rounds: the peak again, so that both halves of a ratio see the same machine; a moment at half of
it; three times the peak; and half of it for the recovery. One round is without load shedding, to
show its effect.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
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
from benchmarks.results import Columns, Figure, Finding, Line, LineChart, Row, Table, figures

USERS = 1_000
CONNECTIONS = 512
DEADLINE_S = 0.150
OVERLOAD = 3
OVERLOAD_S, CALM_S, RECOVERING_S, RAMP_S = 6.0, 1.0, 3.0, 1.5
WINDOW_S = 0.2
DRAWN_S = 0.1
CROWDED = 0.8
# X-Priority of each request, in turn.
PRIORITIES = ("high", "normal", "normal", "normal", "low")


class OverloadRound(NamedTuple):
    """One round. `outcomes`: before, during and after.

    `busy`: shares of time, during the overload.
    """

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
        met = [in_time(outcome) for outcome in self.during if PRIORITIES[outcome.request % len(PRIORITIES)] == priority]
        return 100 * sum(met) / len(met) if met else 0.0

    @property
    def neither(self) -> int:
        return sum(outcome.status not in {OK, REFUSED} for outcome in self.during)

    @property
    def recovered_s(self) -> float | None:
        return recovery_s(self.outcomes, self.end_s, self.until_s, self.normal_p99_s)


def in_time(outcome: RequestOutcome) -> bool:
    return outcome.status == OK and outcome.latency_s <= DEADLINE_S


def quantile(values: Iterable[float], share: float) -> float:
    """0 if there are no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def recovery_s(outcomes: Sequence[RequestOutcome], end_s: float, until_s: float, normal_p99_s: float) -> float | None:
    """Time from the end of the overload to the first window in which all were served within twice
    the normal p99; None if there is none.
    """
    at_s = end_s
    while at_s + WINDOW_S <= until_s:
        window = [outcome for outcome in outcomes if at_s <= outcome.due_s < at_s + WINDOW_S]
        slowest_s = quantile((outcome.latency_s for outcome in window), 0.99)
        if window and all(outcome.status == OK for outcome in window) and slowest_s <= 2 * normal_p99_s:
            return at_s - end_s
        at_s += WINDOW_S / 4
    return None


def requests(users: int) -> list[bytes]:
    """Requests of each user in the mix of PRIORITIES."""
    by_priority = {priority: consultations(users, (f"X-Priority: {priority}",)) for priority in set(PRIORITIES)}
    return [by_priority[priority][n] for n in range(users) for priority in PRIORITIES]


def measure(lab: Lab) -> Finding:
    users = lab.count(USERS)
    request_mix = requests(users)
    with pinned(LOAD_CORE), start_upstream(lab, users=users) as upstream:
        with start_service(lab, upstream.urls, cached=True, shed=True) as served:
            per_s, rounds = uvloop.run(measure_rounds(lab, served, upstream, request_mix, None))
        with start_service(lab, upstream.urls, cached=True) as served:
            _, without = uvloop.run(measure_rounds(lab, served, upstream, request_mix, per_s))
    return finding(per_s, rounds, without)


async def measure_rounds(
    lab: Lab, served: Served, upstream: LeanUpstream, requests: Sequence[bytes], peak_per_s: float | None
) -> tuple[float, list[OverloadRound]]:
    """With load shedding, find the peak first; with a known peak, run one round without it."""
    async with open_load(served.port, requests, connections=CONNECTIONS) as load:
        await load.open(200, lab.seconds(1.0))
        await load.open(400, lab.seconds(1.0))
        per_s = peak_per_s or await find_peak(lab, load)
        normal_p99_s = (await load.open(per_s / 2, lab.seconds(2 * CALM_S))).at(0.99) / 1000
        count = 1 if peak_per_s else lab.rounds
        rounds = []
        for turn in range(count):
            # Without shedding the goodput may collapse, so the peak measured with shedding is used.
            best_per_s = peak_per_s or good_per_s(await load.open(per_s, lab.seconds(RECOVERING_S), keep=True))
            measured = await measure_round(lab, load, per_s, {"program": served.pid, "upstream": upstream.pid})
            rounds.append(measured._replace(peak_per_s=best_per_s, normal_p99_s=normal_p99_s))
            lab.report(f"round {turn + 1} of {count}: {rounds[-1].goodput:.2f} of the peak, {best_per_s:,.0f}/s")
        return per_s, rounds


async def find_peak(lab: Lab, load: Load) -> float:
    """The highest rate answered in time, of rising rates, until three fail: one may be the
    machine's fault.
    """
    best, rate, too_much = 0.0, 600.0, 0
    while too_much < 3:
        interval = await load.open(rate, lab.seconds(RAMP_S), keep=True)
        good = good_per_s(interval)
        lab.report(f"{rate:,.0f}/s: {good:,.0f} in time, load {interval.load_busy:.0%} busy")
        too_much += good < 0.9 * interval.statuses.total() / interval.seconds
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
        # An outcome is counted in the interval of its answer; its due time says where it belongs.
        outcomes=[*calm.outcomes, *during.outcomes, *after.outcomes],
        busy={**busy, "load": during.load_busy, "others on its core": max(0.0, others)},
    )


COLUMNS: Columns[OverloadRound] = {
    "in time per second": lambda each: each.good_per_s,
    "of the peak": lambda each: each.goodput,
    "admitted p50 ms": lambda each: each.at_ms(OK, 0.5),
    "admitted p99 ms": lambda each: each.at_ms(OK, 0.99),
    "refused p50 ms": lambda each: each.at_ms(REFUSED, 0.5),
    "refused p99 ms": lambda each: each.at_ms(REFUSED, 0.99),
    "neither": lambda each: each.neither,
    "high in time %": lambda each: each.served("high"),
    "normal in time %": lambda each: each.served("normal"),
    "low in time %": lambda each: each.served("low"),
    "program busy %": lambda each: 100 * each.busy["program"],
    "others on its core busy %": lambda each: 100 * each.busy["others on its core"],
    "upstream busy %": lambda each: 100 * each.busy["upstream"],
    "load busy %": lambda each: 100 * each.busy["load"],
}


def finding(per_s: float, rounds: Sequence[OverloadRound], without: Sequence[OverloadRound]) -> Finding:
    shed, unshed = figures(rounds, COLUMNS), figures(without, COLUMNS)
    recovered = [each.recovered_s for each in rounds if each.recovered_s is not None]
    return Finding(
        "Three times the capacity",
        key={
            "overload.goodput": shed["of the peak"],
            "overload.admitted_p99_ms": shed["admitted p99 ms"],
            "overload.refused_p50_ms": shed["refused p50 ms"],
            "overload.refused_p99_ms": shed["refused p99 ms"],
            "overload.peak_per_s": Figure.by_round(each.peak_per_s for each in rounds),
            "overload.goodput_without_shedding": unshed["of the peak"],
            **({"overload.recovered_s": Figure.by_round(recovered)} if recovered else {}),
        },
        tables=[Table(f"{OVERLOAD * per_s:,.0f}/s offered", [Row("with shedding", shed), Row("without", unshed)])],
        drawings=[drawing(rounds)],
        notes=notes(rounds, without),
    )


def drawing(rounds: Sequence[OverloadRound]) -> LineChart:
    """Offered, answered and refused, by due time."""
    kinds: dict[str, Callable[[RequestOutcome], bool]] = {
        "offered": lambda _: True,
        "answered in time": in_time,
        "refused": lambda outcome: outcome.status == REFUSED,
    }
    windows = min(int((each.until_s - each.start_s) / DRAWN_S) for each in rounds)
    first = -int((rounds[0].start_s - min(outcome.due_s for outcome in rounds[0].outcomes)) / DRAWN_S)
    lines = []
    for label, belongs in kinds.items():
        counts = [Counter(window(each, one) for one in each.outcomes if belongs(one)) for each in rounds]
        points = [(n * DRAWN_S, Figure.by_round(count[n] / DRAWN_S for count in counts)) for n in range(first, windows)]
        lines.append(Line(label, points, ours=label == "answered in time"))
    return LineChart(
        "Overload and recovery", "s since its start", "per second", lines, marks={"the peak": rounds[0].peak_per_s}
    )


def window(measured: OverloadRound, outcome: RequestOutcome) -> int:
    """Its place since the start of the overload."""
    return int((outcome.due_s - measured.start_s) // DRAWN_S)


def notes(rounds: Sequence[OverloadRound], without: Sequence[OverloadRound]) -> list[str]:
    texts = []
    if never := sum(each.recovered_s is None for each in rounds):
        texts.append(
            f"In {never} of {len(rounds)} rounds it had not recovered {RECOVERING_S:.0f} s after the overload, at "
            "the end of the round."
        )
    if neither := sum(each.neither for each in rounds):
        total = sum(len(each.during) for each in rounds)
        texts.append(
            f"With shedding, {neither:,} of {total:,} were neither answered with 200 nor refused: lost, never sent, "
            "or failed."
        )
    most = max(each.busy["upstream"] + each.busy["load"] for each in (*rounds, *without))
    if most > CROWDED:
        texts.append(
            f"During the overload, load and upstream took up to {most:.0%} of their core and account for a part of "
            "the latency."
        )
    if statistics.median(each.goodput for each in rounds) > 1.1:
        texts.append("The goodput during the overload was above the peak, so the peak was measured too low.")
    others_busy = max(each.busy["others on its core"] for each in (*rounds, *without))
    if others_busy > OTHERS_LIMIT:
        texts.append(
            f"Other programs, interrupts or the host took up to {others_busy:.0%} of the program's core during the "
            "overload."
        )
    return texts
