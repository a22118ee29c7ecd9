"""Cost and latency of a consultation by concurrency: 1 to 2,000 in flight.

The service runs on core 0, the lean upstream and a closed loop of that many connections on core 1;
every connection sends its next request after its answer. All eight sources are live. CPU is the
service's own, divided by consultations.

A closed loop shows the cost of concurrency in work. Its latency is mostly queueing: with n in
flight it is n times the latency of one. By default the service would refuse most of these long
before 2,000. So that all are served, load shedding, limiters and adaptive timeouts are off,
deadline, grace and timeouts are a minute, and any number of calls may wait for one of the 64
connections to a source. All else is as by default.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import uvloop

from benchmarks.lab.cpu_usage import CpuUsage, incomplete_note, measure_cpu, unanswered_note
from benchmarks.lab.load import open_load
from benchmarks.lab.no_limits import CONSULT, EACH
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.study_run import Lab
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table

WIDTHS = (1, 8, 64, 256, 1_000, 2_000)
QUICK_WIDTHS = WIDTHS[:4]
# Reference for the widest: enough in flight to keep the core busy.
NARROW = 8
USERS = 1_000
WARM_S = 0.4
# With more in flight each turn of all connections takes longer.
INTERVAL_S, WIDE_INTERVAL_S, WIDE = 1.2, 2.5, 1_000
QUICK_S = 0.2
QUEUE = "\nhttp1 = { queue = 100000 }"


def measure(lab: Lab) -> Finding:
    start_s = time.perf_counter()
    users = lab.count(USERS)
    with (
        pinned(LOAD_CORE),
        start_upstream(lab, users=users) as upstream,
        start_service(lab, upstream.urls, each=EACH + QUEUE, other=CONSULT) as served,
    ):
        usage_by_width = uvloop.run(measure_widths(lab, served, upstream, consultations(users)))
    return finding(usage_by_width, time.perf_counter() - start_s)


async def measure_widths(
    lab: Lab, served: Served, upstream: LeanUpstream, requests: list[bytes]
) -> dict[int, list[CpuUsage]]:
    widths = QUICK_WIDTHS if lab.quick else WIDTHS
    usages: dict[int, list[CpuUsage]] = {width: [] for width in widths}
    async with open_load(served.port, requests, connections=max(widths), check=check_consultation) as load:
        for width in widths:
            await load.closed(QUICK_S if lab.quick else WARM_S, width=width)
        for turn in range(lab.rounds):
            for width, rounds in usages.items():
                lab.report(f"concurrency: round {turn + 1} of {lab.rounds}, {width:,} in flight")
                rounds.append(
                    await measure_cpu(load.closed(interval_s(lab, width), width=width), served.pid, upstream.pid)
                )
    return usages


def interval_s(lab: Lab, width: int) -> float:
    if lab.quick:
        return QUICK_S
    return INTERVAL_S if width < WIDE else WIDE_INTERVAL_S


def finding(usage_by_width: Mapping[int, list[CpuUsage]], seconds: float) -> Finding:
    figures = {width: columns(rounds) for width, rounds in usage_by_width.items()}
    key = {
        f"concurrency.{name}.{width}": each[column]
        for width, each in figures.items()
        for name, column in (
            ("cpu_us", "CPU µs"),
            ("per_s", "consultations/s"),
            ("p50_ms", "p50 ms"),
            ("p99_ms", "p99 ms"),
        )
    }
    narrow, wide = figures[NARROW]["CPU µs"], figures[max(figures)]["CPU µs"]
    return Finding(
        "concurrency",
        "One to two thousand consultations in flight",
        (__doc__ or "").strip(),
        seconds,
        key={**key, "concurrency.cpu_ratio": wide.over(narrow)},
        tables=[
            Table(
                "By consultations in flight",
                [Row(f"{width:,} in flight", each) for width, each in figures.items()],
                "Latency in a closed loop is mostly queueing.",
            )
        ],
        drawings=[
            drawing("CPU of a consultation by consultations in flight", "CPU µs", {"CPU": "CPU µs"}, figures),
            drawing(
                "Throughput by consultations in flight", "consultations/s", {"answered": "consultations/s"}, figures
            ),
            drawing(
                "Latency by consultations in flight, closed loop",
                "ms",
                {"p50": "p50 ms", "p99": "p99 ms"},
                figures,
                logarithmic=True,
            ),
        ],
        notes=list(notes(usage_by_width)),
    )


def columns(rounds: list[CpuUsage]) -> dict[str, Figure]:
    return {
        "CPU µs": Figure.of(*(each.cpu_us for each in rounds)),
        "consultations/s": Figure.of(*(each.interval.per_s for each in rounds)),
        "p50 ms": Figure.of(*(each.interval.at(0.5) for each in rounds)),
        "p99 ms": Figure.of(*(each.interval.at(0.99) for each in rounds)),
        "service busy": Figure.of(*(each.program_busy for each in rounds)),
        "upstream and load busy": Figure.of(*(each.load_core_busy for each in rounds)),
    }


def drawing(
    title: str,
    y_title: str,
    lines: Mapping[str, str],
    figures: Mapping[int, Mapping[str, Figure]],
    *,
    logarithmic: bool = False,
) -> LineChart:
    return LineChart(
        title,
        "consultations in flight",
        y_title,
        [
            Line(label, [(float(width), each[column]) for width, each in figures.items()], ours=position == 0)
            for position, (label, column) in enumerate(lines.items())
        ],
        x_logarithmic=True,
        y_logarithmic=logarithmic,
    )


def notes(usage_by_width: Mapping[int, list[CpuUsage]]) -> Iterator[str]:
    for width, rounds in usage_by_width.items():
        for note in (
            unanswered_note([each.interval for each in rounds]),
            incomplete_note([each.interval for each in rounds]),
        ):
            if note:
                yield f"{width:,} in flight: {note}. This row means little."
    yield (
        "An interval starts and ends with nothing in flight. At 1,000 and more, one turn of all takes about a "
        "second, so the mean in "
        "flight is lower than the row says."
    )
