"""Load shedding, with given lags and on a simulated event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.fanout.load_shedding import (
    HIGHEST,
    LOWEST,
    TICK_MS,
    AdmissionRate,
    DegradationLadder,
    ShedSettings,
    shed_faults,
)
from tests.fanout.simulated_event_loop import SimulatedCaller, SimulatedEventLoop

MS_NS = 1_000_000
COST_MS = 0.8
CAPACITY_PER_S = 1000 / COST_MS
DEADLINE_MS = 150
OVERLOAD_MS = (1_000, 5_000)
END_MS = 7_000
STARVED_MS = 1_500
# A tick, and a quarter of the mark: work counts fourfold at most.
LITTLE_WORK_MS = TICK_MS + 1.2
MIX = (2, 1, 1, 1, 0)


class StarvedTick(NamedTuple):
    """A late tick. `cpu_ms`: CPU time since the last one.

    `delayed`: the share of the rest that the run queue accounts for; None if unknown.
    """

    lag_ms: float
    cpu_ms: float
    delayed: float | None


DELAYED = st.none() | st.floats(0, 1)


class LadderRig:
    """A ladder that receives one tick after another, by default with a caller answered in each."""

    def __init__(self, settings: ShedSettings | None = None) -> None:
        self.ladder = DegradationLadder(settings)
        self.now_ns = 0

    def ticks(self, count: int, lag_ms: float, answered: int = 1) -> DegradationLadder:
        for _ in range(count):
            self.now_ns += round((self.ladder.tick_ms + lag_ms) * MS_NS)
            self.ladder.answered += answered
            self.ladder.tick(lag_ms, self.now_ns)
        return self.ladder

    def until(self, done: Callable[[DegradationLadder], bool], lag_ms: float) -> float:
        """Return the ms of such ticks until the condition holds."""
        began_ns = self.now_ns
        while not done(self.ladder):
            self.ticks(1, lag_ms)
            assert self.now_ns - began_ns < 10_000 * MS_NS, self.ladder
        return (self.now_ns - began_ns) / MS_NS

    def starved_ticks(self, ticks: Sequence[StarvedTick]) -> Iterator[DegradationLadder]:
        for tick in ticks:
            self.ladder.answered += 1
            passed_ms = self.ladder.tick_ms + tick.lag_ms
            self.now_ns += round(passed_ms * MS_NS)
            off_cpu_ms = passed_ms - min(passed_ms, tick.cpu_ms)
            delay_ms = None if tick.delayed is None else tick.delayed * off_cpu_ms
            self.ladder.tick(tick.lag_ms, self.now_ns, off_cpu_ms, delay_ms)
            yield self.ladder


class RecordingLadder(DegradationLadder):
    """Records what its ticks decided."""

    def __init__(self) -> None:
        super().__init__()
        self.rungs: set[str] = set()

    def tick(self, lag_ms: float, now_ns: int, off_cpu_ms: float = 0.0, run_delay_ms: float | None = None) -> None:
        super().tick(lag_ms, now_ns, off_cpu_ms, run_delay_ms)
        self.rungs.add("clear" if self.hedging and not self.dim_share and not self.serve_stale else repr(self))


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


def waits_ms(called: Sequence[SimulatedCaller], *, admitted: bool) -> list[float]:
    return [each.waited_ms for each in called if each.admitted is admitted]


def served(called: Sequence[SimulatedCaller], priority: int) -> float:
    those = [each for each in called if each.priority == priority]
    return sum(each.admitted and each.waited_ms <= DEADLINE_MS for each in those) / len(those)


def overloaded(
    times: float, *, settings: ShedSettings | None = None, stalls: Sequence[tuple[float, float]] = (), seed: int = 1
) -> SimulatedEventLoop:
    """Half of the capacity, then `factor` times the capacity, then half of it again."""

    def per_s(now_ms: float) -> float:
        return CAPACITY_PER_S * (times if OVERLOAD_MS[0] <= now_ms < OVERLOAD_MS[1] else 0.5)

    loop = SimulatedEventLoop(
        DegradationLadder(settings),
        per_s,
        most_per_s=CAPACITY_PER_S * max(times, 0.5),
        cost_ms=COST_MS,
        priorities=MIX,
        stalls=stalls,
        seed=seed,
    )
    loop.run(END_MS)
    return loop


def test_without_lag_nothing_is_shed() -> None:
    ladder = LadderRig().ticks(1_000, 1.0)
    assert (ladder.hedging, ladder.serve_stale, ladder.refusing, ladder.dim_share) == (True, False, False, 0.0)
    assert not ladder.dims_call()


@given(lags_ms=st.lists(st.floats(0, 500), max_size=40))
def test_lag_without_callers_refuses_none(lags_ms: list[float]) -> None:
    """A start: work that no caller has caused."""
    rig = LadderRig()
    for lag_ms in lags_ms:
        assert not rig.ticks(1, lag_ms, answered=0).refusing


def test_the_rungs_of_the_ladder_apply_in_order() -> None:
    settings = ShedSettings(dim_lag_ms=5, refuse_lag_ms=20)
    mild = LadderRig(settings).ticks(200, 6)
    assert (mild.hedging, mild.serve_stale, mild.refusing) == (False, False, False)
    assert mild.dim_share > 0
    more = LadderRig(settings).ticks(200, 11)
    assert (more.hedging, more.dim_share, more.serve_stale, more.refusing) == (False, 1.0, True, False)
    most = LadderRig(settings).ticks(200, 21)
    assert (most.hedging, most.dim_share, most.serve_stale, most.refusing) == (False, 1.0, True, True)


@pytest.mark.parametrize("stall_ms", [30, 300, 3_000])
def test_one_slow_callback_changes_nothing(stall_ms: float) -> None:
    rig = LadderRig()
    rig.ticks(20, 0.0)
    rig.ticks(1, stall_ms)
    assert rig.ladder.hedging
    rig.ticks(1, stall_ms / 2)  # its backlog
    assert rig.ladder.hedging
    assert not rig.ladder.refusing


def test_two_late_ticks_refuse_unless_the_lag_falls_and_three_refuse_anyway() -> None:
    growing = LadderRig()
    assert not growing.ticks(1, 30).refusing
    assert growing.ticks(1, 31).refusing
    shrinking = LadderRig()
    shrinking.ticks(1, 31)
    assert not shrinking.ticks(1, 30).refusing
    assert shrinking.ticks(1, 29).refusing


@pytest.mark.moves("cashier_shed_total")
def test_dimming_leaves_out_exactly_its_share_evenly_spread() -> None:
    ladder = DegradationLadder()
    ladder.dim_share = 0.3
    left_out = [ladder.dims_call() for _ in range(1_000)]
    assert sum(left_out) == ladder.dimmed.value == pytest.approx(300, abs=1)
    assert all(sum(left_out[at : at + 10]) in (2, 3, 4) for at in range(990))


def test_dimming_is_full_within_half_a_second_and_gone_within_three() -> None:
    rig = LadderRig()
    assert rig.until(lambda ladder: ladder.dim_share == 1, 10) < 500
    assert 500 < rig.until(lambda ladder: not ladder.dim_share, 0) < 3_000


def test_dimming_settles_at_the_share_that_the_loop_needs() -> None:
    rig = LadderRig()
    rig.ticks(20, 10)
    for _ in range(2_000):
        # The lag falls with the dimmed share: it is at the mark with half.
        rig.ticks(1, 10 * (1 - rig.ladder.dim_share))
    assert rig.ladder.dim_share == pytest.approx(0.5, abs=0.05)


def test_while_callers_are_refused_optional_work_stays_off() -> None:
    rig = LadderRig()
    rig.ticks(5, 30)
    ladder = rig.ticks(5, 0.0)
    assert ladder.refusing
    assert (ladder.hedging, ladder.serve_stale) == (False, True)


@pytest.mark.moves("cashier_shed_total")
def test_refusing_ends_half_a_second_after_the_last_refusal() -> None:
    rig = LadderRig()
    rig.ticks(10, 30)
    while rig.ladder.admits(LOWEST, rig.now_ns):
        pass
    assert 450 < rig.until(lambda ladder: not ladder.refusing, 0.0) < 600
    assert all(rig.ladder.admits(LOWEST, rig.now_ns) for _ in range(10_000))
    assert [each.value for each in rig.ladder.refused] == [1, 0, 0, 0]


def test_admission_follows_its_rate_with_a_small_burst() -> None:
    admission = AdmissionRate(1_000, ShedSettings(), 0)
    admitted = sum(admission.admits(HIGHEST, now_ns) for now_ns in range(0, 2_000_000_000, 100_000))
    assert admitted == pytest.approx(2_000, rel=0.02)
    assert sum(admission.admits(HIGHEST, 10_000_000_000) for _ in range(1_000)) < 50


def test_each_priority_leaves_tokens_to_those_above_it() -> None:
    admission = AdmissionRate(1_000, ShedSettings(), 0)
    depths = [
        sum(admission.admits(priority, 1_000_000_000) for _ in range(100)) for priority in range(LOWEST, HIGHEST + 1)
    ]
    assert all(depth >= 3 for depth in depths), depths


@pytest.mark.parametrize("lag_ms", [5.0, 50.0, 5_000.0])
def test_some_callers_are_admitted_at_any_lag(lag_ms: float) -> None:
    rig = LadderRig()
    rig.ticks(10, 100)
    for _ in range(2_000):
        rig.ticks(1, lag_ms)
        if rig.ladder.admits(HIGHEST, rig.now_ns):
            rig.ladder.answered += 1
    before = rig.ladder.answered
    while rig.ladder.answered == before:
        rig.ticks(1, lag_ms)
        rig.ladder.answered += rig.ladder.admits(HIGHEST, rig.now_ns)


def test_at_three_times_the_load_goodput_stays_near_the_peak() -> None:
    loop = overloaded(3)
    steady = loop.between(OVERLOAD_MS[0] + 500, OVERLOAD_MS[1])
    good = [wait for wait in waits_ms(steady, admitted=True) if wait <= DEADLINE_MS]
    # Two refusals cost 0.04 ms per 0.8 ms of work: at most 95 % of the capacity remains.
    assert len(good) / (OVERLOAD_MS[1] - OVERLOAD_MS[0] - 500) * 1000 > 0.92 * CAPACITY_PER_S
    assert quantile(waits_ms(steady, admitted=True), 0.99) < DEADLINE_MS
    assert quantile(waits_ms(steady, admitted=False), 0.5) < 6
    assert quantile(waits_ms(steady, admitted=False), 0.99) < 15


def test_without_shedding_the_same_load_collapses_goodput() -> None:
    loop = overloaded(3, settings=ShedSettings(refuse_lag_ms=5_000))
    steady = loop.between(OVERLOAD_MS[0] + 500, OVERLOAD_MS[1])
    assert sum(each.waited_ms <= DEADLINE_MS for each in steady) < len(steady) / 20


def test_no_admitted_caller_ever_waits_longer_than_two_deadlines() -> None:
    loop = overloaded(3)
    assert quantile(waits_ms(loop.between(0, END_MS), admitted=True), 0.99) < 2 * DEADLINE_MS


def test_high_priorities_are_hardly_affected() -> None:
    steady = overloaded(3).between(OVERLOAD_MS[0] + 500, OVERLOAD_MS[1])
    assert served(steady, 2) > 0.97
    assert served(steady, 2) > served(steady, 1) > served(steady, 0)


@pytest.mark.parametrize("times", [1.1, 1.5, 3, 10])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_refusing_ends_with_the_overload(times: float, seed: int) -> None:
    loop = overloaded(times, seed=seed)
    after = loop.between(OVERLOAD_MS[1] + 500, END_MS)
    assert all(each.admitted for each in after)
    assert quantile(waits_ms(after, admitted=True), 0.99) < 30
    assert not loop.ladder.refusing
    assert loop.ladder.hedging
    assert not loop.ladder.serve_stale


def test_few_callers_are_refused_at_a_load_that_fits() -> None:
    loop = overloaded(1.1)
    steady = loop.between(OVERLOAD_MS[0] + 1_000, OVERLOAD_MS[1])
    assert len(waits_ms(steady, admitted=False)) < 0.2 * len(steady)


def test_repeated_stalls_of_the_machine_cost_little_more_than_the_stalls() -> None:
    stalls = [(at_ms, 60.0) for at_ms in range(1_500, 5_000, 700)]
    loop = overloaded(3, stalls=stalls)
    steady = loop.between(OVERLOAD_MS[0] + 500, OVERLOAD_MS[1])
    left = 1 - 60 / 700
    good = sum(wait <= DEADLINE_MS for wait in waits_ms(steady, admitted=True))
    assert good / (OVERLOAD_MS[1] - OVERLOAD_MS[0] - 500) * 1000 > 0.85 * left * CAPACITY_PER_S


def test_if_other_processes_use_the_core_the_rest_of_it_is_used() -> None:
    """The loop is late even without callers, and refusing all of them would not help."""
    loop = overloaded(3, stalls=[(at_ms, 4.0) for at_ms in range(0, END_MS, 8)])
    steady = loop.between(OVERLOAD_MS[0] + 1_000, OVERLOAD_MS[1])
    good = sum(wait <= DEADLINE_MS for wait in waits_ms(steady, admitted=True))
    assert good / (OVERLOAD_MS[1] - OVERLOAD_MS[0] - 1_000) * 1000 > 0.8 * 0.5 * CAPACITY_PER_S


def test_a_stall_at_half_load_causes_no_refusals() -> None:
    loop = overloaded(0.5, stalls=[(at_ms, 30.0) for at_ms in range(1_000, 7_000, 500)])
    assert all(each.admitted for each in loop.called)


def test_the_capacity_may_change_while_callers_are_refused() -> None:
    """The cost per caller triples, and falls again."""
    loop = SimulatedEventLoop(
        DegradationLadder(), lambda _: 3 * CAPACITY_PER_S, most_per_s=3 * CAPACITY_PER_S, cost_ms=COST_MS
    )
    loop.run(2_000)
    loop.cost_ms = 3 * COST_MS
    loop.run(5_000)
    dear = loop.between(3_500, 4_800)
    assert sum(wait <= DEADLINE_MS for wait in waits_ms(dear, admitted=True)) / 1.3 > 0.75 * CAPACITY_PER_S / 3
    loop.cost_ms = COST_MS
    loop.run(8_000)
    cheap = loop.between(6_500, 7_800)
    assert sum(wait <= DEADLINE_MS for wait in waits_ms(cheap, admitted=True)) / 1.3 > 0.85 * CAPACITY_PER_S


@given(
    st.lists(
        st.builds(StarvedTick, st.floats(0, 60_000), st.floats(0, LITTLE_WORK_MS), DELAYED),
        max_size=60,
    )
)
def test_a_late_loop_with_little_work_sheds_nothing_whatever_the_lag(ticks: list[StarvedTick]) -> None:
    """Other programs, quotas, stolen time, a suspended machine, a call that blocks."""
    for ladder in LadderRig().starved_ticks(ticks):
        assert (ladder.hedging, ladder.serve_stale, ladder.refusing, ladder.dim_share) == (True, False, False, 0.0)


@given(
    st.lists(st.tuples(st.floats(26, 500), st.floats(0, 2_000), DELAYED), min_size=3, max_size=30),
)
def test_own_work_is_shed_by_the_third_tick_whatever_else_delays_the_loop(
    work: list[tuple[float, float, float | None]],
) -> None:
    ticks = [StarvedTick(cpu_ms - TICK_MS + away_ms, cpu_ms, delayed) for cpu_ms, away_ms, delayed in work]
    for count, ladder in enumerate(LadderRig().starved_ticks(ticks), 1):
        assert ladder.refusing or count < 3


@pytest.mark.parametrize("queued_ms", [0.0, 0.5])
@pytest.mark.parametrize("delayed", [None, 0.0, 1.0])
def test_a_blocked_loop_counts_only_while_callers_queue_and_the_run_queue_was_not_the_cause(
    queued_ms: float, delayed: float | None
) -> None:
    rig = LadderRig()
    rig.ladder.queued_ms = queued_ms
    *_, ladder = rig.starved_ticks([StarvedTick(100, 1, delayed)] * 5)
    assert ladder.refusing is (queued_ms > 0 and delayed == 0)
    assert ladder.starved is not ladder.refusing


def test_the_same_work_is_shed_sooner_if_the_machine_is_starved_too() -> None:
    """Twelve ms of CPU time per tick take four times as long there."""
    calm, starved = LadderRig(), LadderRig()
    *_, ladder = calm.starved_ticks([StarvedTick(7, 12, 0.0)] * 20)
    assert not ladder.refusing
    *_, ladder = starved.starved_ticks([StarvedTick(43, 12, 1.0)] * 20)
    assert ladder.refusing


def starved_loop(
    share: float, period_ms: float, load: Sequence[float], *, run_delay_known: bool, seed: int = 1
) -> tuple[SimulatedEventLoop, RecordingLadder]:
    """Others have the core except for `share` of each period.

    `load`: in each interval of STARVED_MS; 1 is all that the share allows.
    """
    random, at_ms, stalls, until_ms = Random(seed), 0.0, list[tuple[float, float]](), STARVED_MS * len(load)
    while at_ms < until_ms:
        ours_ms, theirs_ms = (part * period_ms * random.uniform(0.7, 1.3) for part in (share, 1 - share))
        stalls.append((at_ms + ours_ms, theirs_ms))
        at_ms += ours_ms + theirs_ms
    ladder = RecordingLadder()
    loop = SimulatedEventLoop(
        ladder,
        lambda now_ms: CAPACITY_PER_S * share * load[min(len(load) - 1, int(now_ms / STARVED_MS))],
        most_per_s=CAPACITY_PER_S * share * max(load),
        cost_ms=COST_MS,
        stalls=stalls,
        run_delay_known=run_delay_known,
        seed=seed,
    )
    loop.run(until_ms)
    return loop, ladder


@given(st.floats(0.1, 0.9), st.floats(8, 200), st.floats(0.05, 0.3), st.booleans(), st.integers(0, 99))
def test_a_starved_loop_that_keeps_up_with_its_callers_sheds_nothing(
    share: float, period_ms: float, load: float, run_delay_known: bool, seed: int
) -> None:
    loop, ladder = starved_loop(share, period_ms, [load], run_delay_known=run_delay_known, seed=seed)
    assert all(each.admitted for each in loop.called)
    assert ladder.rungs <= {"clear"}


@pytest.mark.parametrize("share", [0.4, 0.7])
@pytest.mark.parametrize("period_ms", [8, 30])
@pytest.mark.parametrize("run_delay_known", [False, True])
def test_a_starved_loop_that_is_overloaded_too_uses_the_share_that_it_has(
    share: float, period_ms: float, run_delay_known: bool
) -> None:
    loop, _ = starved_loop(share, period_ms, (0.4, 3, 3, 0.4), run_delay_known=run_delay_known)
    overload = loop.between(STARVED_MS, 3 * STARVED_MS)
    first_refused_ms = min(each.at_ms for each in overload if not each.admitted)
    assert first_refused_ms < STARVED_MS + 300
    steady = loop.between(STARVED_MS + 500, 3 * STARVED_MS)
    assert len(waits_ms(steady, admitted=False)) > len(steady) / 2
    good = sum(wait <= DEADLINE_MS for wait in waits_ms(steady, admitted=True))
    assert good / (2 * STARVED_MS - 500) * 1000 > 0.6 * share * CAPACITY_PER_S
    assert all(each.admitted for each in loop.between(3 * STARVED_MS + 700, 4 * STARVED_MS))


def test_marks_too_close_together_are_a_fault() -> None:
    assert shed_faults(ShedSettings()) == ()
    assert "refuse_lag_ms" in shed_faults(ShedSettings(dim_lag_ms=20, refuse_lag_ms=30))[0]
