"""Records and states as workers make them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from cashier.consultation.end import ConsultationOutcome
from cashier.telemetry.records import ConsultationRecord, Verdict
from cashier.telemetry.worker_state import ConfigurationState, LivePayment, PaymentsState, WorkerState

_RECORD = ConsultationRecord(
    started_at=datetime(2026, 5, 12, 12, tzinfo=UTC),
    request_id="r_1",
    worker=7,
    order_id="o_1",
    product="STANDARD_CASHIER",
    terminal="H5",
    deadline_ms=150.0,
    elapsed_ms=148.2,
    outcome=ConsultationOutcome.COMPLETE,
    verdicts=(Verdict.SLOW,),
)


def record(**fields: Any) -> ConsultationRecord:
    return replace(_RECORD, **fields)


def state(pid: int, *payments: LivePayment, at: float = 0.0) -> WorkerState:
    return WorkerState(
        pid=pid,
        started_at=0.0,
        at=at,
        sources=(),
        loop=None,
        configuration=ConfigurationState("cashier.toml", "", 0.0, {}),
        payments=PaymentsState(len(payments), 0, payments),
    )


def payment(payment_id: str = "p_1", **fields: Any) -> LivePayment:
    sample = LivePayment(payment_id, "o_1", "QUICK_PAY", "PROCESSING", "engine silent", unknown=True, sent_at=0.0)
    return replace(sample, **fields)
