"""A source hangs and later recovers: the effect on callers, beside gateways.

`cashier serve` runs on core 0 with its defaults, except that nothing is cached. Its eight sources,
5 ms each, and the load run on core 1: 200 consultations a second at random, latency from the due
time. First the quota service hangs, which may refuse money and must be waited for; then, with a new
service, marketing, which only improves an offer. Then the quota service hangs for gateways in
nginx + Lua and in Go, which have a plain timeout for each call, as long as our deadline. The source
hangs from second 0 to 3.2 and answers after that.

Normal again: the first fifth of a second of a whole second in which the median of every fifth is at
most 1.2 × the median before. Asked again: the first fifth of a second in which the source sees half
as many calls as there are consultations; until then its breaker lets single calls through.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.load import open_load
from benchmarks.lab.load_results import OK, Histogram, LoadInterval
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.process_resources import RunQueueWait
from benchmarks.lab.requests import consultations
from benchmarks.lab.upstream import SOURCE_NAMES, Behaviour, LeanUpstream, start_upstream
from benchmarks.peers import GATEWAYS, OURS, Program, start_programs
from benchmarks.results import Columns, Figure, Finding, Line, LineChart, Row, Table, figures

DEADLINE_MS = 150
DELAY_MS = 5.0
PER_S = 200
USERS = 1_000
ROUNDS = 2
WARM_S = 1.0
BEFORE_S = 1.0
HANGS_S = 3.2
# By default a breaker stays open for 2 s, then for 3, before it tries the source again.
AFTER_S = 4.0
# A quick run: everything happens, too briefly for conclusions.
QUICK_S = 0.3
WINDOW_S = 0.2
DRAWN_S = 0.1
NORMAL = 1.2
GATING, ENRICHING = HANGING = ("quota", "marketing")


class Case(NamedTuple):
    """A program, by its name, and the source that hangs."""

    program: str
    source: str


CASES = (*(Case(OURS, source) for source in HANGING), *(Case(name, GATING) for name in GATEWAYS))


class HangRound(NamedTuple):
    """One round of one case.

    Seconds count from the hang. `calls_seen`: (time, calls so far).
    """

    interval: LoadInterval
    hung_at_s: float
    healed_s: float
    calls_seen: Sequence[tuple[float, int]]

    def latencies(self, after_s: float, before_s: float) -> Histogram:
        """Of the requests due in this period after the hang."""
        histogram = Histogram()
        for outcome in self.interval.outcomes:
            if after_s <= outcome.due_s - self.hung_at_s < before_s and outcome.status == OK:
                histogram.record(outcome.latency_s)
        return histogram

    @property
    def lasted_s(self) -> float:
        return max(outcome.due_s for outcome in self.interval.outcomes) - self.hung_at_s

    @property
    def normal_ms(self) -> float:
        return self.latencies(-60, 0).at(0.5)

    @property
    def normal_after_s(self) -> float:
        """NaN if it is not normal before the source recovers."""
        windows = [window * WINDOW_S for window in range(int(self.healed_s / WINDOW_S))]
        normal = [self.latencies(at_s, at_s + WINDOW_S).at(0.5) <= NORMAL * self.normal_ms for at_s in windows]
        enough = round(1 / WINDOW_S)
        return next(
            (
                at_s
                for place, at_s in enumerate(windows)
                if len(normal[place:]) >= enough and all(normal[place : place + enough])
            ),
            math.nan,
        )

    @property
    def asked_again_s(self) -> float:
        """Seconds after recovery; NaN if it was not calls_seen again."""
        for (at_s, calls), (then_s, more) in zip(self.calls_seen, self.calls_seen[1:], strict=False):
            if at_s >= self.healed_s and more - calls >= 0.5 * PER_S * (then_s - at_s):
                return at_s - self.healed_s
        return math.nan


class CaseRounds(NamedTuple):
    """`title`: of the program."""

    case: Case
    title: str
    rounds: list[HangRound]


def measure(lab: Lab) -> Finding:
    users = lab.count(USERS)
    requests = consultations(users)
    results: dict[Case, CaseRounds] = {}
    waiting = RunQueueWait()
    with pinned(LOAD_CORE), start_upstream(lab, users=users) as sources:
        for turn in lab.turns("hang", ROUNDS):
            for case in CASES:
                set_behaviour(sources)
                with ExitStack() as running:
                    for program in start_programs(lab, sources, running, (case.program,), DEADLINE_MS):
                        with waiting.of(program.served.pid):
                            measured = uvloop.run(measure_round(lab, sources, program, requests, case.source, turn))
                        results.setdefault(case, CaseRounds(case, program.title, [])).rounds.append(measured)
    return finding(list(results.values()), waiting)


def set_behaviour(sources: LeanUpstream, *, hanging: tuple[str, ...] = ()) -> None:
    sources.behave(Behaviour(dict.fromkeys(SOURCE_NAMES, DELAY_MS), hanging=hanging))


async def measure_round(
    lab: Lab, sources: LeanUpstream, program: Program, requests: Sequence[bytes], source: str, seed: int
) -> HangRound:
    before_s, hangs_s, after_s = (QUICK_S if lab.quick else full_s for full_s in (BEFORE_S, HANGS_S, AFTER_S))
    async with open_load(program.served.port, requests, connections=128, seed=seed, check=program.check) as load:
        await load.open(PER_S, lab.seconds(WARM_S))
        start_s = time.perf_counter()
        arriving = asyncio.create_task(load.open(PER_S, before_s + hangs_s + after_s, keep=True))
        await asyncio.sleep(before_s)
        hung_at_s = time.perf_counter()
        await asyncio.to_thread(set_behaviour, sources, hanging=(source,))
        await asyncio.sleep(hangs_s - (time.perf_counter() - hung_at_s))
        healed_s = time.perf_counter() - hung_at_s
        await asyncio.to_thread(set_behaviour, sources)
        calls_seen = [(healed_s, 0)]
        while time.perf_counter() + WINDOW_S < start_s + before_s + hangs_s + after_s:
            await asyncio.sleep(WINDOW_S)
            seen = await asyncio.to_thread(sources.seen)
            calls_seen.append((time.perf_counter() - hung_at_s, seen.calls[source]))
        return HangRound(await arriving, hung_at_s, healed_s, calls_seen)


def worst(values: Iterable[float]) -> float:
    """The maximum, or NaN if one is NaN: something that never happened is worse than any value."""
    numbers = list(values)
    return math.nan if any(math.isnan(value) for value in numbers) else max(numbers)


AFTER_2_S = "p99 ms after that"
COLUMNS: Columns[HangRound] = {
    "p99 ms before": lambda each: each.latencies(-60, 0).at(0.99),
    "p99 ms in the first 2 s": lambda each: each.latencies(0, 2).at(0.99),
    AFTER_2_S: lambda each: each.latencies(2, HANGS_S).at(0.99),
    "longest ms": lambda each: each.latencies(0, 60).at(1),
    "normal after s": lambda each: each.normal_after_s,
    "asked again after s": lambda each: each.asked_again_s,
}
# Ours, the worse of the two sources in each round.
KEYS: Columns[Sequence[HangRound]] = {
    "hang.p99_over_deadline_ms": lambda pair: worst(each.latencies(0, 60).at(0.99) for each in pair) - DEADLINE_MS,
    "hang.max_over_deadline_ms": lambda pair: worst(each.latencies(0, 60).at(1) for each in pair) - DEADLINE_MS,
    "hang.normal_after_s": lambda pair: worst(each.normal_after_s for each in pair),
    "hang.asked_again_s": lambda pair: worst(each.asked_again_s for each in pair),
}


def finding(results: Sequence[CaseRounds], waiting: RunQueueWait) -> Finding:
    ours = [each for each in results if each.case.program == OURS]
    gating = [each for each in results if each.case.source == GATING]
    kinds = {GATING: "quota, gating", ENRICHING: "marketing, enriching"}
    return Finding(
        "A source hangs",
        key={
            **figures(list(zip(*(each.rounds for each in ours), strict=True)), KEYS),
            **{f"hang.p99_ms.{case.program}": figures(rounds, COLUMNS)[AFTER_2_S] for case, _, rounds in gating},
        },
        tables=[
            Table(
                "Latency while a source hangs, and time to recovery",
                [Row(f"{title}: {kinds[case.source]}", figures(rounds, COLUMNS)) for case, title, rounds in results],
            )
        ],
        drawings=[
            drawing(
                f"A bad day: a source hangs from second 0 to {HANGS_S:g}",
                {title: (rounds, 0.5) for _, title, rounds in gating},
                ours[0].title,
            ),
            *(
                drawing(
                    f"Latency while a source hangs: {kinds[case.source]}",
                    {"p99": (rounds, 0.99), "p50": (rounds, 0.5)},
                    "p99",
                )
                for case, _, rounds in ours
            ),
        ],
        notes=list(notes(results, waiting)),
    )


def drawing(title: str, lines: Mapping[str, tuple[Sequence[HangRound], float]], ours: str) -> LineChart:
    """Each line is a quantile of windows of a tenth of a second that all its rounds have."""
    marks = {"deadline": DEADLINE_MS}
    drawn = [Line(label, points(rounds, quantile), label == ours) for label, (rounds, quantile) in lines.items()]
    return LineChart(title, "seconds", "latency, ms", drawn, marks=marks)


def points(rounds: Sequence[HangRound], quantile: float) -> list[tuple[float, Figure]]:
    last_s = min(each.lasted_s for each in rounds)
    windows = [place * DRAWN_S for place in range(round(-BEFORE_S / DRAWN_S), int(last_s / DRAWN_S))]
    by_window = {at_s: [each.latencies(at_s, at_s + DRAWN_S) for each in rounds] for at_s in windows}
    return [
        (at_s + DRAWN_S / 2, Figure.by_round(each.at(quantile) for each in histograms))
        for at_s, histograms in by_window.items()
        if all(each.count for each in histograms)
    ]


def notes(results: Sequence[CaseRounds], waiting: RunQueueWait) -> Iterator[str]:
    for case, title, rounds in results:
        arrived = sum(each.interval.statuses.total() for each in rounds)
        if lost := arrived - sum(each.interval.answered for each in rounds):
            yield f"{title}, {case.source}: {lost:,} of {arrived:,} were not answered and are in no percentile."
    yield waiting.note("The program")
    busy = max(each.interval.load_busy for _, _, rounds in results for each in rounds)
    yield f"The load's process was busy {busy:.0%} of its core at most."
    yield "A tenth of a second has some 20 consultations, so its 99th percentile is a single one: the slowest."
    yield "A gateway is not normal before its source: each consultation waits for the timeout of its call."
