"""Tabs hold tokens of different ages.

An older token ends nothing that it does not know; the newest carries the last status.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import msgspec
import pytest

from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import Invalid, KeyReused
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, checkout, method_by_id, without_fingerprint

pytestmark = pytest.mark.virtual_time


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_following_with_the_token_of_a_challenge_passed_elsewhere_does_not_end_the_payment(
    shop: Checkout,
) -> None:
    challenged = await shop.pay("chinese_shop", "CARD", card_token="tok_3ds_1")
    passed = await shop.answer(challenged)
    assert passed.status is PaymentStatus.ACTION_REQUIRED
    assert passed.expires_at > challenged.expires_at
    async with aclosing(shop.payments.follow(challenged.payment_id, challenged.payment_token)) as payments:
        assert (await anext(payments)).status is PaymentStatus.ACTION_REQUIRED
        await asyncio.sleep((challenged.expires_at - shop.world.clock()).total_seconds() + 1)
        shop.settle(passed)
        assert (await anext(payments)).status is PaymentStatus.SUCCEEDED
    assert shop.count("reverse") == 0


async def test_a_long_poll_returns_at_once_if_the_status_is_news_to_the_caller(shop: Checkout) -> None:
    shop.inject("engine", "reset", on="submit")
    unknown = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    assert unknown.status is PaymentStatus.PROCESSING
    started_s = now_s()
    news = await shop.look(unknown, 30_000)
    assert news.status is PaymentStatus.ACTION_REQUIRED
    assert now_s() - started_s == pytest.approx(0, abs=1)
    assert news.payment_token != unknown.payment_token
    again = await shop.look(news, 5_000)
    assert again.status is PaymentStatus.ACTION_REQUIRED
    assert now_s() - started_s == pytest.approx(5, abs=1)
    assert again.payment_token == news.payment_token, "the status has not changed"
    assert (await shop.cancel(again)).status is PaymentStatus.CLOSED


async def test_a_long_poll_shorter_than_the_poll_interval_queries_once_more_at_its_end(shop: Checkout) -> None:
    consultation = await shop.consult("indonesian_shop")
    option_id = method_by_id(consultation, "OTC").options[0].option_id
    payment = await shop.pay("indonesian_shop", "OTC", option_id)
    assert payment.poll_after_ms == 60_000
    waiting = asyncio.create_task(shop.look(payment, 20_000))
    await asyncio.sleep(3)
    shop.settle(payment)
    assert (await waiting).status is PaymentStatus.SUCCEEDED


async def test_a_final_status_stays_while_engine_and_acquirer_are_silent(shop: Checkout) -> None:
    paid = await shop.pay("balance_is_enough", "BALANCE:acc_1")
    shop.inject("engine", "error", always=True)
    shop.inject("acquirer", "error", always=True)
    assert (await shop.look(paid)).status is PaymentStatus.SUCCEEDED
    shop.clear_faults()
    assert (await shop.look(paid)).status is PaymentStatus.SUCCEEDED


async def test_a_token_from_before_the_submit_ends_nothing_while_the_engine_is_silent() -> None:
    # Without a store neither worker knows the other's body.
    async with checkout(workers=2) as shop:
        own = await shop.pay("chinese_shop", "CARD", card_token="tok_3ds_1")
        theirs = await shop.submit(await shop.new_request("chinese_shop", "CARD", card_token="tok_3ds_2"), worker=1)
        assert own.payment_id == theirs.payment_id
        live = await shop.submit(await shop.new_request("chinese_shop", "CARD", card_token="tok_3ds_1"))
        live = await shop.answer(live)
        assert live.status is PaymentStatus.ACTION_REQUIRED
        shop.inject("engine", "error", on="look_up")
        shop.inject("engine", "error", "error", "error", on="look_up")
        assert (await shop.cancel(theirs)).status is PaymentStatus.PROCESSING
        assert shop.count("reverse") == 0
        with pytest.raises(KeyReused):
            await shop.cancel(theirs)
        assert (await shop.look(live)).status is PaymentStatus.ACTION_REQUIRED
        assert (await shop.cancel(live)).status is PaymentStatus.CLOSED


async def test_a_retry_concurrent_with_the_answer_to_its_challenge_is_one_submit(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "QUICK_PAY:c_2")
    challenged = await shop.submit(request)
    shop.reset_counts()
    payments = await asyncio.gather(shop.answer(challenged), shop.submit(request))
    assert {payment.status for payment in payments} == {PaymentStatus.SUCCEEDED}
    assert shop.count("submit") == 1


async def test_a_wrong_answer_has_its_own_message(shop: Checkout) -> None:
    challenged = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
    assert challenged.message.code is MessageCode.CHALLENGE
    assert (await shop.answer(challenged, "000000")).message.code is MessageCode.CHALLENGE_WRONG


async def test_another_body_is_detected_although_the_engine_reports_no_fingerprint(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    first = await shop.submit(request)
    shop.replies["look_up"] = without_fingerprint(shop)
    assert (await shop.submit(request)).status is PaymentStatus.ACTION_REQUIRED
    with pytest.raises(KeyReused):
        await shop.submit(msgspec.structs.replace(request, return_url="https://shop.example/back"))
    shop.replies.clear()
    assert (await shop.cancel(first)).status is PaymentStatus.CLOSED


async def test_a_submit_answered_with_another_fingerprint_is_refused(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    payment_id = (await shop.submit(request)).payment_id
    body = {"payment_id": payment_id, "status": "PROCESSING", "fingerprint": "f" * 64}
    other = await shop.new_request("balance_is_enough", "WALLET:ALIPAY")

    async def other_fingerprint(sent: Request) -> Response:
        return Response(200, msgspec.json.encode(body | {"payment_id": msgspec.json.decode(sent.body)["payment_id"]}))

    shop.replies["submit"] = other_fingerprint
    with pytest.raises(KeyReused):
        await shop.submit(other, "k2")
    shop.replies.clear()
    assert (await shop.cancel(await shop.submit(request))).status is PaymentStatus.CLOSED


async def test_a_field_that_the_chosen_kind_does_not_use_is_not_sent(shop: Checkout) -> None:
    code = "62" + "0" * 17
    payment = await shop.pay("chinese_shop", "CARD", card_token="tok_1", auth_code=code)
    payment = await shop.answer(payment)
    assert payment.status is PaymentStatus.SUCCEEDED
    assert all("auth_code" not in body for body in shop.submissions)
    assert payment.route is not None


@pytest.mark.parametrize("key", ["", "bad key!", "k" * 65, "4111111111111111"])
async def test_an_embedding_program_has_the_same_bounds_on_keys(shop: Checkout, key: str) -> None:
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    shop.reset_counts()
    with pytest.raises(Invalid):
        await shop.submit(request, key)
    assert shop.calls == []


async def test_an_embedding_program_cannot_submit_a_card_number(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "CARD", card_token="4111111111111111")
    shop.reset_counts()
    with pytest.raises(Invalid) as refused:
        await shop.submit(request)
    assert [fault.code for fault in refused.value.faults] == ["LOOKS_LIKE_PAN"]
    assert "4111" not in str(refused.value)
    challenged = await shop.pay("chinese_shop", "QUICK_PAY:c_2", key="k2")
    with pytest.raises(Invalid):
        await shop.answer(challenged, "4111 1111 1111 1111")
    assert shop.count("verify") == 0
