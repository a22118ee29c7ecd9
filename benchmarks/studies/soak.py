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
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import uvloop

from benchmarks.lab.load import Load, open_load
from benchmarks.lab.load_results import OK, LoadInterval
from benchmarks.lab.process import LOAD_CORE, cpu_s, pinned
from benchmarks.lab.process_resources import ENDING, LEFT, private_kb, sockets, threads
from benchmarks.lab.requests import consultations
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.study_run import Lab
from benchmarks.lab.trend import FLAT_SHARE, Trend
from benchmarks.lab.upstream import start_upstream
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table
from benchmarks.studies.soak_weather import Weather, stuttering

USERS = 2_000
CONNECTIONS = 128
SAMPLES, SAMPLE_S = 60, 10.0
QUICK_SAMPLES, QUICK_SAMPLE_S = 15, 0.4
# The share of samples that counts, the last ones: by then caches are full and statistics learned.
SETTLED = 0.8
PEAK_S, HALF = 3.0, 0.5


class Sample(NamedTuple):
    """`at_s`: since the start. Resources at this moment, and outcomes since the last sample."""

    at_s: float
    memory_mb: float
    sockets: Counter[str]
    threads: int
    cpu_us: float
    interval: LoadInterval


def measure(lab: Lab) -> Finding:
    start_s = time.perf_counter()
    users = lab.count(USERS)
    with (
        pinned(LOAD_CORE),
        start_upstream(lab, users=users) as upstream,
        start_service(lab, upstream.urls, cached=True, shed=True) as served,
    ):
        weather = Weather(upstream, served.port, users)
        per_s, samples = uvloop.run(measure_samples(lab, served, weather, consultations(users)))
    return finding(lab, per_s, samples, weather.invalidations, time.perf_counter() - start_s)


async def measure_samples(
    lab: Lab, served: Served, weather: Weather, requests: Sequence[bytes]
) -> tuple[float, list[Sample]]:
    await weather.clear()
    async with open_load(served.port, requests) as load:
        await load.closed(lab.seconds(PEAK_S))
        per_s = HALF * (await load.closed(lab.seconds(PEAK_S))).per_s
    count, sample_s = (QUICK_SAMPLES, QUICK_SAMPLE_S) if lab.quick else (SAMPLES, SAMPLE_S)
    samples: list[Sample] = []
    async with (
        open_load(served.port, requests, connections=CONNECTIONS, seed=2) as load,
        asyncio.TaskGroup() as passing,
    ):
        await weather.everywhere()
        await load.arrive(per_s, 2 * sample_s)
        await weather.clear()
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
LEVELS: Mapping[str, Callable[[Sample], float]] = {
    "memory MB": lambda sample: sample.memory_mb,
    "sockets": lambda sample: sample.sockets.total(),
    "threads": lambda sample: sample.threads,
}


def finding(lab: Lab, per_s: float, samples: Sequence[Sample], invalidations: int, seconds: float) -> Finding:
    settled = samples[-round(SETTLED * len(samples)) :]
    trends = {name: Trend.of([(each.at_s, level(each)) for each in settled]) for name, level in LEVELS.items()}
    return Finding(
        "soak",
        "Ten minutes at half of the peak",
        (__doc__ or "").strip(),
        seconds,
        key={
            **({} if lab.quick else {"soak.flat": Figure.of(float(all(trend.flat for trend in trends.values())))}),
            "soak.rss_slope_mb_per_h": Figure.of(trends["memory MB"].per_h),
            "soak.sockets_slope": Figure.of(trends["sockets"].per_h),
            "soak.threads_slope": Figure.of(trends["threads"].per_h),
            "soak.not_200": Figure.of(sum(not_200(each.interval) for each in samples)),
            "soak.p50_ms": Figure.of(*(each.interval.at(0.5) for each in settled)),
            "soak.p99_ms": Figure.of(*(each.interval.at(0.99) for each in settled)),
            "soak.cpu_us": Figure.of(*(each.cpu_us for each in settled)),
        },
        tables=[trend_table(trends), request_table(per_s, samples)],
        drawings=list(drawings(samples)),
        notes=[
            *(["Too short for a statement about growth."] if lab.quick else []),
            *notes(samples, settled, trends, invalidations),
        ],
    )


def trend_table(trends: Mapping[str, Trend]) -> Table:
    rows = [
        Row(
            name,
            {
                "level": Figure.of(each.level),
                "per hour": Figure.of(each.per_h),
                "± per hour": Figure.of(each.error_per_h),
            },
            "flat" if each.flat else "grows",
        )
        for name, each in trends.items()
    ]
    return Table("Growth", rows, "Over the last four fifths of the time. ±: the standard error of the slope.")


def request_table(per_s: float, samples: Sequence[Sample]) -> Table:
    statuses: Counter[int] = Counter()
    for each in samples:
        statuses.update(each.interval.statuses)
    figures = {
        "offered/s": Figure.of(per_s),
        "asked": Figure.of(statuses.total()),
        "answered": Figure.of(statuses[OK]),
        "refused": Figure.of(sum(each.interval.refused for each in samples)),
        "failed": Figure.of(sum(each.interval.failed for each in samples)),
        "load busy": Figure.of(*(each.interval.load_busy for each in samples)),
    }
    return Table("Outcomes of the requests", [Row("all", figures)])


def sockets_in(state: str, sample: Sample) -> float:
    return sample.sockets[state]


def drawings(samples: Sequence[Sample]) -> Iterator[LineChart]:
    def over_time(label: str, level: Callable[[Sample], float], *, ours: bool = False) -> Line:
        return Line(label, [(each.at_s / 60, Figure.of(level(each))) for each in samples], ours=ours)

    yield LineChart("Memory over time", "minutes", "MB", [over_time("private memory", LEVELS["memory MB"], ours=True)])
    ending = sorted({state for each in samples for state in each.sockets if state in ENDING})
    yield LineChart(
        "Sockets and threads over time",
        "minutes",
        "count",
        [
            over_time("open sockets", LEVELS["sockets"], ours=True),
            *(over_time(f"sockets {state}", partial(sockets_in, state)) for state in ending),
            over_time("threads", LEVELS["threads"]),
        ],
    )
    yield LineChart(
        "Latency over time",
        "minutes",
        "ms",
        [
            over_time("p50", lambda each: each.interval.at(0.5), ours=True),
            over_time("p99", lambda each: each.interval.at(0.99)),
        ],
        y_logarithmic=True,
    )
    if any(not_200(each.interval) for each in samples):
        refused = over_time("not 200", lambda each: not_200(each.interval), ours=True)
        yield LineChart("Not answered with 200", "minutes", "requests in a sample", [refused])


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
    stutters = ", ".join(
        f"{name} at {samples[each - 1].at_s / 60:.1f} min"
        for each in range(1, len(samples))
        if (name := stuttering(each))
    )
    yield f"Weather: {stutters} stuttered; {invalidations} invalidations."
    if len({each.sockets[LEFT] for each in settled}) > 1:
        yield "Some samples had sockets closed by the other side; none of them may remain."
    if max(each.interval.load_busy for each in samples) > 0.8:
        yield "The load's own core was busy above 80 % in some sample: its latencies are not the service's alone."
