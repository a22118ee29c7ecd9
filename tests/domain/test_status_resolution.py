"""Status resolution: precedence of the reports, waiting, and reversals."""

from __future__ import annotations

import pytest

from cashier.domain.engine_contract import ReversalReason
from cashier.domain.money import Money
from cashier.domain.next_action import Await, DisplayVa
from cashier.domain.pay_method import Kind
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_state import FINAL, IllegalTransition, PaymentEvent, PaymentStatus
from cashier.domain.status_resolution import PaymentProgress, ResolvedStatus, resolve_status
from cashier.domain.upstream_report import EngineReport, EngineReportStatus
from tests.domain.payment_histories import MINE, OTHER, START_S, acquirer, at, challenged, engine, sent


def resolve(
    engine_status: str,
    acquirer_status: str,
    of: str | None = None,
    *,
    payment: PaymentProgress | None = None,
    after_s: float = 1,
    code: str | None = None,
    closed_reason: str | None = None,
) -> ResolvedStatus:
    return resolve_status(
        payment or sent(), engine(engine_status, code), acquirer(acquirer_status, of, closed_reason), at(after_s)
    )


@pytest.mark.parametrize(
    ("engine_status", "acquirer_status", "of", "status"),
    [
        ("SUCCEEDED", "PAID", MINE, PaymentStatus.SUCCEEDED),
        ("SUCCEEDED", "PAYING", MINE, PaymentStatus.PROCESSING),
        ("SUCCEEDED", "PENDING", None, PaymentStatus.PROCESSING),
        ("SUCCEEDED", "SILENT", None, PaymentStatus.PROCESSING),
        ("SUCCEEDED", "CLOSED", None, PaymentStatus.CLOSED_REFUNDING),
        ("SUCCEEDED", "CLOSED_REFUNDING", MINE, PaymentStatus.CLOSED_REFUNDING),
        ("SUCCEEDED", "CLOSED_REFUNDING", OTHER, PaymentStatus.CLOSED_REFUNDING),
        ("SUCCEEDED", "PAID", OTHER, PaymentStatus.CLOSED_REFUNDING),
        ("SUCCEEDED", "REFUNDED", MINE, PaymentStatus.SUCCEEDED),
        ("SUCCEEDED", "PAID", None, PaymentStatus.SUCCEEDED),
        ("SILENT", "PAID", MINE, PaymentStatus.SUCCEEDED),
        ("NEVER_ARRIVED", "PAID", MINE, PaymentStatus.SUCCEEDED),
        ("PROCESSING", "CLOSED_REFUNDING", MINE, PaymentStatus.CLOSED_REFUNDING),
        ("FAILED", "PAID", MINE, PaymentStatus.SUCCEEDED),
        ("FAILED", "PENDING", None, PaymentStatus.FAILED),
        ("FAILED", "PAYING", MINE, PaymentStatus.FAILED),
        ("FAILED", "PAYING", OTHER, PaymentStatus.FAILED),
        ("FAILED", "PAID", OTHER, PaymentStatus.FAILED),
        ("FAILED", "CLOSED", None, PaymentStatus.FAILED),
        ("FAILED", "PAID", None, PaymentStatus.FAILED),
        ("FAILED", "SILENT", None, PaymentStatus.PROCESSING),
        ("SILENT", "PENDING", None, PaymentStatus.PROCESSING),
        ("SILENT", "SILENT", None, PaymentStatus.PROCESSING),
        ("SILENT", "CLOSED", None, PaymentStatus.PROCESSING),
        ("SILENT", "PAID", OTHER, PaymentStatus.PROCESSING),
        ("SILENT", "PAID", None, PaymentStatus.PROCESSING),
        ("NEVER_ARRIVED", "PENDING", None, PaymentStatus.PROCESSING),
        ("SEALED", "PENDING", None, PaymentStatus.CLOSED),
        ("SEALED", "SILENT", None, PaymentStatus.PROCESSING),
        ("PROCESSING", "PAYING", MINE, PaymentStatus.PROCESSING),
        ("USER_PAYING", "PAYING", MINE, PaymentStatus.PROCESSING),
        ("ACTION_REQUIRED", "PAYING", MINE, PaymentStatus.ACTION_REQUIRED),
        ("ACTION_REQUIRED", "SILENT", None, PaymentStatus.ACTION_REQUIRED),
        ("ACTION_REQUIRED", "CLOSED", MINE, PaymentStatus.PROCESSING),
        ("ACTION_REQUIRED", "PAID", OTHER, PaymentStatus.PROCESSING),
    ],
)
def test_the_acquirer_prevails_where_engine_and_acquirer_differ(
    engine_status: str, acquirer_status: str, of: str | None, status: PaymentStatus
) -> None:
    assert resolve(engine_status, acquirer_status, of).status is status


def test_no_combination_is_final_without_the_acquirer() -> None:
    for word in EngineReportStatus:
        assert not resolve(word, "SILENT").final


@pytest.mark.parametrize("code", ["REVERSED", "EXPIRED", "ORDER_CLOSED", "ORDER_EXPIRED"])
def test_a_reversed_or_late_payment_is_closed_and_not_failed(code: str) -> None:
    assert resolve("FAILED", "PENDING", code=code).status is PaymentStatus.CLOSED
    assert resolve("FAILED", "CLOSED", code=code).status is PaymentStatus.CLOSED


def test_money_for_a_closed_order_is_reported_as_refunding_and_then_as_refunded() -> None:
    assert resolve("SUCCEEDED", "CLOSED").message is MessageCode.CLOSED_REFUNDING
    assert resolve("SUCCEEDED", "PAID", OTHER).message is MessageCode.PAID_TWICE_REFUNDING
    returned = resolve("SUCCEEDED", "REFUNDED", MINE, closed_reason="EXPIRED")
    assert (returned.status, returned.message) == (PaymentStatus.CLOSED_REFUNDING, MessageCode.CLOSED_REFUNDED)
    assert resolve("SUCCEEDED", "REFUNDED", MINE).message is MessageCode.SUCCEEDED_REFUNDED


@pytest.mark.parametrize(
    ("code", "message"), [("BALANCE_INSUFFICIENT", "BALANCE_INSUFFICIENT"), ("X-17", "FAILED"), (None, "FAILED")]
)
def test_a_failure_has_one_of_our_codes(code: str | None, message: str) -> None:
    assert resolve("FAILED", "PENDING", code=code).message == message


@pytest.mark.parametrize("acquirer_status", ["CLOSED", "CLOSED_REFUNDING", "PAID", "REFUNDED"])
@pytest.mark.parametrize("engine_status", ["SILENT", "NEVER_ARRIVED", "PROCESSING", "USER_PAYING", "ACTION_REQUIRED"])
def test_a_live_payment_of_an_order_that_is_over_is_reversed_and_its_action_withdrawn(
    engine_status: str, acquirer_status: str
) -> None:
    resolved = resolve(engine_status, acquirer_status, OTHER)
    assert (resolved.status, resolved.event, resolved.to_reverse) == (
        PaymentStatus.PROCESSING,
        PaymentEvent.ORDER_OVER,
        True,
    )
    assert isinstance(resolved.next_action, Await)


def test_a_cancelled_payment_is_reversed_but_not_one_that_succeeded_or_failed() -> None:
    cancelled = sent(cancelled=True)
    for word in ("SILENT", "NEVER_ARRIVED", "PROCESSING", "USER_PAYING", "ACTION_REQUIRED"):
        resolved = resolve(word, "PAYING", MINE, payment=cancelled)
        assert (resolved.status, resolved.to_reverse) == (PaymentStatus.PROCESSING, True)
    assert not resolve("SUCCEEDED", "PAYING", MINE, payment=cancelled).to_reverse
    assert resolve("FAILED", "PENDING", payment=cancelled).status is PaymentStatus.FAILED


def test_a_submit_that_has_not_arrived_is_polled_and_then_reversed() -> None:
    early, late = resolve("NEVER_ARRIVED", "PENDING", after_s=29), resolve("NEVER_ARRIVED", "PENDING", after_s=30)
    assert (early.status, early.to_reverse) == (PaymentStatus.PROCESSING, False)
    assert (late.status, late.to_reverse) == (PaymentStatus.PROCESSING, True)
    assert resolve("SEALED", "PENDING", after_s=30).status is PaymentStatus.CLOSED


def test_a_consumer_code_payment_is_reversed_after_45_seconds_in_any_live_state() -> None:
    scanned = sent(Kind.CONSUMER_QR)
    for word in ("USER_PAYING", "PROCESSING", "SILENT"):
        assert not resolve(word, "PAYING", MINE, payment=scanned, after_s=44).to_reverse
        assert resolve(word, "PAYING", MINE, payment=scanned, after_s=45).to_reverse
    assert resolve("FAILED", "PENDING", payment=scanned, after_s=46, code="REVERSED").status is PaymentStatus.CLOSED
    assert resolve("SUCCEEDED", "PAID", MINE, payment=scanned, after_s=46).status is PaymentStatus.SUCCEEDED


def test_a_paying_consumer_is_polled_after_one_two_three_and_five_seconds_until_the_reversal() -> None:
    scanned = sent(Kind.CONSUMER_QR)
    for after_s, step_ms in ((0, 1_000), (1, 2_000), (3, 3_000), (6, 5_000), (41, 5_000)):
        resolved = resolve("USER_PAYING", "PAYING", MINE, payment=scanned, after_s=after_s)
        assert resolved.next_action == Await(poll_after_ms=step_ms, until=at(45))
        assert resolved.poll_after_ms == step_ms


def test_time_never_ends_a_payment_that_the_engine_processes_or_is_silent_about() -> None:
    for kind in set(Kind) - {Kind.CONSUMER_QR}:
        for word in ("PROCESSING", "SILENT", "SUCCEEDED"):
            resolved = resolve(word, "PAYING", MINE, payment=sent(kind), after_s=10**7)
            assert (resolved.status, resolved.to_reverse) == (PaymentStatus.PROCESSING, False)


def test_an_expired_action_is_withdrawn_and_ends_only_by_the_engines_report() -> None:
    account = DisplayVa(bank="BCA", account_no="88", account_name="x", amount=Money("IDR", 1), expires_at=at(600))
    action_required, waiting = EngineReport(EngineReportStatus.ACTION_REQUIRED, None, account), acquirer("PAYING", MINE)
    before = resolve_status(sent(Kind.VA), action_required, waiting, at(599))
    assert (before.status, before.next_action, before.to_reverse) == (PaymentStatus.ACTION_REQUIRED, account, False)
    after = resolve_status(sent(Kind.VA), action_required, waiting, at(600))
    assert (after.status, after.event, after.to_reverse) == (PaymentStatus.PROCESSING, PaymentEvent.EXPIRED, True)
    assert resolve("ACTION_REQUIRED", "PAYING", MINE, after_s=840).to_reverse, (
        "a page says no end of its own: the payment's counts"
    )
    assert resolve("USER_PAYING", "PAYING", MINE, payment=sent(Kind.WALLET), after_s=840).to_reverse


def test_an_unsent_challenge_is_open_while_it_has_attempts_and_time() -> None:
    resolved = resolve("NEVER_ARRIVED", "PENDING", payment=challenged(2), after_s=299)
    assert (resolved.status, resolved.poll_after_ms, resolved.next_action) == (PaymentStatus.CHALLENGE, None, None)
    assert resolve("NEVER_ARRIVED", "SILENT", payment=challenged()).status is PaymentStatus.CHALLENGE


def test_a_spent_or_expired_challenge_ends_only_with_an_answered_reversal() -> None:
    for payment, after_s, reason in (
        (challenged(3), 1, ReversalReason.CHALLENGE_FAILED),
        (challenged(), 300, ReversalReason.EXPIRED),
    ):
        open_end = resolve("NEVER_ARRIVED", "PENDING", payment=payment, after_s=after_s)
        assert (open_end.status, open_end.to_reverse) == (PaymentStatus.PROCESSING, True)
        assert open_end.reversal_reason is reason
        assert resolve("SEALED", "PENDING", payment=payment, after_s=after_s).final
        assert resolve("FAILED", "PENDING", payment=payment, after_s=after_s, code="REVERSED").final


def test_a_challenge_possibly_passed_elsewhere_is_not_reversed_while_the_engine_is_silent() -> None:
    for payment, after_s in ((challenged(3), 1), (challenged(), 300)):
        resolved = resolve("SILENT", "PENDING", payment=payment, after_s=after_s)
        assert (resolved.status, resolved.to_reverse) == (PaymentStatus.PROCESSING, False)


def test_a_challenge_that_was_passed_elsewhere_is_no_longer_pending() -> None:
    for word in ("PROCESSING", "ACTION_REQUIRED", "SUCCEEDED", "FAILED", "USER_PAYING"):
        resolved = resolve(word, "PENDING", payment=challenged(3), after_s=301)
        assert resolved.status is not PaymentStatus.CHALLENGE
        assert resolved.event is not PaymentEvent.CHALLENGE_OVER


def test_a_payment_neither_sent_nor_challenged_is_rejected() -> None:
    with pytest.raises(ValueError, match="neither sent nor challenged"):
        PaymentProgress(payment_id=MINE, kind=Kind.CARD, expires_at=START_S)


def test_a_reported_final_status_stays_for_any_reports() -> None:
    for status in FINAL:
        for word in EngineReportStatus:
            resolved = resolve(word, "SILENT", payment=sent(last_status=status))
            assert (resolved.status, resolved.event, resolved.next_action) == (status, None, None)


def test_an_engine_that_reverts_a_required_action_raises_and_one_that_lags_does_not() -> None:
    shown = challenged(last_status=PaymentStatus.ACTION_REQUIRED)
    assert resolve("NEVER_ARRIVED", "PAYING", MINE, payment=shown).event is PaymentEvent.ENGINE_NEVER_ARRIVED
    with pytest.raises(IllegalTransition, match="ENGINE_SEALED leads nowhere from ACTION_REQUIRED"):
        resolve("SEALED", "PENDING", payment=shown)


def test_polling_has_an_end_after_which_each_query_is_still_answered() -> None:
    during, after = (
        resolve("PROCESSING", "PAYING", MINE, after_s=1_439),
        resolve("PROCESSING", "PAYING", MINE, after_s=1_440),
    )
    assert isinstance(during.next_action, Await)
    assert during.next_action.until == at(1_440)
    assert (after.status, after.next_action, after.poll_after_ms) == (PaymentStatus.PROCESSING, None, 60_000)


def test_a_payment_in_reversal_after_the_payers_time_is_polled_promptly_again() -> None:
    virtual = sent(Kind.VA, expires_at=START_S + 86_400)
    assert resolve("ACTION_REQUIRED", "PAYING", MINE, payment=virtual, after_s=86_399).poll_after_ms == 180_000
    assert resolve("ACTION_REQUIRED", "PAYING", MINE, payment=virtual, after_s=86_400).poll_after_ms == 1_000
    assert resolve("SUCCEEDED", "PAYING", MINE, payment=virtual, after_s=50_000).poll_after_ms == 5_000


@pytest.mark.parametrize(
    ("word", "code", "message"),
    [
        ("SEALED", None, MessageCode.CLOSED_UNPAID),
        ("FAILED", "REVERSED", MessageCode.CLOSED_UNPAID),
        ("FAILED", "EXPIRED", MessageCode.CLOSED),
        ("FAILED", "ORDER_CLOSED", MessageCode.CLOSED),
    ],
)
def test_a_reversed_payment_says_no_money_was_taken_and_an_expired_one_that_it_would_return(
    word: str, code: str | None, message: MessageCode
) -> None:
    resolved = resolve(word, "PENDING", code=code)
    assert (resolved.status, resolved.message) == (PaymentStatus.CLOSED, message)
