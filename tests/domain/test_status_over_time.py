"""No two looks at a payment contradict each other: what was told is held against the table, and against what became true."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from cashier.domain.payment_state import FINAL, NEXT, PaymentEvent, PaymentStatus
from cashier.domain.status_resolution import EngineReportStatus, PaymentProgress
from tests.domain.payment_histories import CLEAR, EVENTS, MINE, MOST, PAYMENTS, POSSIBLE, History, lived, read


@given(PAYMENTS, EVENTS)
def test_reported_statuses_are_a_path_in_the_table_and_final_ones_stay(
    payment: PaymentProgress, events: list[tuple[str, int, str]]
) -> None:
    _, found = lived(payment, events, remembers=True)
    for before, after in pairwise(found):
        if before.final:
            assert after.status is before.status
        else:
            assert after.event is not None
            assert NEXT[before.status][after.event] is after.status


@given(PAYMENTS, EVENTS, st.integers(0, 1))
def test_without_memory_final_statuses_are_true_and_never_contradict_each_other(
    payment: PaymentProgress, events: list[tuple[str, int, str]], dice: int
) -> None:
    history, found = lived(payment, events, remembers=False)
    last = history.ends(dice)
    finals = {standing.status for standing in (*found, last) if standing.final}
    assert last.final, "everybody has answered"
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
    """Reverses are answered, too, and orders looked at in one go: what remains is the truth itself."""
    history, final = History(payment), None
    for what, dice, _ in events:
        if what != "look":
            history.happens(what, dice)
            continue
        found = history.look(CLEAR if dice % 2 else CLEAR & 3, "goes_on", None).status
        assert final is None or found is final
        final = found if found in FINAL else None


def test_the_histories_reach_every_status_and_every_event_of_a_query() -> None:
    """A property over histories in which nothing happens would hold for any code."""
    statuses: set[PaymentStatus] = set()
    events: set[PaymentEvent] = set()

    dice = Random(7)
    for _ in range(2_000):
        happened = [read(dice.randrange(MOST)) for _ in range(20)]
        for found in lived(dice.choice(POSSIBLE), happened, remembers=False)[1]:
            statuses.add(found.status)
            if found.event is not None:
                events.add(found.event)
    assert statuses == set(PaymentStatus)
    # That a challenge is over is only ever why the engine is asked to reverse; what it says to that is found.
    unseen = {
        PaymentEvent.RISK_ACCEPTED,
        PaymentEvent.RISK_CHALLENGED,
        PaymentEvent.RISK_REJECTED,
        PaymentEvent.CHALLENGE_PASSED,
        PaymentEvent.CHALLENGE_OVER,
    }
    assert set(PaymentEvent) - events == unseen
