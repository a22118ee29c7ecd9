"""CPU of the program during an interval of load, how busy the others were, and doubts as text."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from benchmarks.lab.load_results import LoadInterval
from benchmarks.lab.process import PROGRAM_CORE, CpuTime, core_time, cpu_s, cpu_time

# Shares of a core above which the figures mean less: of other programs, and of load and upstream.
OTHERS_LIMIT, CROWDED = 0.1, 0.9


class CpuUsage(NamedTuple):
    """Shares of a core. `others_busy`: of the program's core, by other programs, interrupts, the
    host.
    """

    interval: LoadInterval
    program: CpuTime
    program_busy: float
    upstream_busy: float
    others_busy: float

    @property
    def load_core_busy(self) -> float:
        """Share of the load's core."""
        return self.upstream_busy + self.interval.load_busy

    @property
    def cpu_us(self) -> float:
        """For each answered consultation."""
        return self.program.both_s / self.interval.answered * 1e6

    @property
    def user_us(self) -> float:
        return self.program.user_s / self.interval.answered * 1e6

    @property
    def system_us(self) -> float:
        return self.program.system_s / self.interval.answered * 1e6


async def measure_cpu(run: Awaitable[LoadInterval], program: int, upstream: int) -> CpuUsage:
    """Await an interval of load. `program`, `upstream`: process ids.

    Raises `RuntimeError` if no request was answered.
    """
    before, core, upstream_s, start_s = cpu_time(program), core_time(PROGRAM_CORE), cpu_s(upstream), time.perf_counter()
    interval = await run
    after, core_after, lasted_s = cpu_time(program), core_time(PROGRAM_CORE), time.perf_counter() - start_s
    if not interval.answered:
        raise RuntimeError(f"no request was answered: {interval!r}")
    used = CpuTime(after.user_s - before.user_s, after.system_s - before.system_s)
    taken_s = sum(core_after) - sum(core) - used.both_s
    return CpuUsage(
        interval, used, used.both_s / lasted_s, (cpu_s(upstream) - upstream_s) / lasted_s, max(0.0, taken_s / lasted_s)
    )


def combine(slices: Sequence[CpuUsage]) -> CpuUsage:
    """Join slices of one program into one interval."""
    total = LoadInterval()
    for usage in slices:
        total.add(usage.interval)

    def share(name: str) -> float:
        return sum(float(getattr(usage, name)) * usage.interval.seconds for usage in slices) / total.seconds

    used = CpuTime(sum(usage.program.user_s for usage in slices), sum(usage.program.system_s for usage in slices))
    return CpuUsage(total, used, share("program_busy"), share("upstream_busy"), share("others_busy"))


def doubts(title: str, usages: Sequence[CpuUsage]) -> list[str]:
    """Notes on unanswered requests, incomplete answers, and cores that others have used."""
    texts = interval_doubts(title, [usage.interval for usage in usages])
    others, crowd = max(usage.others_busy for usage in usages), max(usage.load_core_busy for usage in usages)
    if others > OTHERS_LIMIT:
        took = f"other programs, interrupts or the host took up to {others:.0%} of its core"
        texts.append(f"{title}: {took}, which raises latency and CPU.")
    if crowd > CROWDED:
        took = f"load and upstream took up to {crowd:.0%} of their core"
        texts.append(f"{title}: {took}. CPU is valid, rate and latency are limited by them.")
    return texts


def interval_doubts(title: str, intervals: Sequence[LoadInterval]) -> list[str]:
    """Notes on requests that were not answered with 200, and on incomplete answers."""
    total = sum(interval.statuses.total() for interval in intervals)
    missing = total - sum(interval.answered for interval in intervals)
    texts = [f"{title}: {missing:,} of {total:,} were not answered with 200."] if missing else []
    if wrong := incomplete(intervals):
        looked_at = sum(interval.looked_at for interval in intervals)
        example = f"for example one {wrong[0]}"
        texts.append(f"{title}: {len(wrong):,} of {looked_at:,} checked answers were incomplete, {example}.")
    return texts


def incomplete(intervals: Sequence[LoadInterval]) -> list[str]:
    """The problems of the answers that were checked."""
    return [problem for interval in intervals for problem in interval.wrong]
