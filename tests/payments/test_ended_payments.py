"""A payment that was seen to end is not sent again, although the engine may call it unknown."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_state import PaymentStatus
from cashier.payments import remembering_engine
from cashier.payments.errors import KeyReused
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, checkout

pytestmark = pytest.mark.looptime

CASE, METHOD = "balance_is_enough", "BALANCE:acc_1"
# Final answers to a submit, and how the payment ended.
FINAL_ANSWERS = [
    ({"status": "FAILED", "failure": {"code": "DECLINED", "text": ""}}, PaymentStatus.FAILED, MessageCode.DECLINED),
    ({"status": "FAILED"}, PaymentStatus.FAILED, MessageCode.FAILED),
    ({"status": "FAILED", "failure": {"code": "EXPIRED", "text": ""}}, PaymentStatus.CLOSED, MessageCode.CLOSED),
    ({"status": "SUCCEEDED"}, PaymentStatus.PROCESSING, MessageCode.CONFIRMING),
]


def answers_and_forgets(shop: Checkout, fields: dict[str, object]) -> None:
    """Submits get this answer, and nothing of them is kept."""

    async def reply(request: Request) -> Response:
        body = msgspec.json.decode(request.body)
        return Response(200, msgspec.json.encode({"payment_id": body["payment_id"], **fields}))

    shop.replies["submit"] = reply


@pytest.mark.parametrize(("answer", "status", "message"), FINAL_ANSWERS)
async def test_a_retry_after_a_final_answer_sends_nothing_though_the_look_up_says_unknown(
    answer: dict[str, object], status: PaymentStatus, message: MessageCode
) -> None:
    async with checkout() as shop:
        answers_and_forgets(shop, answer)
        request = await shop.new_request(CASE, METHOD)
        first = await shop.submit(request)
        again = await shop.submit(request)
        looked = await shop.look(first)
        assert {(each.status, each.message.code) for each in (first, again, looked)} == {(status, message)}
        assert shop.count("submit") == 1


async def test_a_success_that_the_engine_has_lost_for_a_minute_may_be_submitted_again() -> None:
    """Engine and acquirer have begun anew: the same id is a new payment to both."""
    async with checkout() as shop:
        answers_and_forgets(shop, {"status": "SUCCEEDED"})
        request = await shop.new_request(CASE, METHOD)
        await shop.submit(request)
        await asyncio.sleep(59)
        await shop.submit(request)
        assert shop.count("submit") == 1
        await asyncio.sleep(2)
        await shop.submit(request)
        assert shop.count("submit") == 2


async def test_the_sandbox_forgets_what_it_refused_and_the_retry_is_not_sent() -> None:
    async with checkout() as shop:
        request = await shop.new_request("scan_to_pay", "CONSUMER_QR", auth_code="130123456789012340")
        shop.world.engine._inputs.used_codes.add("130123456789012340")
        shop.inject("engine", "forget", on="submit")
        refused = await shop.submit(request)
        assert refused.status is PaymentStatus.FAILED
        assert shop.world.engine.attempt(refused.payment_id) is None
        again = await shop.submit(request)
        assert (again.status, again.message) == (refused.status, refused.message)
        assert shop.count("submit") == 1


async def test_another_key_is_sent_after_a_refusal_that_the_engine_forgot() -> None:
    async with checkout() as shop:
        answers_and_forgets(shop, {"status": "FAILED"})
        assert (await shop.pay(CASE, METHOD)).status is PaymentStatus.FAILED
        del shop.replies["submit"]
        assert (await shop.pay(CASE, METHOD, key="k2")).status is PaymentStatus.SUCCEEDED


async def test_an_old_token_of_an_ended_payment_does_not_pass_its_challenge_again() -> None:
    async with checkout() as shop:
        payment = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
        answers_and_forgets(shop, {"status": "FAILED"})
        failed = await shop.answer(payment)
        assert failed.status is PaymentStatus.FAILED
        for token in (payment, failed):
            assert (await shop.answer(token)).status is PaymentStatus.FAILED
        assert shop.count("submit") == 1


async def test_the_newest_token_is_enough_for_a_worker_without_that_memory() -> None:
    async with checkout(workers=2) as shop:
        payment = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
        answers_and_forgets(shop, {"status": "FAILED"})
        failed = await shop.answer(payment)
        elsewhere = shop.payments_of(shop.workers[1])
        again = await elsewhere.answer(failed.payment_id, failed.payment_token, "246810")
        assert again.status is PaymentStatus.FAILED
        assert shop.count("submit") == 1


async def test_a_later_answer_of_the_engine_counts_and_not_the_memory() -> None:
    async with checkout() as shop:
        answers_and_forgets(shop, {"status": "FAILED"})
        request = await shop.new_request(CASE, METHOD)
        await shop.submit(request)

        async def succeeded(call: Request) -> Response:
            payment_id = call.target.rpartition("/")[2]
            return Response(200, msgspec.json.encode({"payment_id": payment_id, "status": "SUCCEEDED"}))

        shop.replies["look_up"] = succeeded
        again = await shop.submit(request)
        assert again.message.code is MessageCode.CONFIRMING
        assert shop.count("submit") == 1


async def test_the_memory_of_another_body_is_not_shown() -> None:
    async with checkout() as shop:
        answers_and_forgets(shop, {"status": "FAILED"})
        await shop.pay(CASE, METHOD)
        with pytest.raises(KeyReused):
            await shop.pay(CASE, "BALANCE:acc_2")


async def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering_engine, "_MOST_ENDED", 3)
    monkeypatch.setattr(remembering_engine, "_MOST_SENT", 3)
    async with checkout() as shop:
        answers_and_forgets(shop, {"status": "FAILED"})
        for number in range(5):
            await shop.pay(CASE, METHOD, key=f"k{number}")
        assert "ended=3 sent=3" in repr(shop.payments._ports.engine)
