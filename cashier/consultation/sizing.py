"""What a rate of consultations needs: processes, upstream calls, requests in flight. Pure."""

from __future__ import annotations

import math

from msgspec import Struct

from cashier.consultation.plan_report import PlanReport, SourceReportLine
from cashier.fanout.retry_budget import LEAST_PER_S

# CPU time of one consultation, in microseconds. The benchmark `cost` measures it on a machine.
CPU_US = 600
# Above it, waiting grows faster than the load.
_BUSY_BPS = 5_500


class SourceLoad(Struct, frozen=True):
    """Of one source, in requests per second over all workers.

    `usual`: when no answer is cached; fewer where a cache helps (`is_cached`). `most`: with all the
    hedges and retries that the budget allows. `in_flight`: the most at once, when each request
    takes its whole timeout; a connection each.
    """

    name: str
    usual: int
    most: int
    in_flight: int
    is_cached: bool


class Sizing(Struct, frozen=True):
    """`cores`: CPU time per second. `workers`: processes that are busy for 55 % of the time.

    `cache_operations`: of the shared cache per second, at most: a read per cached source and
    consultation, and a write per answer.
    """

    rate: int
    cores: float
    workers: int
    sources: tuple[SourceLoad, ...]
    cache_operations: int


def sizing(report: PlanReport, rate: int, cpu_us: int = CPU_US) -> Sizing:
    """`rate`: consultations per second over all workers."""
    cores = rate * cpu_us / 1e6
    workers = max(1, math.ceil(cores * 10_000 / _BUSY_BPS))
    sources = tuple(_load(line, rate, workers, report.extra_bps) for line in report.lines)
    cached = sum(source.usual + source.most for source in sources if source.is_cached)
    return Sizing(rate, cores, workers, sources, cached)


def _load(line: SourceReportLine, rate: int, workers: int, extra_bps: int) -> SourceLoad:
    extra = 0
    if line.calls > 1:
        extra = max(math.ceil(rate * extra_bps / 10_000), LEAST_PER_S * workers)
    most = rate + extra
    in_flight = math.ceil(most * line.timeout_ms / 1000)
    if line.max_in_flight is not None:
        in_flight = min(in_flight, line.max_in_flight * workers)
    return SourceLoad(line.name, rate, most, in_flight, line.cache.on)
