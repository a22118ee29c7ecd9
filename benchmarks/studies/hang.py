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

from benchmarks.lab.histogram import Histogram
from benchmarks.lab.load import open_load
from benchmarks.lab.load_results import OK, LoadInterval
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.run_queue import RunQueueWait
from benchmarks.lab.service import start_service
from benchmarks.lab.study_run import Lab
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.lab.upstream_control import SOURCE_NAMES, Behaviour
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table

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
    start_s = time.perf_counter()
    users = lab.count(USERS)
    requests = consultations(users)
    rounds_by_source: dict[str, list[HangRound]] = {source: [] for source in TITLES}
    waiting = RunQueueWait()
    with pinned(LOAD_CORE), start_upstream(lab, users=users) as sources:
        for turn in range(min(ROUNDS, lab.rounds)):
            for source, rounds in rounds_by_source.items():
                lab.report(f"hang: {source}, round {turn + 1} of {min(ROUNDS, lab.rounds)}")
                set_behaviour(sources)
                with start_service(lab, sources.urls) as served, waiting.of(served.pid):
                    rounds.append(uvloop.run(measure_round(lab, sources, served.port, requests, source, turn)))
    return finding(rounds_by_source, waiting, time.perf_counter() - start_s)


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


def finding(rounds_by_source: Mapping[str, Sequence[HangRound]], waiting: RunQueueWait, seconds: float) -> Finding:
    by_turn = list(zip(*rounds_by_source.values(), strict=True))
    return Finding(
        "hang",
        "A source hangs",
        (__doc__ or "").strip(),
        seconds,
        key={
            # The worse of the two sources in each round.
            "hang.p99_over_deadline_ms": Figure.of(
                *(worst(latencies_after_hang(each).at(0.99) for each in rounds) - DEADLINE_MS for rounds in by_turn)
            ),
            "hang.max_over_deadline_ms": Figure.of(
                *(worst(latencies_after_hang(each).at(1) for each in rounds) - DEADLINE_MS for rounds in by_turn)
            ),
            "hang.normal_after_s": Figure.of(*(worst(each.normal_after_s for each in rounds) for rounds in by_turn)),
            "hang.asked_again_s": Figure.of(*(worst(each.asked_again_s for each in rounds) for rounds in by_turn)),
        },
        tables=[
            Table(
                "Latency while a source hangs, and time to recovery",
                [row(TITLES[source], rounds) for source, rounds in rounds_by_source.items()],
            )
        ],
        drawings=[drawing(TITLES[source], rounds) for source, rounds in rounds_by_source.items()],
        notes=list(notes(rounds_by_source, waiting)),
    )


def worst(values: Iterable[float]) -> float:
    """The maximum, or NaN if one is NaN: something that never happened is worse than any value."""
    numbers = list(values)
    return math.nan if any(math.isnan(value) for value in numbers) else max(numbers)


def latencies_after_hang(measured: HangRound) -> Histogram:
    """From the hang to the end."""
    return measured.latencies(0, 60)


def row(label: str, rounds: Sequence[HangRound]) -> Row:
    spans = {
        "p99 ms before": (-60.0, 0.0, 0.99),
        "p99 ms in the first 2 s": (0.0, 2.0, 0.99),
        "p99 ms after that": (2.0, HANGS_S, 0.99),
        "longest ms": (0.0, 60.0, 1.0),
    }
    figures = {
        column: Figure.of(*(each.latencies(after_s, before_s).at(quantile) for each in rounds))
        for column, (after_s, before_s, quantile) in spans.items()
    }
    figures["normal after s"] = Figure.of(*(each.normal_after_s for each in rounds))
    figures["asked again after s"] = Figure.of(*(each.asked_again_s for each in rounds))
    return Row(label, figures)


def drawing(label: str, rounds: Sequence[HangRound]) -> LineChart:
    """Windows of a tenth of a second that all rounds have."""
    first = round(-BEFORE_S / DRAWN_S)
    last = int(min(each.lasted_s for each in rounds) / DRAWN_S)
    windows = [place * DRAWN_S for place in range(first, last)]
    by_window = {at_s: [each.latencies(at_s, at_s + DRAWN_S) for each in rounds] for at_s in windows}
    complete = {at_s: histograms for at_s, histograms in by_window.items() if all(each.count for each in histograms)}
    lines = [
        Line(
            name,
            [
                (at_s + DRAWN_S / 2, Figure.of(*(each.at(quantile) for each in histograms)))
                for at_s, histograms in complete.items()
            ],
            ours=name == "p99",
        )
        for name, quantile in (("p99", 0.99), ("p50", 0.5))
    ]
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
