"""Stream tickets over the sandbox: a payment followed to its end, and nothing else permitted."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from cashier.domain.payment_resource import Payment, StreamTicket
from cashier.domain.payment_state import PaymentStatus
from cashier.tokens.jws import TokenRefused
from tests.payments.checkout import OTP, Checkout, checkout

pytestmark = pytest.mark.virtual_time


def issue(shop: Checkout, payment: Payment) -> StreamTicket:
    return shop.payments.issue_stream_ticket(payment.payment_id, payment.payment_token)


async def follow(shop: Checkout, payment: Payment, ticket: StreamTicket) -> list[Payment]:
    """As a worker that has never seen the payment."""
    claims = shop.payments_of(shop.workers[-1]).read_stream_ticket(payment.payment_id, ticket.ticket)
    async with aclosing(shop.payments_of(shop.workers[-1]).follow_claims(claims)) as updates:
        return [update async for update in updates]


async def test_a_ticket_follows_the_payment_to_its_end_on_any_worker() -> None:
    async with checkout(workers=2) as shop:
        payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
        ticket = issue(shop, payment)
        assert ticket.expires_at == payment.expires_at
        following = asyncio.create_task(follow(shop, payment, ticket))
        await asyncio.sleep(4.5)
        shop.settle(payment)
        updates = await following
        assert [update.status for update in updates] == [PaymentStatus.ACTION_REQUIRED, PaymentStatus.SUCCEEDED]
        assert updates[0].next_action == payment.next_action
        # Used again, it shows the end.
        assert [update.status for update in await follow(shop, payment, ticket)] == [PaymentStatus.SUCCEEDED]


async def test_a_ticket_from_before_the_challenge_sees_what_follows_it(shop: Checkout) -> None:
    payment = await challenged(shop)
    ticket = issue(shop, payment)
    following = asyncio.create_task(follow(shop, payment, ticket))
    await asyncio.sleep(1)
    answered = await shop.answer(payment)
    assert answered.status is PaymentStatus.SUCCEEDED
    statuses = [update.status for update in await following]
    assert statuses[0] is PaymentStatus.CHALLENGE
    assert statuses[-1] is PaymentStatus.SUCCEEDED


async def challenged(shop: Checkout) -> Payment:
    payment = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
    assert payment.status is PaymentStatus.CHALLENGE
    return payment


async def test_a_ticket_permits_nothing_but_following(shop: Checkout) -> None:
    payment = await challenged(shop)
    ticket = issue(shop, payment).ticket
    shop.reset_counts()
    flow, payment_id = shop.payments, payment.payment_id
    for attempt in (
        flow.look(payment_id, ticket),
        flow.cancel(payment_id, ticket),
        flow.answer(payment_id, ticket, OTP),
        anext(flow.follow(payment_id, ticket)),
    ):
        with pytest.raises(TokenRefused, match="TOKEN_WRONG_TYPE"):
            await attempt
    for use in (flow.choice_of, flow.issue_stream_ticket):
        with pytest.raises(TokenRefused, match="TOKEN_WRONG_TYPE"):
            use(payment_id, ticket)
    with pytest.raises(TokenRefused, match="TOKEN_WRONG_TYPE"):
        flow.read_stream_ticket(payment_id, payment.payment_token)
    assert shop.calls == []


async def test_a_ticket_is_for_one_payment_and_ends_with_its_deadline(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    ticket = issue(shop, payment).ticket
    with pytest.raises(TokenRefused, match="TOKEN_OTHER_PAYMENT"):
        shop.payments.read_stream_ticket("pay_" + "a2" * 13, ticket)
    left_s = (payment.expires_at - shop.world.clock()).total_seconds()
    await asyncio.sleep(left_s - 1)
    shop.payments.read_stream_ticket(payment.payment_id, ticket)
    await asyncio.sleep(2)
    with pytest.raises(TokenRefused, match="TOKEN_EXPIRED"):
        shop.payments.read_stream_ticket(payment.payment_id, ticket)
    # The payment may still have to be confirmed.
    late = issue(shop, payment)
    assert (late.expires_at - shop.world.clock()).total_seconds() == pytest.approx(60, abs=1)
    shop.settle(payment)
    assert (await follow(shop, payment, late))[-1].status in (PaymentStatus.SUCCEEDED, PaymentStatus.CLOSED)


async def test_the_choice_names_the_owner_of_a_payment(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    shop.reset_counts()
    chosen = shop.payments.choice_of(payment.payment_id, payment.payment_token)
    assert (chosen.order_id, chosen.user_id, chosen.merchant_id) == ("o_1001", "u_1", "m_1")
    assert shop.calls == []
