"""Over- and under-paid transfers: the payer is told what came and what happens with it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from cashier.domain.engine_contract import ReversalReason
from cashier.domain.local_format import format_amount
from cashier.domain.money import Money
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentEvent, PaymentStatus
from cashier.domain.resolved_message import message_code
from cashier.domain.upstream_report import EngineReport, EngineReportStatus
from cashier.wire.transport import Request, Response
from tests.domain.builders import CATALOG
from tests.payments.checkout import Checkout, checkout

pytestmark = pytest.mark.looptime

BY_TRANSFER = [("VA", "BCA"), ("OTC", "ALFAMART")]
LATER_S = 49 * 3_600


async def transferable(shop: Checkout, method_id: str = "VA", option_id: str = "BCA") -> Payment:
    return await shop.pay("indonesian_shop", method_id, option_id, locale="en")


def idr(value: int) -> Money:
    return Money("IDR", value)


def written(value: int) -> str:
    return format_amount(idr(value), CATALOG.texts["en"].formats)


@pytest.mark.parametrize(("method_id", "option_id"), BY_TRANSFER)
async def test_too_little_is_told_while_the_payment_can_still_be_paid(method_id: str, option_id: str) -> None:
    async with checkout() as shop:
        payment = await transferable(shop, method_id, option_id)
        assert (payment.received, payment.returned) == (None, None)
        due = payment.amount
        shop.settle(payment, paid=100_000)
        short = await shop.look(payment)
        assert (short.status, short.message.code) == (PaymentStatus.ACTION_REQUIRED, MessageCode.UNDERPAID_RETURNED)
        assert (short.received, short.returned) == (idr(100_000), idr(100_000))
        assert written(100_000) in short.message.text
        assert written(due.value) in short.message.text
        assert short.next_action == payment.next_action
        shop.settle(payment, paid=due.value)
        paid = await shop.look(short)
        assert (paid.status, paid.message.code) == (PaymentStatus.SUCCEEDED, MessageCode.OVERPAID), (
            "what came first goes back"
        )
        assert (paid.received, paid.returned) == (idr(due.value + 100_000), idr(100_000))
        assert written(100_000) in paid.message.text


async def test_a_long_poll_returns_when_a_wrong_sum_arrives() -> None:
    async with checkout() as shop:
        payment = await transferable(shop)
        seen = [payment.message.code]

        async def follow() -> None:
            async for latest in shop.payments.follow(payment.payment_id, payment.payment_token):
                seen.append(latest.message.code)

        following = asyncio.create_task(follow())
        for paid in (100_000, 200_000, None):
            await asyncio.sleep(100)
            shop.settle(payment, paid=paid)
        await following
        assert seen == [
            MessageCode.ACTION_REQUIRED,
            MessageCode.ACTION_REQUIRED,
            MessageCode.UNDERPAID_RETURNED,
            MessageCode.UNDERPAID_RETURNED,
            MessageCode.OVERPAID,
        ]


@pytest.mark.parametrize(("more", "code"), [(0, MessageCode.SUCCEEDED), (50_000, MessageCode.OVERPAID)])
async def test_an_excess_is_told_with_the_success(more: int, code: MessageCode) -> None:
    async with checkout() as shop:
        payment = await transferable(shop)
        shop.settle(payment, paid=payment.amount.value + more)
        paid = await shop.look(payment)
        assert (paid.status, paid.message.code) == (PaymentStatus.SUCCEEDED, code)
        assert paid.returned == (idr(more) if more else None)
        assert (written(more) in paid.message.text) is bool(more)
        assert (await shop.look(paid)).message == (await shop.look(payment)).message == paid.message


@pytest.mark.parametrize("early", [0, 100_000])
@pytest.mark.parametrize("late", [0, 1, 100_000_000])
async def test_money_for_a_payment_that_is_over_is_told(early: int, late: int) -> None:
    async with checkout() as shop:
        payment = await transferable(shop)
        if early:
            shop.settle(payment, paid=early)
        await asyncio.sleep(LATER_S)
        closed = await shop.look(payment)
        if late:
            shop.settle(payment, paid=late)
        came = early + late
        for token in (payment, closed):
            over = await shop.look(token)
            assert over.status is PaymentStatus.CLOSED
            assert over.message.code is (MessageCode.CLOSED_RECEIVED if came else MessageCode.CLOSED)
            assert over.received == (idr(came) if came else None)
            assert (written(came) in over.message.text) is bool(came)


@pytest.mark.parametrize(
    ("status", "received", "returned", "code"),
    [
        ("ACTION_REQUIRED", 100_000, None, MessageCode.UNDERPAID),
        ("ACTION_REQUIRED", 300_000, 200_000, MessageCode.UNDERPAID),
        ("ACTION_REQUIRED", 100_000, 100_000, MessageCode.UNDERPAID_RETURNED),
        ("ACTION_REQUIRED", 0, None, MessageCode.ACTION_REQUIRED),
        ("USER_PAYING", 100_000, None, MessageCode.UNDERPAID),
        ("PROCESSING", 100_000, None, MessageCode.PROCESSING),
        # A payer who has paid is not asked to pay, though the engine still shows where to.
        ("ACTION_REQUIRED", 100_000_000, None, MessageCode.CONFIRMING),
        ("ACTION_REQUIRED", 100_000_000, 1, MessageCode.CONFIRMING),
        ("ACTION_REQUIRED", 100_000_000, 100_000_000, MessageCode.UNDERPAID_RETURNED),
        ("USER_PAYING", 100_000_000, None, MessageCode.CONFIRMING),
        # What contradicts itself says nothing.
        ("ACTION_REQUIRED", 100_000, 100_001, MessageCode.ACTION_REQUIRED),
        ("ACTION_REQUIRED", None, 100_000, MessageCode.ACTION_REQUIRED),
    ],
)
async def test_an_engine_may_keep_parts_until_the_rest_comes(
    status: str, received: int | None, returned: int | None, code: MessageCode
) -> None:
    async with checkout() as shop:
        payment = await transferable(shop)
        fields = {"status": status, "received": received, "returned": returned}
        change_look_ups(shop, {name: idr(value) if isinstance(value, int) else value for name, value in fields.items()})
        assert (await shop.look(payment)).message.code is code


async def test_a_sum_in_another_currency_says_nothing() -> None:
    async with checkout() as shop:
        payment = await transferable(shop)
        change_look_ups(shop, {"received": Money("USD", 5)})
        looked = await shop.look(payment)
        assert (looked.message.code, looked.received) == (MessageCode.ACTION_REQUIRED, None)


@pytest.mark.parametrize("status", ["FAILED", "SEALED"])
@pytest.mark.parametrize(
    "failure", [None, "REVERSED", "DECLINED", "INSTRUMENT_DECLINED", "ORDER_PAID", "EXPIRED", "NEW_CODE"]
)
@pytest.mark.parametrize("reason", [None, *ReversalReason])
@pytest.mark.parametrize(
    ("received", "returned"),
    [(Money("USD", 5), None), (idr(5), idr(6)), (idr(5), Money("USD", 5)), (Money("USD", 5), idr(5))],
)
def test_no_text_says_that_nothing_was_taken_where_an_unclear_sum_arrived(
    status: str, failure: str | None, reason: ReversalReason | None, received: Money, returned: Money | None
) -> None:
    report = EngineReport(
        EngineReportStatus(status), failure, reversal_reason=reason, received=received, returned=returned
    )
    over = (PaymentEvent.ENGINE_FAILED, PaymentEvent.ENGINE_REVERSED, PaymentEvent.CHALLENGE_FAILED)
    for event in (*over, PaymentEvent.ENGINE_SEALED):
        assert message_code(report, event, idr(100)) is MessageCode.CLOSED
        assert message_code(report, event, None) is MessageCode.CLOSED


def change_look_ups(shop: Checkout, fields: dict[str, Any]) -> None:
    async def reply(request: Request) -> Response:
        body = (await shop._sandbox(request)).json()
        if fields.get("status", "ACTION_REQUIRED") != "ACTION_REQUIRED":
            body.pop("next_action", None)
        return Response(200, msgspec.json.encode(body | fields))

    shop.replies["look_up"] = reply
