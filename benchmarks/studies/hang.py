"""A source hangs and later recovers: the effect on callers.

`cashier serve` runs on core 0 with its defaults, except that nothing is cached. Its eight sources,
5 ms each, and the load run on core 1: 200 consultations a second at random, latency from the due
time. First the quota service hangs, which may refuse money and must be waited for; then, with a new
service, marketing, which only improves an offer. The source hangs from second 0 to 3.2 and answers
after that.

Normal again: the first fifth of a second of a whole second in which the median of every fifth is at
most 1.2 × the median before. Asked again: the first fifth of a second in which the source sees half
as many calls as there are consultations; until then its breaker lets single calls through.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.load import open_load
from benchmarks.lab.load_results import OK, Histogram, LoadInterval
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.process_resources import RunQueueWait
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.service import start_service
from benchmarks.lab.upstream import SOURCE_NAMES, Behaviour, LeanUpstream, start_upstream
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
TITLES = {"quota": "quota, gating", "marketing": "marketing, enriching"}


class HangRound(NamedTuple):
    """One round with one source.

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


def measure(lab: Lab) -> Finding:
    users = lab.count(USERS)
    requests = consultations(users)
    rounds_by_source: dict[str, list[HangRound]] = {source: [] for source in TITLES}
    waiting = RunQueueWait()
    with pinned(LOAD_CORE), start_upstream(lab, users=users) as sources:
        for turn in lab.turns("hang", ROUNDS):
            for source, rounds in rounds_by_source.items():
                set_behaviour(sources)
                with start_service(lab, sources.urls) as served, waiting.of(served.pid):
                    rounds.append(uvloop.run(measure_round(lab, sources, served.port, requests, source, turn)))
    return finding(rounds_by_source, waiting)


def set_behaviour(sources: LeanUpstream, *, hanging: tuple[str, ...] = ()) -> None:
    sources.behave(Behaviour(dict.fromkeys(SOURCE_NAMES, DELAY_MS), hanging=hanging))


async def measure_round(
    lab: Lab, sources: LeanUpstream, port: int, requests: Sequence[bytes], source: str, seed: int
) -> HangRound:
    before_s, hangs_s, after_s = (QUICK_S if lab.quick else full_s for full_s in (BEFORE_S, HANGS_S, AFTER_S))
    async with open_load(port, requests, connections=128, seed=seed, check=check_consultation) as load:
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


COLUMNS: Columns[HangRound] = {
    "p99 ms before": lambda each: each.latencies(-60, 0).at(0.99),
    "p99 ms in the first 2 s": lambda each: each.latencies(0, 2).at(0.99),
    "p99 ms after that": lambda each: each.latencies(2, HANGS_S).at(0.99),
    "longest ms": lambda each: each.latencies(0, 60).at(1),
    "normal after s": lambda each: each.normal_after_s,
    "asked again after s": lambda each: each.asked_again_s,
}
# The worse of the two sources in each round.
KEYS: Columns[Sequence[HangRound]] = {
    "hang.p99_over_deadline_ms": lambda pair: worst(each.latencies(0, 60).at(0.99) for each in pair) - DEADLINE_MS,
    "hang.max_over_deadline_ms": lambda pair: worst(each.latencies(0, 60).at(1) for each in pair) - DEADLINE_MS,
    "hang.normal_after_s": lambda pair: worst(each.normal_after_s for each in pair),
    "hang.asked_again_s": lambda pair: worst(each.asked_again_s for each in pair),
}


def finding(rounds_by_source: Mapping[str, Sequence[HangRound]], waiting: RunQueueWait) -> Finding:
    rows = [Row(TITLES[source], figures(rounds, COLUMNS)) for source, rounds in rounds_by_source.items()]
    return Finding(
        "A source hangs",
        key=figures(list(zip(*rounds_by_source.values(), strict=True)), KEYS),
        tables=[Table("Latency while a source hangs, and time to recovery", rows)],
        drawings=[drawing(TITLES[source], rounds) for source, rounds in rounds_by_source.items()],
        notes=list(notes(rounds_by_source, waiting)),
    )


def drawing(label: str, rounds: Sequence[HangRound]) -> LineChart:
    """Windows of a tenth of a second that all rounds have."""
    first = round(-BEFORE_S / DRAWN_S)
    last = int(min(each.lasted_s for each in rounds) / DRAWN_S)
    windows = [place * DRAWN_S for place in range(first, last)]
    by_window = {at_s: [each.latencies(at_s, at_s + DRAWN_S) for each in rounds] for at_s in windows}
    complete = {at_s: histograms for at_s, histograms in by_window.items() if all(each.count for each in histograms)}

    def line(name: str, quantile: float) -> Line:
        points = [
            (at_s + DRAWN_S / 2, Figure.by_round(each.at(quantile) for each in histograms))
            for at_s, histograms in complete.items()
        ]
        return Line(name, points, ours=name == "p99")

    lines = [line("p99", 0.99), line("p50", 0.5)]
    title = f"Latency while a source hangs from second 0 to {HANGS_S:g}: {label}"
    return LineChart(title, "seconds", "ms", lines, marks={"deadline": DEADLINE_MS})


def notes(rounds_by_source: Mapping[str, Sequence[HangRound]], waiting: RunQueueWait) -> Iterator[str]:
    for source, rounds in rounds_by_source.items():
        arrived = sum(each.interval.statuses.total() for each in rounds)
        if lost := arrived - sum(each.interval.answered for each in rounds):
            yield f"{source}: {lost:,} of {arrived:,} consultations were not answered and are in no percentile."
    yield waiting.note("The service")
    busy = max(each.interval.load_busy for rounds in rounds_by_source.values() for each in rounds)
    yield f"The load's process was busy {busy:.0%} of its core at most."
    yield "A tenth of a second has some 20 consultations, so its 99th percentile is a single one: the slowest."
