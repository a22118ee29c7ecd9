"""The timer wheel: every mark is passed in time, by one timer, and ended calls do not stay."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.fanout.latency_histogram import NEVER_NS
from cashier.fanout.timer_wheel import TimerWheel
from tests.fanout.scripted_upstream import pass_ms
from tests.support.virtual_time import MS_NS, clock_ns, run_in_virtual_time, timers_set


class Marked:
    """A call that notes when it passes its marks. `fails`: its first mark raises."""

    def __init__(self, marks_us: list[int], ends_us: int, guard: object = None, *, fails: bool = False) -> None:
        self.guard = guard
        self.started_ns = clock_ns()
        self._marks = [self.started_ns + us * 1_000 for us in sorted(marks_us)]
        self._ends_ns = self.started_ns + ends_us * 1_000
        self._fails = fails
        self.due_ns = self._marks.pop(0)
        self.due: list[int] = []
        self.passed: list[int] = []
        self.cancelled = False

    @property
    def ended(self) -> bool:
        return self.cancelled or clock_ns() >= self._ends_ns

    @property
    def expected(self) -> int:
        """How many marks are due more than a millisecond before its end."""
        return sum(due_ns < self._ends_ns - 1.01 * MS_NS for due_ns in [*self.due, self.due_ns, *self._marks])

    def pass_mark(self, now_ns: int) -> None:
        self.due.append(self.due_ns)
        self.passed.append(now_ns)
        self.due_ns = self._marks.pop(0) if self._marks else NEVER_NS
        if self._fails and len(self.passed) == 1:
            raise RuntimeError("a bug")

    def cancel_attempts(self) -> None:
        self.cancelled = True


pytestmark = pytest.mark.virtual_time

CALLS = st.lists(
    st.tuples(
        st.integers(0, 9_000),  # starts after the one before
        st.lists(st.integers(500, 60_000), min_size=1, max_size=3),
        st.integers(1, 90_000),
    ),
    min_size=1,
    max_size=30,
)


@given(calls=CALLS, coarse=st.booleans())
def test_a_call_passes_each_mark_within_a_millisecond_until_it_ends(
    calls: list[tuple[int, list[int], int]], coarse: bool
) -> None:
    async def run() -> None:
        wheel = TimerWheel(clock_ns)
        watched = []
        for after_us, marks_us, ends_us in calls:
            await pass_ms(after_us / 1_000)
            watched.append(call := Marked(marks_us, ends_us))
            wheel.watch(call, clock_ns())
            assert len(timers_set()) == 1
        await pass_ms(200)
        assert timers_set() == []
        for call in watched:
            assert len(call.passed) >= call.expected
            late_ns = [passed - due for due, passed in zip(call.due, call.passed, strict=True)]
            assert all(0 <= ns <= 1.01 * MS_NS for ns in late_ns), late_ns
        assert repr(wheel) == "<TimerWheel of 0 calls>"

    run_in_virtual_time(run(), coarse=coarse)


async def test_ended_calls_are_dropped_before_their_marks_are_due() -> None:
    wheel = TimerWheel(clock_ns)
    wheel.watch(Marked([3_600_000_000], 3_600_000_000), clock_ns())
    for _ in range(2_000):
        wheel.watch(Marked([3_600_000_000], 0), clock_ns())
        await pass_ms(1)
    assert sum(map(len, wheel._by_ms.values())) <= 256
    assert repr(wheel) == "<TimerWheel of 1 calls>"


async def test_a_bug_in_one_call_leaves_the_others_watched() -> None:
    bugs = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: bugs.append(context["exception"]))
    wheel = TimerWheel(clock_ns)
    broken, sound = Marked([1_000, 9_000], 90_000, fails=True), Marked([1_000], 90_000)
    for call in (broken, sound):
        wheel.watch(call, clock_ns())
    await pass_ms(20)
    assert [str(bug) for bug in bugs] == ["a bug"]
    assert [len(call.passed) for call in (broken, sound)] == [2, 1]


@pytest.mark.parametrize("others", [0, 3])
async def test_the_calls_of_one_source_are_cancelled_alone(others: int) -> None:
    wheel, ours, theirs = TimerWheel(clock_ns), object(), object()
    calls = [Marked([50_000], 90_000, ours), *(Marked([50_000], 90_000, theirs) for _ in range(others))]
    for call in calls:
        wheel.watch(call, clock_ns())
    wheel.cancel_calls(ours)
    assert [call.cancelled for call in calls] == [True, *[False] * others]
    assert bool(timers_set()) == bool(others)
    await pass_ms(60)
    assert [len(call.passed) for call in calls] == [0, *[1] * others]


CALLER: ContextVar[str] = ContextVar("caller", default="none")


class Noting(Marked):
    """Notes whose context its marks are passed in."""

    def __init__(self, marks_us: list[int], ends_us: int) -> None:
        super().__init__(marks_us, ends_us)
        self.callers: list[str] = []

    def pass_mark(self, now_ns: int) -> None:
        super().pass_mark(now_ns)
        self.callers.append(CALLER.get())


async def test_the_marks_of_a_call_are_passed_in_no_other_callers_context() -> None:
    wheel = TimerWheel(clock_ns)
    CALLER.set("the first")
    first = Noting([5_000, 9_000], 20_000)
    wheel.watch(first, clock_ns())
    CALLER.set("the second")
    second = Noting([7_000, 30_000], 40_000)
    wheel.watch(second, clock_ns())
    await pass_ms(50)
    assert first.callers == second.callers == ["none", "none"]
