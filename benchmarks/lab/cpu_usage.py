"""What a stretch of load cost the program, how busy program, upstream and load were, and in words what makes such a figure doubtful."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from benchmarks.lab.load_results import Stretch
from benchmarks.lab.process import PROGRAM_CORE, Cpu, core_so_far, cpu, cpu_s

STRANGERS = 0.1


class Spent(NamedTuple):
    """Shares of a core. `strangers`: of the program's core, neither the program nor idle: other programs, interrupts, the host."""

    stretch: Stretch
    program: Cpu
    program_busy: float
    upstream_busy: float
    strangers: float

    @property
    def other_busy(self) -> float:
        """Of the load's core."""
        return self.upstream_busy + self.stretch.load_busy

    @property
    def cpu_us(self) -> float:
        """For each consultation answered."""
        return self.program.both_s / self.stretch.answered * 1e6

    @property
    def user_us(self) -> float:
        return self.program.user_s / self.stretch.answered * 1e6

    @property
    def system_us(self) -> float:
        return self.program.system_s / self.stretch.answered * 1e6


async def spent(run: Awaitable[Stretch], program: int, upstream: int) -> Spent:
    """Awaits a stretch of load. `program`, `upstream`: the processes. Raises `RuntimeError` where nobody was answered."""
    before, core, upstream_s, began_s = cpu(program), core_so_far(PROGRAM_CORE), cpu_s(upstream), time.perf_counter()
    stretch = await run
    after, core_after, lasted_s = cpu(program), core_so_far(PROGRAM_CORE), time.perf_counter() - began_s
    if not stretch.answered:
        raise RuntimeError(f"nobody was answered: {stretch!r}")
    used = Cpu(after.user_s - before.user_s, after.system_s - before.system_s)
    taken_s = sum(core_after) - sum(core) - used.both_s
    return Spent(
        stretch, used, used.both_s / lasted_s, (cpu_s(upstream) - upstream_s) / lasted_s, max(0.0, taken_s / lasted_s)
    )


def together(slices: Sequence[Spent]) -> Spent:
    """Slices of one program as if they were one stretch."""
    whole = Stretch()
    for each in slices:
        whole.add(each.stretch)

    def share(name: str) -> float:
        return sum(float(getattr(each, name)) * each.stretch.seconds for each in slices) / whole.seconds

    used = Cpu(sum(each.program.user_s for each in slices), sum(each.program.system_s for each in slices))
    return Spent(whole, used, share("program_busy"), share("upstream_busy"), share("strangers"))


def disturbed(rounds: Sequence[Spent]) -> str | None:
    """In words, where others took more of the program's core than a quiet machine's do; None where they did not."""
    most = max(each.strangers for each in rounds)
    if most <= STRANGERS:
        return None
    return f"other programs, interrupts or the host took up to {most:.0%} of its core: latencies are partly theirs, CPU is dearer"


def unanswered(stretches: Sequence[Stretch]) -> str | None:
    """In words, where some were not answered with 200; None where all were."""
    total = sum(each.statuses.total() for each in stretches)
    missing = total - sum(each.answered for each in stretches)
    return f"{missing:,} of {total:,} were not answered with 200" if missing else None


def lacking(stretches: Sequence[Stretch]) -> str | None:
    """In words, where some of the answers that were looked at did not hold what they must; None where all did."""
    wrong = [said for each in stretches for said in each.wrong]
    if not wrong:
        return None
    looked_at = sum(each.looked_at for each in stretches)
    return f"{len(wrong):,} of {looked_at:,} answers looked at were not whole, such as one {wrong[0]}"
