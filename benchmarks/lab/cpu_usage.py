"""CPU of the program during an interval of load, how busy the others were, and doubts as text."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from benchmarks.lab.load_results import LoadInterval
from benchmarks.lab.process import PROGRAM_CORE, CpuTime, core_time, cpu_s, cpu_time

OTHERS_LIMIT = 0.1


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


def disturbance_note(rounds: Sequence[CpuUsage]) -> str | None:
    """A note if others took more of the program's core than on a quiet machine, else None."""
    most = max(usage.others_busy for usage in rounds)
    if most <= OTHERS_LIMIT:
        return None
    return f"other programs, interrupts or the host took up to {most:.0%} of its core, which raises latency and CPU"


def unanswered_note(intervals: Sequence[LoadInterval]) -> str | None:
    """A note if some requests were not answered with 200, else None."""
    total = sum(interval.statuses.total() for interval in intervals)
    missing = total - sum(interval.answered for interval in intervals)
    return f"{missing:,} of {total:,} were not answered with 200" if missing else None


def incomplete_note(intervals: Sequence[LoadInterval]) -> str | None:
    """A note if some of the checked answers were incomplete, else None."""
    wrong = [problem for interval in intervals for problem in interval.wrong]
    if not wrong:
        return None
    looked_at = sum(interval.looked_at for interval in intervals)
    return f"{len(wrong):,} of {looked_at:,} checked answers were incomplete, for example one {wrong[0]}"
