"""Queries of a payment never contradict each other, the transition table or the true outcome."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from cashier.domain.payment_state import FINAL, NEXT, PaymentEvent, PaymentStatus
from cashier.domain.status_resolution import EngineReportStatus, PaymentProgress
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
        for resolved in run_history(dice.choice(POSSIBLE), history_events, remembers=False)[1]:
            statuses.add(resolved.status)
            if resolved.event is not None:
                events.add(resolved.event)
    assert statuses == set(PaymentStatus)
    # The end of a challenge only causes a reversal; the status follows from the engine's answer.
    unseen = {
        PaymentEvent.RISK_ACCEPTED,
        PaymentEvent.RISK_CHALLENGED,
        PaymentEvent.RISK_REJECTED,
        PaymentEvent.CHALLENGE_PASSED,
        PaymentEvent.CHALLENGE_OVER,
    }
    assert set(PaymentEvent) - events == unseen
