"""One payment, one end: the reports alone decide it, and no caller's token does."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cashier.domain.engine_contract import EngineAnswered, EnginePayment, EngineStatus, ReversalReason, Sealed
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_state import FINAL, PaymentStatus
from cashier.domain.status_mapping import engine_report
from cashier.domain.status_resolution import PaymentProgress, resolve_status
from cashier.domain.upstream_report import (
    AcquirerReport,
    AcquirerReportStatus,
    EngineReport,
    EngineReportStatus,
)
from tests.domain.payment_histories import MINE, OTHER, PAYMENTS, at, challenged, sent

ENDED = (EngineReportStatus.FAILED, EngineReportStatus.SEALED, EngineReportStatus.SUCCEEDED)
CODES = (None, "REVERSED", "EXPIRED", "ORDER_CLOSED", "DECLINED", "BALANCE_INSUFFICIENT", "UNHEARD_OF")
# Tokens of any age: before and after the submit, of a challenge open, spent or expired, cancelled.
CALLERS = st.builds(
    lambda payment, cancelled, last: replace(payment, cancelled=cancelled, last_status=last),
    PAYMENTS,
    st.booleans(),
    st.sampled_from((None, PaymentStatus.CHALLENGE, PaymentStatus.PROCESSING)),
)
ENGINES = st.builds(
    lambda status, code, reason: EngineReport(
        status, code if status is EngineReportStatus.FAILED else None, None, reason
    ),
    st.sampled_from(ENDED),
    st.sampled_from(CODES),
    st.sampled_from((None, *ReversalReason)),
)
ACQUIRERS = st.builds(
    AcquirerReport,
    st.sampled_from([status for status in AcquirerReportStatus if status is not AcquirerReportStatus.SILENT]),
    st.sampled_from((None, MINE, OTHER)),
    st.sampled_from((None, "CLOSED_BY_MERCHANT")),
)
TIMES = st.integers(0, 10**6).map(at)


@given(one=CALLERS, other=CALLERS, engine=ENGINES, acquirer=ACQUIRERS, now=TIMES, later=TIMES)
def test_any_two_callers_get_the_same_end(
    one: PaymentProgress,
    other: PaymentProgress,
    engine: EngineReport,
    acquirer: AcquirerReport,
    now: datetime,
    later: datetime,
) -> None:
    first, second = resolve_status(one, engine, acquirer, now), resolve_status(other, engine, acquirer, later)
    assert (first.status, first.message) == (second.status, second.message)
    if first.final:
        again = resolve_status(replace(one, last_status=first.status), engine, acquirer, later)
        assert (again.status, again.message) == (first.status, first.message)


@pytest.mark.parametrize(
    ("reason", "status", "message"),
    [
        ("CHALLENGE_FAILED", PaymentStatus.FAILED, MessageCode.CHALLENGE_FAILED),
        ("CANCELLED", PaymentStatus.CLOSED, MessageCode.CANCELLED),
        ("EXPIRED", PaymentStatus.CLOSED, MessageCode.CLOSED_UNPAID),
        ("ORDER_OVER", PaymentStatus.CLOSED, MessageCode.CLOSED_UNPAID),
        (None, PaymentStatus.CLOSED, MessageCode.CLOSED_UNPAID),
        ("A_LATER_REASON", PaymentStatus.CLOSED, MessageCode.CLOSED_UNPAID),
    ],
)
@pytest.mark.parametrize("payment", [challenged(), challenged(3), sent(), sent(cancelled=True)])
def test_the_first_reason_of_a_reversal_says_how_the_payment_ended(
    payment: PaymentProgress, reason: str | None, status: PaymentStatus, message: MessageCode
) -> None:
    failure: dict[str, Any] = {"code": "REVERSED", "text": ""}
    for outcome in (
        Sealed(reason),
        EngineAnswered(_convert({"status": "FAILED", "failure": failure, "reversal_reason": reason})),
    ):
        resolved = resolve_status(payment, engine_report(outcome), AcquirerReport(AcquirerReportStatus.PENDING), at(1))
        assert (resolved.status, resolved.message) == (status, message)


@pytest.mark.parametrize("engine_status", [EngineStatus.SUCCEEDED, EngineStatus.PROCESSING])
def test_a_reason_does_not_end_a_payment_that_was_not_reversed(engine_status: EngineStatus) -> None:
    payment = EnginePayment(payment_id=MINE, status=engine_status, reversal_reason="CHALLENGE_FAILED")
    report = engine_report(EngineAnswered(payment))
    assert resolve_status(sent(), report, AcquirerReport(AcquirerReportStatus.PAYING, MINE), at(1)).status not in FINAL


def test_a_refusal_of_another_kind_keeps_its_own_message() -> None:
    report = EngineReport(EngineReportStatus.FAILED, "DECLINED", None, ReversalReason.CANCELLED)
    resolved = resolve_status(sent(), report, AcquirerReport(AcquirerReportStatus.PENDING), at(1))
    assert (resolved.status, resolved.message) == (PaymentStatus.FAILED, MessageCode.DECLINED)


def _convert(fields: dict[str, Any]) -> EnginePayment:
    return msgspec.convert({"payment_id": MINE, **fields}, EnginePayment)
