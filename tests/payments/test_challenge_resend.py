"""The code of a challenge is sent again: seldom, and only while its challenge is open."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from cashier.domain.challenge_progress import MAX_RESENDS
from cashier.domain.payment_resource import ChallengeSent, Payment
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import NotResendable, ResendUnconfirmed
from cashier.sandbox.risk import RESEND_AFTER_S
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, SharedStore, checkout

pytestmark = pytest.mark.virtual_time

CASE, CARD = "chinese_shop", "QUICK_PAY:c_2"


def advance(shop: Checkout, seconds: int = RESEND_AFTER_S) -> None:
    shop.world.clock.advance(timedelta(seconds=seconds))


def messages(shop: Checkout, payment: Payment) -> int:
    """The text messages that risk has sent for the payment's challenge."""
    assert payment.challenge is not None
    challenge = shop.world.risk._challenge(payment.challenge.challenge_id, payment.payment_id)
    assert challenge is not None
    return challenge.sent


async def test_a_code_is_sent_again_and_answered(shop: Checkout) -> None:
    payment = await shop.pay(CASE, CARD)
    advance(shop)
    assert await shop.resend(payment) == ChallengeSent(resend_after_s=RESEND_AFTER_S, sent=True)
    assert messages(shop, payment) == 2
    assert (await shop.answer(payment)).status is PaymentStatus.SUCCEEDED
    with pytest.raises(NotResendable):
        await shop.resend(payment)


async def test_the_challenge_says_from_when_its_code_may_be_sent_again(shop: Checkout) -> None:
    payment = await shop.pay(CASE, CARD)
    assert payment.challenge is not None
    assert payment.challenge.resend_at is not None
    left_s = (payment.challenge.resend_at - shop.world.clock()).total_seconds()
    assert RESEND_AFTER_S - 2 <= left_s <= RESEND_AFTER_S
    advance(shop)
    assert (await shop.resend(payment)).sent


async def test_a_resend_too_early_sends_nothing_and_is_not_counted(shop: Checkout) -> None:
    payment = await shop.pay(CASE, CARD)
    for _ in range(MAX_RESENDS + 1):
        assert await shop.resend(payment) == ChallengeSent(resend_after_s=RESEND_AFTER_S, sent=False)
    assert messages(shop, payment) == 1
    advance(shop)
    assert (await shop.resend(payment)).sent


@pytest.mark.parametrize("shared", [False, True])
async def test_the_last_resend_says_so_and_beyond_it_risk_is_not_asked(shared: bool) -> None:
    store = SharedStore() if shared else None
    async with checkout(workers=2, store=store) as shop:
        payment = await shop.pay(CASE, CARD)
        for number in range(1, MAX_RESENDS + 1):
            advance(shop)
            sent = await shop.resend(payment, worker=number % 2 if shared else 0)
            assert (sent.sent, sent.resend_after_s is None) == (True, number == MAX_RESENDS)
        shop.reset_counts()
        for worker in (0, 1) if shared else (0,):
            with pytest.raises(NotResendable, match="too many"):
                await shop.resend(payment, worker)
        assert shop.count("resend") == 0


async def test_a_double_click_sends_one_code(shop: Checkout) -> None:
    payment = await shop.pay(CASE, CARD)
    advance(shop)
    first, second = await asyncio.gather(shop.resend(payment), shop.resend(payment))
    assert first == second
    assert (shop.count("resend"), messages(shop, payment)) == (1, 2)


@pytest.mark.parametrize("body", [b"", b"<html>no such page</html>", b'{"code": "CHALLENGE_UNKNOWN"}'])
async def test_a_risk_service_without_resends_offers_none(shop: Checkout, body: bytes) -> None:
    async def absent(request: Request) -> Response:
        return Response(404, body)

    payment = await shop.pay(CASE, CARD)
    shop.replies["resend"] = absent
    with pytest.raises(NotResendable, match="does not offer"):
        await shop.resend(payment)
    assert (await shop.answer(payment)).status is PaymentStatus.SUCCEEDED


async def test_a_silent_risk_service_counts_as_a_resend(shop: Checkout) -> None:
    payment = await shop.pay(CASE, CARD)
    shop.inject("risk", *["reset"] * MAX_RESENDS, on="resend")
    for _ in range(MAX_RESENDS):
        advance(shop)
        with pytest.raises(ResendUnconfirmed):
            await shop.resend(payment)
    with pytest.raises(NotResendable, match="too many"):
        await shop.resend(payment)


async def test_a_password_and_a_cancelled_or_expired_challenge_are_not_sent_again(shop: Checkout) -> None:
    password = await shop.pay(CASE, "BALANCE:acc_2")
    with pytest.raises(NotResendable, match="does not offer"):
        await shop.resend(password)
    shop.reset_counts()
    payment = await shop.pay(CASE, CARD, key="k2")
    cancelled = await shop.cancel(payment)
    with pytest.raises(NotResendable, match="no open challenge"):
        await shop.resend(cancelled)
    advance(shop, 600)
    with pytest.raises(NotResendable, match="over"):
        await shop.resend(payment)
    assert shop.count("resend") == 0
