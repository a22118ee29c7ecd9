"""An example payment and its problems for the OpenAPI document, built from the structs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from cashier.domain.money import Money
from cashier.domain.offer_diff import Change, ChangeType
from cashier.domain.order import Product, Terminal
from cashier.domain.payment_message import Message, MessageCode
from cashier.domain.payment_request import Device, PaymentRequest
from cashier.domain.payment_resource import Challenge, Payment, RouteTaken
from cashier.domain.payment_state import PaymentStatus
from cashier.fanout.ask import Importance, SourceReport, SourceStatus
from cashier.payments.errors import (
    CheckUnavailable,
    ConsultChanged,
    EngineUnavailable,
    InFlight,
    KeyReused,
    OrderBusy,
    RiskRejected,
    TooManyPayments,
)
from cashier.web.openapi.components import invalid_field
from cashier.web.openapi.consultation_examples import CONSULTATION
from cashier.web.payment_problems import refusal_for
from cashier.web.payment_requests import Cancellation, ChallengeAnswer
from cashier.web.problem import ProblemCode

_AT = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
_AMOUNT = Money("CNY", 11_800)
# A token of an empty claim set.
_TOKEN = "eyJhbGciOiJIUzI1NiJ9.e30.ZRrHA1JJJW8opsbCGfG_HACGpVUMN_a9IV7pAx_Zmeo"  # noqa: S105

_LIVE = Payment(
    payment_id="pay_h5k2xq7m3n4b6c2d5f7g3j4k6l",
    order_id="o_1001",
    status=PaymentStatus.CHALLENGE,
    amount=_AMOUNT,
    challenge=Challenge(
        challenge_id="ch_1",
        type="SMS_OTP",
        render_value="138****1234",
        trigger="RISK",
        attempts_left=3,
        expires_at=_AT + timedelta(minutes=5),
    ),
    next_action=None,
    route=None,
    message=Message(MessageCode.CHALLENGE, "Please confirm that it is you."),
    poll_after_ms=None,
    payment_token=_TOKEN,
    expires_at=_AT + timedelta(minutes=30),
)
_FINAL = replace(
    _LIVE,
    status=PaymentStatus.SUCCEEDED,
    challenge=None,
    route=RouteTaken(rule="cheapest_healthy", channel_id="cmb_direct", alternatives=("unionpay",)),
    message=Message(MessageCode.SUCCEEDED, "Paid."),
)
_SUBMIT = PaymentRequest(
    consult_token=_TOKEN,
    order_id="o_1001",
    user_id="u_1",
    merchant_id="m_1",
    product=Product.STANDARD_CASHIER,
    terminal=Terminal.APP,
    method_id="QUICK_PAY:c_2",
    promotion_ids=("p_1",),
    expected_payable=_AMOUNT,
    device=Device(ip="203.0.113.7", device_id="d_1"),
    return_url="https://shop.example/back",
)
_CHANGE = Change(what=ChangeType.PRICE_CHANGED, before=_AMOUNT, after=Money("CNY", 12_800))
_QUOTA_SILENT = SourceReport("quota", Importance.GATING, SourceStatus.TIMEOUT, 0.1, 1000.0, 0)

SUBMIT: dict[str, Any] = msgspec.to_builtins(_SUBMIT)
LIVE_PAYMENT: dict[str, Any] = msgspec.to_builtins(_LIVE)
FINAL_PAYMENT: dict[str, Any] = msgspec.to_builtins(_FINAL)
CHALLENGE_ANSWER: dict[str, Any] = msgspec.to_builtins(ChallengeAnswer(_TOKEN, "246810"))
CANCELLATION: dict[str, Any] = msgspec.to_builtins(Cancellation(_TOKEN))

# As the endpoints send them.
_FLOW_PROBLEMS = {
    refusal.problem.code: refusal.problem
    for error in (
        ConsultChanged((_CHANGE,), CONSULTATION),
        OrderBusy(_LIVE.payment_id),
        InFlight(),
        KeyReused(),
        RiskRejected(None),
        CheckUnavailable(("quota",), (_QUOTA_SILENT,)),
        EngineUnavailable(),
        TooManyPayments(),
    )
    if (refusal := refusal_for(error)) is not None
}
PROBLEMS = {**_FLOW_PROBLEMS, ProblemCode.INVALID: invalid_field("Idempotency-Key", "MISSING", "is required")}
