"""Live rate, sickness, probes and recovery of a channel."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from cashier.domain.channel_record import (
    ChannelOutcome,
    ChannelRecord,
    LearningSettings,
    SicknessSettings,
    SuccessRate,
    probe_due,
    share_ceiling_bps,
    success_rate,
    with_outcome,
    with_probe,
    with_skip,
)

WORKED, FAILED, UNSURE = ChannelOutcome.WORKED, ChannelOutcome.FAILED, ChannelOutcome.UNSURE
LEARNING, SICK = LearningSettings(), SicknessSettings()
STEPS = st.lists(st.tuples(st.sampled_from(ChannelOutcome), st.integers(0, 400)), max_size=60)


def after(
    outcomes: Iterable[ChannelOutcome], record: ChannelRecord | None = None, now_s: int = 0, every_s: int = 0
) -> ChannelRecord:
    result = record or ChannelRecord()
    for outcome in outcomes:
        result = with_outcome(result, outcome, now_s, now_s, LEARNING, SICK)
        now_s += every_s
    return result


def bps(record: ChannelRecord, now_s: int = 0) -> int:
    return success_rate(record, 9_000, now_s, LEARNING).bps


def sickened(now_s: int = 0) -> ChannelRecord:
    return after([FAILED] * SICK.failures_in_a_row, now_s=now_s)


def recovered(record: ChannelRecord, now_s: int) -> ChannelRecord:
    return after([WORKED] * SICK.well_after * record.sick_count, record, now_s)


def test_a_cold_start_uses_the_gateways_figure() -> None:
    assert success_rate(ChannelRecord(), 9_300, 1_000, LEARNING) == SuccessRate(9_300, 0)


def test_after_many_payments_the_gateways_figure_hardly_counts() -> None:
    record = after(([WORKED] * 3 + [FAILED]) * 100)
    assert 7_500 <= bps(record) <= 7_600
    # √(0.75 × 0.25 / 400) = 2.2 %
    assert 190 <= success_rate(record, 9_000, 0, LEARNING).noise_bps <= 230


def test_after_its_half_life_an_outcome_counts_half() -> None:
    record = after([WORKED, FAILED] * 10)
    decayed = ChannelRecord(good=record.good // 2, bad=record.bad // 2)
    assert bps(record, 600) == bps(decayed)
    assert bps(record, 10 * 86_400) == 9_000


def test_a_failure_without_attribution_counts_half() -> None:
    assert after([UNSURE] * 4).bad == after([FAILED] * 2).bad


def test_a_channel_is_sick_after_six_failures_in_a_row_and_not_before() -> None:
    assert not after([WORKED] * 200 + [FAILED] * 5).sick
    assert after([WORKED] * 200 + [FAILED] * 6).sick
    assert not after([WORKED] * 200 + [UNSURE] * 11).sick
    assert after([WORKED] * 200 + [UNSURE] * 12).sick
    assert not after([*[FAILED] * 5, WORKED, *[FAILED] * 5]).sick


def test_a_channel_is_sick_if_significantly_fewer_than_half_succeed() -> None:
    assert after([WORKED, FAILED, FAILED, FAILED] * 5).sick
    assert not after([FAILED, FAILED, FAILED, WORKED] * 4).sick  # fewer than twenty
    assert not after([WORKED, FAILED] * 100).sick
    assert not after([*[FAILED, WORKED] * 9, FAILED, FAILED]).sick  # nine of twenty may be noise


def test_a_sick_channel_recovers_after_successful_probes_in_a_row() -> None:
    record = sickened(100)
    assert after([WORKED, WORKED, FAILED, WORKED, WORKED], record, 200).sick
    healthy = after([WORKED] * 3, record, 200)
    assert not healthy.sick
    # The outcomes of the sickness are dropped.
    assert bps(healthy, 200) > 9_000


def test_a_payment_started_before_the_last_change_of_state_has_no_effect() -> None:
    record = sickened(100)
    assert with_outcome(record, WORKED, 99, 130, LEARNING, SICK) == record
    healthy = recovered(record, 200)
    assert with_outcome(healthy, FAILED, 199, 230, LEARNING, SICK) == healthy


def test_a_recovered_channel_gets_its_share_back_in_steps() -> None:
    healthy = recovered(sickened(100), 200)
    assert share_ceiling_bps(sickened(100), 10_000, SICK) == 0
    assert [share_ceiling_bps(healthy, 200 + at, SICK) for at in (0, 29, 30, 60, 90, 120, 150, 9_999)] == [
        500,
        500,
        1_000,
        2_000,
        4_000,
        8_000,
        10_000,
        10_000,
    ]
    assert share_ceiling_bps(ChannelRecord(), 0, SICK) == 10_000


def test_each_further_sickness_takes_longer_to_recover_from_until_it_is_forgiven() -> None:
    sick_again = after([FAILED] * 6, recovered(sickened(100), 200), 300)
    assert sick_again.sick_count == 2
    assert after([WORKED] * 5, sick_again, 400).sick
    healthy = recovered(sick_again, 400)
    assert not healthy.sick
    assert [share_ceiling_bps(healthy, 400 + at, SICK) for at in (59, 60, 120)] == [500, 1_000, 2_000]
    assert after([FAILED] * 6, healthy, 4_000).sick_count == 1
    assert after([FAILED] * 6, healthy, 1_000).sick_count == 3


def test_a_sick_channel_is_probed_by_one_payment_in_fifty_and_at_most_once_a_second() -> None:
    record = sickened(100)
    assert sum(probe_due(record, draw, 110, SICK) for draw in range(1_000)) == 20
    assert not probe_due(with_probe(record, 110), 0, 110, SICK)
    assert probe_due(with_probe(record, 110), 0, 111, SICK)


def test_with_little_traffic_a_probe_comes_every_minute_and_at_most_every_tenth_payment() -> None:
    record = sickened(100)
    for number in range(1, 11):
        assert not probe_due(record, 1, 100 + number * 60, SICK)
        record = with_skip(record)
    assert probe_due(record, 1, 700, SICK)
    assert not probe_due(record, 1, 159, SICK)


@given(STEPS)
def test_figures_stay_in_their_bounds_for_any_outcomes(steps: list[tuple[ChannelOutcome, int]]) -> None:
    record, now_s = ChannelRecord(), 0
    for outcome, wait_s in steps:
        now_s += wait_s
        record = with_outcome(record, outcome, now_s, now_s, LEARNING, SICK)
        assert 0 <= record.good + record.bad <= LEARNING.memory_payments * 1_000_000
        assert 0 <= bps(record, now_s) <= 10_000
        assert 0 <= share_ceiling_bps(record, now_s, SICK) <= 10_000
        assert record.sick_count <= 6


@given(STEPS, STEPS.filter(bool))
def test_a_failure_instead_of_a_success_never_improves_the_rate(
    before: list[tuple[ChannelOutcome, int]], last: list[tuple[ChannelOutcome, int]]
) -> None:
    record = after([outcome for outcome, _ in before])
    if not record.sick:
        assert bps(after([FAILED], record)) <= bps(after([UNSURE], record)) <= bps(after([WORKED], record))


@given(STEPS)
def test_a_channel_that_works_again_gets_its_full_share_back_after_any_history(
    steps: list[tuple[ChannelOutcome, int]],
) -> None:
    record, now_s = ChannelRecord(), 0
    for outcome, wait_s in steps:
        now_s += wait_s
        record = with_outcome(record, outcome, now_s, now_s, LEARNING, SICK)
    for _ in range(60):
        record = with_outcome(record, WORKED, now_s, now_s, LEARNING, SICK)
    assert not record.sick
    assert share_ceiling_bps(record, now_s + 86_400, SICK) == 10_000


def test_an_earlier_time_does_not_make_outcomes_younger() -> None:
    record = after([WORKED] * 10, now_s=1_000)
    assert bps(with_outcome(record, WORKED, 900, 900, LEARNING, SICK), 1_000) >= bps(record, 1_000)
    assert bps(record, 500) == bps(record, 1_000)
