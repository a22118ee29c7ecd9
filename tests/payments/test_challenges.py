"""Risk accepts, rejects or challenges. A challenge continues the same payment and always ends."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import CheckUnavailable, RiskRejected
from cashier.wire.transport import Request, Response
from tests.payments.checkout import OTP, Checkout, Reply, checkout

pytestmark = pytest.mark.virtual_time

TYPES = [
    ("SMS_OTP", "chinese_shop", "QUICK_PAY:c_2", None, 12_800),
    ("PASSWORD", "chinese_shop", "BALANCE:acc_2", None, 12_800),
    ("THREE_DS", "chinese_shop", "CARD", "tok_1", 12_800),
    ("BIOMETRIC", "chinese_shop", "BALANCE:acc_2", None, 80_000),
]


async def challenged(shop: Checkout) -> Payment:
    payment = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
    assert payment.status is PaymentStatus.CHALLENGE
    return payment


@pytest.mark.parametrize(("type_", "case", "method_id", "card_token", "value"), TYPES)
async def test_a_challenge_of_each_type_continues_the_same_payment(
    type_: str, case: str, method_id: str, card_token: str | None, value: int
) -> None:
    async with checkout(order_cny={"o_1001": value}) as shop:
        payment = await shop.pay(case, method_id, card_token=card_token)
        assert payment.status is PaymentStatus.CHALLENGE
        assert payment.challenge is not None
        assert (payment.challenge.type, payment.challenge.trigger, payment.challenge.attempts_left) == (
            type_,
            "RISK",
            3,
        )
        assert payment.message.code is MessageCode.CHALLENGE
        assert shop.entries == (), "no money moves before the answer"
        paid = await shop.answer(payment)
        assert (paid.payment_id, paid.status, paid.challenge) == (payment.payment_id, PaymentStatus.SUCCEEDED, None)
        assert shop.count("decide") == shop.count("verify") == shop.count("submit") == 1
        assert shop.payments_that_paid("o_1001") == [payment.payment_id]


async def test_a_payer_rejected_by_risk_sends_nothing(shop: Checkout) -> None:
    with pytest.raises(RiskRejected) as rejected:
        await shop.pay("listed_by_risk", "WALLET:ALIPAY")
    assert rejected.value.code == "USER_LISTED"
    assert shop.count("submit") == 0
    assert shop.entries == ()


async def test_a_payment_accepted_by_risk_needs_no_challenge(shop: Checkout) -> None:
    payment = await shop.pay("balance_is_enough", "BALANCE:acc_1")
    assert (payment.status, payment.challenge) == (PaymentStatus.SUCCEEDED, None)
    assert shop.count("verify") == 0


async def test_wrong_answers_are_counted_until_the_payment_fails_for_good(shop: Checkout) -> None:
    payment = first = await challenged(shop)
    for left in (2, 1):
        payment = await shop.answer(payment, "000000")
        assert payment.challenge is not None
        assert (payment.status, payment.challenge.attempts_left) == (PaymentStatus.CHALLENGE, left)
    spent = await shop.answer(payment, "000000")
    assert (spent.status, spent.challenge) == (PaymentStatus.FAILED, None)
    assert spent.message.code is MessageCode.CHALLENGE_FAILED
    for token in (first, payment, spent):
        assert (await shop.answer(token)).status is PaymentStatus.FAILED, (
            "the right answer comes too late, with any token"
        )
    assert (await shop.pay("chinese_shop", "QUICK_PAY:c_2")).status is PaymentStatus.FAILED
    assert shop.count("submit") == 0
    assert shop.entries == ()


async def test_wrong_answers_are_counted_although_risk_never_counts(shop: Checkout) -> None:
    payment = await challenged(shop)
    shop.replies["verify"] = _verified("FAILED", 3)
    for left in (2, 1):
        payment = await shop.answer(payment, "000000")
        assert payment.challenge is not None
        assert payment.challenge.attempts_left == left
    assert (await shop.answer(payment, "000000")).status is PaymentStatus.FAILED
    assert shop.entries == ()


async def test_a_right_answer_after_wrong_ones_passes(shop: Checkout) -> None:
    payment = await shop.answer(await shop.answer(await challenged(shop), "1"), "2")
    assert (await shop.answer(payment)).status is PaymentStatus.SUCCEEDED


async def test_a_challenge_expires_counted_from_its_start_despite_answers(shop: Checkout) -> None:
    payment = await challenged(shop)
    assert payment.challenge is not None
    until = payment.challenge.expires_at
    await asyncio.sleep(200)
    payment = await shop.answer(payment, "000000")
    assert payment.challenge is not None
    assert payment.challenge.expires_at == until
    await asyncio.sleep(101)
    shop.reset_counts()
    over = await shop.answer(payment)
    assert over.status is PaymentStatus.CLOSED
    assert shop.count("verify") == 0, "risk is not called for an expired challenge"
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    assert shop.entries == ()


async def test_an_unanswered_challenge_is_closed_by_the_next_query(shop: Checkout) -> None:
    payment = await challenged(shop)
    await asyncio.sleep(299)
    assert (await shop.look(payment)).status is PaymentStatus.CHALLENGE
    await asyncio.sleep(2)
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    assert (await shop.follow_to_end(payment)).status is PaymentStatus.CLOSED


async def test_a_challenge_that_risk_calls_expired_is_over_before_its_own_expiry(shop: Checkout) -> None:
    payment = await challenged(shop)
    shop.replies["verify"] = _verified("EXPIRED", 0)
    assert (await shop.answer(payment)).status is PaymentStatus.CLOSED
    assert shop.entries == ()


async def test_a_challenge_passed_in_another_tab_shows_as_paid_here(shop: Checkout) -> None:
    payment = await challenged(shop)
    paid = await shop.answer(payment)
    shop.reset_counts()
    assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED
    late = await shop.answer(payment, "000000")
    assert (late.payment_id, late.status) == (paid.payment_id, PaymentStatus.SUCCEEDED)
    assert shop.count("verify") == shop.count("submit") == 0


async def test_the_same_answer_from_two_tabs_runs_once(shop: Checkout) -> None:
    payment = await challenged(shop)
    first, second = await asyncio.gather(shop.answer(payment), shop.answer(payment))
    assert first == second
    assert first.status is PaymentStatus.SUCCEEDED
    assert shop.count("verify") == shop.count("submit") == 1


async def test_concurrent_right_and_wrong_answers_pay_once(shop: Checkout) -> None:
    payment = await challenged(shop)
    answered = await asyncio.gather(shop.answer(payment, "000000"), shop.answer(payment))
    assert {payment.status for payment in answered} <= {
        PaymentStatus.CHALLENGE,
        PaymentStatus.SUCCEEDED,
        PaymentStatus.PROCESSING,
    }
    assert shop.payments_that_paid("o_1001") == [payment.payment_id]


async def test_a_retry_with_the_same_key_meets_the_same_challenge(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "QUICK_PAY:c_2")
    first = await shop.submit(request)
    await shop.answer(first, "000000")
    await asyncio.sleep(100)
    again = await shop.submit(request)
    assert first.challenge is not None
    assert again.challenge is not None
    assert again.payment_id == first.payment_id
    assert again.challenge.challenge_id == first.challenge.challenge_id
    assert again.challenge.expires_at == first.challenge.expires_at
    assert again.challenge.attempts_left == 2, "risk has counted"
    assert (await shop.answer(again)).status is PaymentStatus.SUCCEEDED


async def test_another_worker_continues_a_challenge_from_its_token() -> None:
    async with checkout(workers=2) as shop:
        payment = await challenged(shop)
        answered = await shop.payments_of(shop.workers[1]).answer(payment.payment_id, payment.payment_token, OTP)
        assert answered.status is PaymentStatus.SUCCEEDED


async def test_a_challenged_agreement_is_rejected_because_no_payer_is_present(shop: Checkout) -> None:
    shop.replies["decide"] = _challenging("ch_1")
    with pytest.raises(RiskRejected) as rejected:
        await shop.pay("chinese_shop", "AGREEMENT:ag_1")
    assert rejected.value.code == "CHALLENGE_WITHOUT_PAYER"
    assert shop.count("submit") == 0


@pytest.mark.parametrize(
    "fault", ["hang", "error", "overload", "garbage", "truncate", "reset", "cut", "swallow", "arrives_late"]
)
async def test_without_a_decision_from_risk_nothing_is_sent(shop: Checkout, fault: str) -> None:
    request = await shop.new_request("chinese_shop", "QUICK_PAY:c_2")
    shop.inject("risk", fault, on="decide")
    with pytest.raises(CheckUnavailable) as unavailable:
        await shop.submit(request)
    assert unavailable.value.silent == ("risk",)
    assert shop.count("decide") == 1, "a decision may send a text message"
    assert shop.count("submit") == 0
    assert (await shop.answer(await shop.submit(request))).status is PaymentStatus.SUCCEEDED


@pytest.mark.parametrize(
    "fault", ["hang", "error", "overload", "garbage", "truncate", "reset", "cut", "swallow", "arrives_late"]
)
async def test_without_a_verification_from_risk_the_answer_may_be_repeated(shop: Checkout, fault: str) -> None:
    payment = await challenged(shop)
    shop.inject("risk", fault, on="verify")
    with pytest.raises(CheckUnavailable) as unavailable:
        await shop.answer(payment)
    assert unavailable.value.silent == ("risk",)
    assert shop.count("verify") == 1
    assert shop.count("submit") == 0
    assert (await shop.answer(payment)).status is PaymentStatus.SUCCEEDED


async def test_a_challenge_lost_by_risk_is_replaced_for_the_same_payment_at_most_twice(shop: Checkout) -> None:
    payment = await challenged(shop)
    seen = {payment.challenge.challenge_id} if payment.challenge else set()
    for _ in range(2):
        shop.world.risk._records.clear()
        before, payment = payment, await shop.answer(payment)
        assert (payment.status, payment.payment_id) == (PaymentStatus.CHALLENGE, before.payment_id)
        assert payment.challenge is not None
        seen.add(payment.challenge.challenge_id)
    assert len(seen) == 3
    shop.world.risk._records.clear()
    with pytest.raises(RiskRejected) as rejected:
        await shop.answer(payment)
    assert rejected.value.code == "CHALLENGES_SPENT"
    assert shop.count("submit") == 0


async def test_a_replacement_challenge_is_passed_like_the_first(shop: Checkout) -> None:
    payment = await challenged(shop)
    shop.world.risk._records.clear()
    assert (await shop.answer(await shop.answer(payment))).status is PaymentStatus.SUCCEEDED
    assert shop.count("submit") == 1


async def test_the_engine_gets_the_decision_of_the_passed_challenge(shop: Checkout) -> None:
    await shop.answer(await challenged(shop))
    decided = next(body for name, body in shop.bodies if name == "decide")
    assert decided["amount"] == {"currency": "CNY", "value": 10_872}
    assert (decided["kind"], decided["instrument_id"]) == ("QUICK_PAY", "c_2")
    assert [body["decision_id"] for body in shop.submissions] == ["d_1"]


def _verified(status: str, attempts_left: int) -> Reply:
    return _reply({"status": status, "attempts_left": attempts_left})


def _challenging(challenge_id: str) -> Reply:
    challenge = {
        "challenge_id": challenge_id,
        "type": "SMS_OTP",
        "render_value": "138****1234",
        "attempts_left": 3,
        "expires_at": "2026-11-02T12:05:00+00:00",
    }
    return _reply({"decision": "CHALLENGE", "decision_id": "d_1", "challenge": challenge})


def _reply(body: object) -> Reply:
    async def reply(request: Request) -> Response:
        return Response(200, msgspec.json.encode(body))

    return reply
