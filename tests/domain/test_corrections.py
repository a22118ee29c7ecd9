"""The acquirer's word about a payment's money overrides any final status that was reported."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cashier.domain.pay_method import Kind
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_state import FINAL, PaymentStatus
from cashier.domain.status_resolution import PaymentProgress, resolve_status
from cashier.domain.upstream_report import AcquirerReport, AcquirerReportStatus, EngineReport, EngineReportStatus
from tests.domain.payment_histories import PAYMENTS

OTHER = "pay_other"
TIMES = st.integers(1_767_225_600, 1_800_000_000).map(lambda at: datetime.fromtimestamp(at, UTC))
# What the acquirer reports about the money of one payment, and what its payer is to know.
MONEY = [
    (AcquirerReportStatus.PAID, None, PaymentStatus.SUCCEEDED, MessageCode.SUCCEEDED),
    (AcquirerReportStatus.REFUNDED, None, PaymentStatus.SUCCEEDED, MessageCode.SUCCEEDED_REFUNDED),
    (AcquirerReportStatus.REFUNDED, "CLOSED", PaymentStatus.CLOSED_REFUNDING, MessageCode.CLOSED_REFUNDED),
    (AcquirerReportStatus.CLOSED_REFUNDING, None, PaymentStatus.CLOSED_REFUNDING, MessageCode.CLOSED_REFUNDING),
]
ENGINES = st.builds(
    EngineReport, st.sampled_from(EngineReportStatus), st.sampled_from([None, "DECLINED", "REVERSED", "EXPIRED"])
)


@pytest.mark.parametrize(("report", "closed_reason", "status", "message"), MONEY)
@given(payment=PAYMENTS, engine=ENGINES, now=TIMES)
def test_every_token_gets_the_acquirers_word_whatever_was_final_before(
    report: AcquirerReportStatus,
    closed_reason: str | None,
    status: PaymentStatus,
    message: MessageCode,
    payment: PaymentProgress,
    engine: EngineReport,
    now: datetime,
) -> None:
    acquirer = AcquirerReport(report, payment.payment_id, closed_reason)
    for last in (None, *sorted(FINAL)):
        resolved = resolve_status(replace(payment, last_status=last), engine, acquirer, now)
        assert (resolved.status, resolved.message) == (status, message)
        assert resolved.correction is (last is not None and last is not status)
        assert not resolved.to_reverse


@given(
    payment=PAYMENTS,
    last=st.sampled_from(sorted(FINAL)),
    engine=ENGINES.filter(lambda engine: engine.status is not EngineReportStatus.SUCCEEDED),
    acquirer=st.one_of(
        st.sampled_from(AcquirerReportStatus).map(lambda status: AcquirerReport(status, OTHER)),
        st.sampled_from(["PENDING", "PAYING", "CLOSED", "SILENT"]).map(
            lambda status: AcquirerReport(AcquirerReportStatus(status))
        ),
    ),
    now=TIMES,
)
def test_a_final_status_stays_without_a_word_about_this_payments_money(
    payment: PaymentProgress, last: PaymentStatus, engine: EngineReport, acquirer: AcquirerReport, now: datetime
) -> None:
    resolved = resolve_status(replace(payment, last_status=last), engine, acquirer, now)
    assert resolved.status is last
    assert not resolved.correction


def test_money_that_the_engine_took_after_a_failure_for_an_order_paid_otherwise_is_told() -> None:
    payment = PaymentProgress(payment_id="pay_1", kind=Kind.WALLET, expires_at=2_000_000_000, sent_at=1_700_000_000)
    resolved = resolve_status(
        replace(payment, last_status=PaymentStatus.FAILED),
        EngineReport(EngineReportStatus.SUCCEEDED),
        AcquirerReport(AcquirerReportStatus.PAID, OTHER),
        datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert (resolved.status, resolved.message) == (PaymentStatus.CLOSED_REFUNDING, MessageCode.PAID_TWICE_REFUNDING)
    assert resolved.correction
