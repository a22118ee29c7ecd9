"""Queries of a payment: when they are due, and that their answers never contradict each other."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.domain import poll_schedule
from cashier.domain.kinds import KINDS
from cashier.domain.pay_method import Kind
from cashier.domain.payment_state import FINAL, NEXT, PaymentEvent, PaymentStatus
from cashier.domain.poll_schedule import PollSchedule, poll_after_ms
from cashier.domain.status_resolution import PaymentProgress
from cashier.domain.upstream_report import EngineReportStatus
from tests.domain.payment_histories import (
    EVENT_CODES,
    EVENTS,
    MINE,
    PAYMENTS,
    POSSIBLE,
    RELIABLE_DICE,
    History,
    decode_event,
    run_history,
)


@given(PAYMENTS, EVENTS)
def test_reported_statuses_are_a_path_in_the_table_and_final_ones_stay(
    payment: PaymentProgress, events: list[tuple[str, int, str]]
) -> None:
    _, resolved = run_history(payment, events, remembers=True)
    for before, after in pairwise(resolved):
        if before.final:
            assert after.status is before.status
        else:
            assert after.event is not None
            assert NEXT[before.status][after.event] is after.status


@given(PAYMENTS, EVENTS, st.integers(0, 1))
def test_without_memory_final_statuses_are_true_and_never_contradict_each_other(
    payment: PaymentProgress, events: list[tuple[str, int, str]], dice: int
) -> None:
    history, resolved = run_history(payment, events, remembers=False)
    last = history.finish(dice)
    finals = {resolved_status.status for resolved_status in (*resolved, last) if resolved_status.final}
    assert last.final, "every service has answered"
    assert finals == {last.status}
    assert (last.status is PaymentStatus.SUCCEEDED) == (
        history.engine is EngineReportStatus.SUCCEEDED and history.owner == MINE and not history.closed_reason
    )
    if last.status in (PaymentStatus.FAILED, PaymentStatus.CLOSED):
        assert history.engine is EngineReportStatus.FAILED or (
            history.sealed and history.engine is EngineReportStatus.NEVER_ARRIVED
        )
    if last.status is PaymentStatus.CLOSED_REFUNDING:
        assert history.engine is EngineReportStatus.SUCCEEDED


@given(PAYMENTS, EVENTS)
def test_without_memory_a_final_status_stays_if_every_service_answers(
    payment: PaymentProgress, events: list[tuple[str, int, str]]
) -> None:
    """Every call is answered, reversals included, so the result is the truth."""
    history, final = History(payment), None
    for event, dice, _ in events:
        if event != "query":
            history.apply(event, dice)
            continue
        resolved = history.query(RELIABLE_DICE if dice % 2 else RELIABLE_DICE & 3, "goes_on", None).status
        assert final is None or resolved is final
        final = resolved if resolved in FINAL else None


def test_the_histories_reach_every_status_and_every_event_of_a_query() -> None:
    """A property over histories in which nothing happens would hold for any code."""
    statuses: set[PaymentStatus] = set()
    events: set[PaymentEvent] = set()

    dice = Random(7)
    for _ in range(2_000):
        history_events = [decode_event(dice.randrange(EVENT_CODES)) for _ in range(20)]
        for resolved in run_history(dice.choice(POSSIBLE), history_events, remembers=False, seals=dice.random() < 0.8)[
            1
        ]:
            statuses.add(resolved.status)
            if resolved.event is not None:
                events.add(resolved.event)
    assert statuses == set(PaymentStatus)
    unseen = {
        PaymentEvent.RISK_ACCEPTED,
        PaymentEvent.RISK_CHALLENGED,
        PaymentEvent.RISK_REJECTED,
        PaymentEvent.CHALLENGE_PASSED,
    }
    assert set(PaymentEvent) - events == unseen


SCHEDULES = [
    poll_schedule.PROMPT,
    poll_schedule.CONFIRMING,
    poll_schedule.LATE,
    *(KINDS[kind].poll_schedule for kind in Kind),
]


def steps(schedule: PollSchedule, count: int) -> list[int]:
    """The waits of a caller that follows the schedule."""
    waits_ms: list[int] = []
    for _ in range(count):
        waits_ms.append(poll_after_ms(schedule, sum(waits_ms) / 1_000))
    return waits_ms


def test_at_a_counter_polls_come_after_one_two_three_and_then_every_five_seconds() -> None:
    assert steps(KINDS[Kind.CONSUMER_QR].poll_schedule, 11) == [1_000, 2_000, 3_000] + [5_000] * 8
    assert sum(steps(KINDS[Kind.CONSUMER_QR].poll_schedule, 10)) < poll_schedule.ATTENDED_S * 1_000


@pytest.mark.parametrize("kind", [Kind.NET_BANKING, Kind.WALLET, Kind.CARD, Kind.MERCHANT_QR])
def test_a_payment_on_another_page_is_polled_every_two_seconds_at_first(kind: Kind) -> None:
    assert steps(KINDS[kind].poll_schedule, 3) == [2_000, 2_000, 2_000]


@pytest.mark.parametrize("kind", [Kind.VA, Kind.OTC])
def test_a_payment_at_a_bank_or_a_shop_is_polled_every_minute(kind: Kind) -> None:
    assert steps(KINDS[kind].poll_schedule, 2) == [60_000, 60_000]
    assert poll_after_ms(KINDS[kind].poll_schedule, 86_400) == 180_000


@given(st.sampled_from(SCHEDULES), st.floats(-10, 10**6), st.floats(0, 10**6))
def test_a_schedule_never_gets_faster_and_never_stops(schedule: PollSchedule, elapsed_s: float, later_s: float) -> None:
    sooner, later = poll_after_ms(schedule, elapsed_s), poll_after_ms(schedule, elapsed_s + later_s)
    assert 1_000 <= sooner <= later <= 180_000
