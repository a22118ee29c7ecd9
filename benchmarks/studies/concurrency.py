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

from collections.abc import Iterator, Mapping

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import CpuUsage, interval_doubts, measure_cpu
from benchmarks.lab.load import open_load
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.service import CONSULT, EACH, Served, start_service
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.results import Columns, Finding, Line, LineChart, Row, Table, figures

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
COLUMNS: Columns[CpuUsage] = {
    "CPU µs": lambda each: each.cpu_us,
    "consultations/s": lambda each: each.interval.per_s,
    "p50 ms": lambda each: each.interval.at(0.5),
    "p99 ms": lambda each: each.interval.at(0.99),
    "service busy": lambda each: each.program_busy,
    "upstream and load busy": lambda each: each.load_core_busy,
}
KEYS = {"cpu_us": "CPU µs", "per_s": "consultations/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms"}


def measure(lab: Lab) -> Finding:
    users = lab.count(USERS)
    with (
        pinned(LOAD_CORE),
        start_upstream(lab, users=users) as upstream,
        start_service(lab, upstream.urls, each=EACH + QUEUE, other=CONSULT) as served,
    ):
        return finding(uvloop.run(measure_widths(lab, served, upstream, consultations(users))))


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


def finding(usage_by_width: Mapping[int, list[CpuUsage]]) -> Finding:
    by_width = {width: figures(rounds, COLUMNS) for width, rounds in usage_by_width.items()}

    def drawing(title: str, y_title: str, lines: Mapping[str, str], *, logarithmic: bool = False) -> LineChart:
        drawn = [
            Line(label, [(float(width), each[column]) for width, each in by_width.items()], ours=position == 0)
            for position, (label, column) in enumerate(lines.items())
        ]
        return LineChart(title, "consultations in flight", y_title, drawn, True, logarithmic)

    key = {
        f"concurrency.{name}.{width}": each[column] for width, each in by_width.items() for name, column in KEYS.items()
    }
    narrow, wide = by_width[NARROW]["CPU µs"], by_width[max(by_width)]["CPU µs"]
    rows = [Row(f"{width:,} in flight", each) for width, each in by_width.items()]
    answered, latency = {"answered": "consultations/s"}, {"p50": "p50 ms", "p99": "p99 ms"}
    return Finding(
        "One to two thousand consultations in flight",
        key={**key, "concurrency.cpu_ratio": wide.over(narrow)},
        tables=[Table("By consultations in flight", rows, "Latency in a closed loop is mostly queueing.")],
        drawings=[
            drawing("CPU of a consultation by consultations in flight", "CPU µs", {"CPU": "CPU µs"}),
            drawing("Throughput by consultations in flight", "consultations/s", answered),
            drawing("Latency by consultations in flight, closed loop", "ms", latency, logarithmic=True),
        ],
        notes=list(notes(usage_by_width)),
    )


def notes(usage_by_width: Mapping[int, list[CpuUsage]]) -> Iterator[str]:
    for width, rounds in usage_by_width.items():
        for doubt in interval_doubts(f"{width:,} in flight", [each.interval for each in rounds]):
            yield f"{doubt} This row means little."
    yield (
        "An interval starts and ends with nothing in flight. At 1,000 and more, one turn of all takes about a second, "
        "so the mean in flight is lower than the row says."
    )
