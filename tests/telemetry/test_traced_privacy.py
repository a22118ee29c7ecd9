"""No span has anything about a payer: what a whole run exports is searched for it."""

from __future__ import annotations

from contextlib import suppress

import pytest

from cashier.consultation.answer import ConsultError
from cashier.payments.errors import AcceptError
from cashier.sandbox import CASES
from cashier.telemetry.traced_payments import TracedPaymentFlow
from tests.telemetry.rig import CASE, OTP, consult_request, rig
from tests.telemetry.test_payment_traces import ended

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PAID = [
    ("chinese_shop", "QUICK_PAY:c_2"),
    ("balance_is_enough", "BALANCE:acc_1"),
    ("listed_by_risk", "WALLET:ALIPAY"),
]
# Of the request of the rig, and of the sandbox's people.
PERSONAL = (
    b"203.0.113.77",
    b"device-of-the-payer",
    b"Browser/1",
    b"138****",
    b"CMB",
    OTP.encode(),
    b"/members/",
    b"acc_1",
    b"c_2",
)


def personal_of_the_cases() -> set[bytes]:
    """The users and merchants of all cases, as they stand in a message of protobuf."""
    ids = {CASES[case].request.get(name) for case in CASES for name in ("user_id", "merchant_id")}
    return {identifier.encode() for identifier in ids if identifier is not None}


@pytest.mark.parametrize("traceparent", [None, CALLER])
async def test_no_span_has_anything_about_a_payer(traceparent: str | None) -> None:
    async with rig(sources={"quota": {"retry": False}}) as shop:
        for case in CASES:
            with suppress(ConsultError):
                await shop.cashier.consult(consult_request(case), traceparent=traceparent)
        shop.profile("quota", {"faults": {"garbage": 10_000}})
        await shop.consult(CASE, traceparent)
        shop.profile("quota", {"faults": {}})
        for case, method_id in PAID:
            request = await shop.payment_request(case, method_id)
            payments = shop.payments()
            assert isinstance(payments, TracedPaymentFlow)
            with suppress(AcceptError):
                payment = await payments.submit(request, f"key-{case}", traceparent=traceparent)
                if payment.challenge is not None:
                    payment = await payments.answer(payment.payment_id, payment.payment_token, OTP)
                await payments.look(payment.payment_id, payment.payment_token, traceparent=traceparent)
                await payments.cancel(payment.payment_id, payment.payment_token, traceparent=traceparent)
        spans = await ended(shop)
    assert len(spans) > 100
    for body in shop.collector.exported():
        for personal in PERSONAL:
            assert personal not in body, personal
    values = {
        str(value)
        for span in spans
        for attributes in (span.attributes, *(attributes for _, _, attributes in span.events))
        for value in attributes.values()
    }
    assert not {value for value in values if value.encode() in personal_of_the_cases()}
    assert not any(text in value for value in values for text in ("u_1", "m_1"))
    assert not {"1014", "c_2", "12800"} & values, "last digits, a card, an amount"
