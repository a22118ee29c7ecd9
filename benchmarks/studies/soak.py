"""Ten minutes at half of the peak, with disturbances: does anything grow?

The service runs on core 0 with its defaults, all mechanisms, caches and load shedding on; the lean
upstream and open arrivals run on core 1, at half of the rate of a short closed loop. Each source
takes 2 ms, the balance service 5. Every minute another source stutters for fifteen seconds: one
call in ten takes twelve times as long. All sources do so before the first sample, so that pools and
heap have reached their full size. Every twenty seconds a user's cards are invalidated, every two
minutes all answers of a source, by `POST /v1/invalidate`.

Every ten seconds a sample is taken from outside: private memory, open sockets by state, threads,
and the outcomes of the requests. The timers of the event loop are not visible.

Flat means: the least-squares line through the samples of the last eight minutes gains less than 2 %
of the level in an hour; or its slope is within twice its standard error, so that growth cannot be
distinguished from noise. Memory, open sockets and threads must be flat. Shrinking counts as flat.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from random import Random
from typing import NamedTuple

import msgspec
import numpy as np
import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.load_results import LoadInterval
from benchmarks.lab.process import LOAD_CORE, cpu_s, pinned
from benchmarks.lab.process_resources import ENDING, LEFT, private_kb, sockets, threads
from benchmarks.lab.requests import consultations
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.upstream import FIRST_USER, SOURCE_NAMES, Behaviour, LeanUpstream, exchange, start_upstream
from benchmarks.results import Columns, Figure, Finding, Line, LineChart, Row, Table, figures

USERS = 2_000
CONNECTIONS = 128
SAMPLES, SAMPLE_S = 60, 10.0
QUICK_SAMPLES, QUICK_SAMPLE_S = 15, 0.4
# The share of samples that counts, the last ones: by then caches are full and statistics learned.
SETTLED = 0.8
PEAK_S, HALF = 3.0, 0.5
HOUR_S = 3_600.0
# Flat: growth per hour as a share of the level, or in standard errors of the slope.
FLAT_SHARE, SURE = 0.02, 2.0
DELAYS_MS = {**dict.fromkeys(SOURCE_NAMES, 2.0), "balance": 5.0}
# Share of calls, in basis points, that take twelve times as long.
STUTTER_BPS = 1_000
# In samples.
STUTTER_EVERY, STUTTER_FOR = 6, 1.5
CARDS_EVERY, ALL_EVERY = 2, 12


class Sample(NamedTuple):
    """`at_s`: since the start. Resources at this moment, and outcomes since the last sample."""

    at_s: float
    memory_mb: float
    sockets: Counter[str]
    threads: int
    cpu_us: float
    interval: LoadInterval


class Trend(NamedTuple):
    """A least-squares line through samples over time, per hour. `level`: the mean of the samples.

    `error_per_h`: the standard error of the slope. Successive samples are alike, so the true error
    is larger.
    """

    per_h: float
    error_per_h: float
    level: float

    @classmethod
    def of(cls, seconds: Sequence[float], values: Sequence[float]) -> Trend:
        (per_s, _), covariance = np.polyfit(seconds, values, 1, cov=True)
        return cls(float(per_s) * HOUR_S, math.sqrt(covariance[0][0]) * HOUR_S, float(np.mean(values)))

    @property
    def flat(self) -> bool:
        """True if it hardly grows in an hour, grows within the noise, or shrinks."""
        return self.per_h <= FLAT_SHARE * self.level or self.per_h <= SURE * self.error_per_h


class Weather:
    """Makes each source stutter in turn, and invalidates answers.

    Control calls run in a thread, because they block.
    """

    def __init__(self, upstream: LeanUpstream, port: int, users: int) -> None:
        self.invalidations = 0
        self._upstream = upstream
        self._port = port
        self._users = users
        self._random = Random(1)

    async def stutter(self, *names: str) -> None:
        """Make these sources stutter, and no others."""
        behaviour = Behaviour(DELAYS_MS, dict.fromkeys(names, STUTTER_BPS))
        await asyncio.to_thread(self._upstream.behave, behaviour)

    async def pass_by(self, sample: int, sample_s: float) -> None:
        """Run the disturbances of this sample; return when they are over."""
        if sample % CARDS_EVERY == 1:
            await self._invalidate(source="card", key=f"u_{FIRST_USER + self._random.randrange(self._users)}")
        if sample % ALL_EVERY == ALL_EVERY - 1:
            await self._invalidate(source=SOURCE_NAMES[sample // ALL_EVERY % len(SOURCE_NAMES)], prefix="")
        if name := stuttering(sample):
            await self.stutter(name)
            await asyncio.sleep(STUTTER_FOR * sample_s)
            await self.stutter()

    async def _invalidate(self, **what: str) -> None:
        await asyncio.to_thread(exchange, self._port, "POST", "/v1/invalidate", msgspec.json.encode(what))
        self.invalidations += 1


def stuttering(sample: int) -> str:
    """The source that starts to stutter with this sample, or an empty string."""
    turn, place = divmod(sample, STUTTER_EVERY)
    return SOURCE_NAMES[turn % len(SOURCE_NAMES)] if place == STUTTER_EVERY - 1 else ""


def measure(lab: Lab) -> Finding:
    users = lab.count(USERS)
    with (
        pinned(LOAD_CORE),
        start_upstream(lab, users=users) as upstream,
        start_service(lab, upstream.urls, cached=True, shed=True) as served,
    ):
        weather = Weather(upstream, served.port, users)
        per_s, samples = uvloop.run(measure_samples(lab, served, weather, consultations(users)))
    return finding(lab, per_s, samples, weather.invalidations)


async def measure_samples(
    lab: Lab, served: Served, weather: Weather, requests: Sequence[bytes]
) -> tuple[float, list[Sample]]:
    await weather.stutter()
    async with open_load(served.port, requests) as load:
        await load.closed(lab.seconds(PEAK_S))
        per_s = HALF * (await load.closed(lab.seconds(PEAK_S))).per_s
    count, sample_s = (QUICK_SAMPLES, QUICK_SAMPLE_S) if lab.quick else (SAMPLES, SAMPLE_S)
    samples: list[Sample] = []
    async with (
        open_load(served.port, requests, connections=CONNECTIONS, seed=2) as load,
        asyncio.TaskGroup() as passing,
    ):
        await weather.stutter(*SOURCE_NAMES)
        await load.arrive(per_s, 2 * sample_s)
        await weather.stutter()
        await load.arrive(per_s, sample_s)
        start_s = time.perf_counter()
        for each in range(count):
            passing.create_task(weather.pass_by(each, sample_s))
            samples.append(await take_sample(load, served.pid, per_s, sample_s, start_s))
            lab.report(sample_text(samples[-1]))
        await load.rest()
    return per_s, samples


async def take_sample(load: Load, pid: int, per_s: float, seconds: float, start_s: float) -> Sample:
    its_s = cpu_s(pid)
    interval = await load.arrive(per_s, seconds)
    cpu_us = (cpu_s(pid) - its_s) / max(1, interval.statuses.total()) * 1e6
    return Sample(time.perf_counter() - start_s, private_kb(pid) / 1_000, sockets(pid), threads(pid), cpu_us, interval)


def sample_text(sample: Sample) -> str:
    interval = sample.interval
    return (
        f"soak: {sample.at_s / 60:.1f} min, {sample.memory_mb:.1f} MB, {sample.sockets.total()} sockets,"
        f" p50 {interval.at(0.5):.1f} ms, p99 {interval.at(0.99):.1f} ms, {not_200(interval)} not answered with 200"
    )


def not_200(interval: LoadInterval) -> int:
    return interval.statuses.total() - interval.answered


# The levels that must be flat, by name and unit.
LEVELS: Columns[Sample] = {
    "memory MB": lambda sample: sample.memory_mb,
    "sockets": lambda sample: sample.sockets.total(),
    "threads": lambda sample: sample.threads,
}
KEYS: Columns[Sample] = {
    "soak.p50_ms": lambda sample: sample.interval.at(0.5),
    "soak.p99_ms": lambda sample: sample.interval.at(0.99),
    "soak.cpu_us": lambda sample: sample.cpu_us,
}


def finding(lab: Lab, per_s: float, samples: Sequence[Sample], invalidations: int) -> Finding:
    settled = samples[-round(SETTLED * len(samples)) :]
    at_s = [each.at_s for each in settled]
    trends = {name: Trend.of(at_s, list(map(level, settled))) for name, level in LEVELS.items()}
    flat = Figure.of(float(all(trend.flat for trend in trends.values())))
    return Finding(
        "Ten minutes at half of the peak",
        key={
            **({} if lab.quick else {"soak.flat": flat}),
            "soak.rss_slope_mb_per_h": Figure.of(trends["memory MB"].per_h),
            "soak.sockets_slope": Figure.of(trends["sockets"].per_h),
            "soak.threads_slope": Figure.of(trends["threads"].per_h),
            "soak.not_200": Figure.of(sum(not_200(each.interval) for each in samples)),
            **figures(settled, KEYS),
        },
        tables=[trend_table(trends), request_table(per_s, samples)],
        drawings=list(drawings(samples)),
        notes=[
            *(["Too short for a statement about growth."] if lab.quick else []),
            *notes(samples, settled, trends, invalidations),
        ],
    )


def trend_table(trends: Mapping[str, Trend]) -> Table:
    columns: Columns[Trend] = {
        "level": lambda each: each.level,
        "per hour": lambda each: each.per_h,
        "± per hour": lambda each: each.error_per_h,
    }
    rows = [Row(name, figures([each], columns), "flat" if each.flat else "grows") for name, each in trends.items()]
    return Table("Growth", rows, "Over the last four fifths of the time. ±: the standard error of the slope.")


def request_table(per_s: float, samples: Sequence[Sample]) -> Table:
    total = LoadInterval()
    for each in samples:
        total.add(each.interval)
    columns = {
        "offered/s": Figure.of(per_s),
        "asked": Figure.of(total.statuses.total()),
        "answered": Figure.of(total.answered),
        "refused": Figure.of(total.refused),
        "failed": Figure.of(total.failed),
        "load busy": Figure.by_round(each.interval.load_busy for each in samples),
    }
    return Table("Outcomes of the requests", [Row("all", columns)])


def drawings(samples: Sequence[Sample]) -> Iterator[LineChart]:
    def chart(title: str, y_title: str, levels: Columns[Sample], *, logarithmic: bool = False) -> LineChart:
        lines = [
            Line(label, [(each.at_s / 60, Figure.of(level(each))) for each in samples], ours=position == 0)
            for position, (label, level) in enumerate(levels.items())
        ]
        return LineChart(title, "minutes", y_title, lines, y_logarithmic=logarithmic)

    ending = sorted({state for each in samples for state in each.sockets if state in ENDING})
    by_state: Columns[Sample] = {f"sockets {state}": partial(sockets_in, state) for state in ending}
    levels: Columns[Sample] = {"open sockets": LEVELS["sockets"], **by_state, "threads": LEVELS["threads"]}
    yield chart("Memory over time", "MB", {"private memory": LEVELS["memory MB"]})
    yield chart("Sockets and threads over time", "count", levels)
    latency = {"p50": KEYS["soak.p50_ms"], "p99": KEYS["soak.p99_ms"]}
    yield chart("Latency over time", "ms", latency, logarithmic=True)
    if any(not_200(each.interval) for each in samples):
        missing: Columns[Sample] = {"not 200": lambda each: not_200(each.interval)}
        yield chart("Not answered with 200", "requests in a sample", missing)


def sockets_in(state: str, sample: Sample) -> float:
    return sample.sockets[state]


def notes(
    samples: Sequence[Sample], settled: Sequence[Sample], trends: Mapping[str, Trend], invalidations: int
) -> Iterator[str]:
    for name, trend in trends.items():
        if not trend.flat:
            yield f"{name}: grows by {trend.per_h:,.3g} per hour, at a level of {trend.level:,.3g}."
        elif trend.per_h > FLAT_SHARE * trend.level:
            yield (
                f"{name}: {trend.per_h:,.3g} per hour is within the noise (± {trend.error_per_h:,.3g}); a longer run "
                "would decide."
            )
    if failed := sum(not_200(each.interval) for each in samples):
        yield f"{failed:,} of {sum(each.interval.statuses.total() for each in samples):,} were not answered with 200."
    starts = [(stuttering(each), samples[each - 1].at_s / 60) for each in range(1, len(samples))]
    stutters = ", ".join(f"{name} at {at_min:.1f} min" for name, at_min in starts if name)
    yield f"Weather: {stutters} stuttered; {invalidations} invalidations."
    if len({each.sockets[LEFT] for each in settled}) > 1:
        yield "Some samples had sockets closed by the other side; none of them may remain."
    if max(each.interval.load_busy for each in samples) > 0.8:
        yield "The load's own core was busy above 80 % in some sample: its latencies are not the service's alone."
