"""What a interval of load cost the program, how busy program, upstream and load were, and in words what makes such a figure doubtful."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from benchmarks.lab.load_results import LoadInterval
from benchmarks.lab.process import PROGRAM_CORE, CpuTime, core_time, cpu_time, cpu_s

OTHERS_LIMIT = 0.1


class CpuUsage(NamedTuple):
    """Shares of a core. `others_busy`: of the program's core, neither the program nor idle: other programs, interrupts, the host."""

    interval: LoadInterval
    program: CpuTime
    program_busy: float
    upstream_busy: float
    others_busy: float

    @property
    def load_core_busy(self) -> float:
        """Of the load's core."""
        return self.upstream_busy + self.interval.load_busy

    @property
    def cpu_us(self) -> float:
        """For each consultation answered."""
        return self.program.both_s / self.interval.answered * 1e6

    @property
    def user_us(self) -> float:
        return self.program.user_s / self.interval.answered * 1e6

    @property
    def system_us(self) -> float:
        return self.program.system_s / self.interval.answered * 1e6


async def measure_cpu(run: Awaitable[LoadInterval], program: int, upstream: int) -> CpuUsage:
    """Awaits a interval of load. `program`, `upstream`: the processes. Raises `RuntimeError` where nobody was answered."""
    before, core, upstream_s, start_s = cpu_time(program), core_time(PROGRAM_CORE), cpu_s(upstream), time.perf_counter()
    interval = await run
    after, core_after, lasted_s = cpu_time(program), core_time(PROGRAM_CORE), time.perf_counter() - start_s
    if not interval.answered:
        raise RuntimeError(f"nobody was answered: {interval!r}")
    used = CpuTime(after.user_s - before.user_s, after.system_s - before.system_s)
    taken_s = sum(core_after) - sum(core) - used.both_s
    return CpuUsage(
        interval, used, used.both_s / lasted_s, (cpu_s(upstream) - upstream_s) / lasted_s, max(0.0, taken_s / lasted_s)
    )


def combine(slices: Sequence[CpuUsage]) -> CpuUsage:
    """Slices of one program as if they were one interval."""
    total = LoadInterval()
    for each in slices:
        total.add(each.interval)

    def share(name: str) -> float:
        return sum(float(getattr(each, name)) * each.interval.seconds for each in slices) / total.seconds

    used = CpuTime(sum(each.program.user_s for each in slices), sum(each.program.system_s for each in slices))
    return CpuUsage(total, used, share("program_busy"), share("upstream_busy"), share("others_busy"))


def disturbance_note(rounds: Sequence[CpuUsage]) -> str | None:
    """In words, where others took more of the program's core than a quiet machine's do; None where they did not."""
    most = max(each.others_busy for each in rounds)
    if most <= OTHERS_LIMIT:
        return None
    return f"other programs, interrupts or the host took up to {most:.0%} of its core: latencies are partly theirs, CPU is dearer"


def unanswered_note(intervals: Sequence[LoadInterval]) -> str | None:
    """In words, where some were not answered with 200; None where all were."""
    total = sum(each.statuses.total() for each in intervals)
    missing = total - sum(each.answered for each in intervals)
    return f"{missing:,} of {total:,} were not answered with 200" if missing else None


def incomplete_note(intervals: Sequence[LoadInterval]) -> str | None:
    """In words, where some of the answers that were looked at did not hold what they must; None where all did."""
    wrong = [said for each in intervals for said in each.wrong]
    if not wrong:
        return None
    looked_at = sum(each.looked_at for each in intervals)
    return f"{len(wrong):,} of {looked_at:,} answers looked at were not total, such as one {wrong[0]}"
