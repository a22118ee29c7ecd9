"""One payment, one end, for every token, a retry with the key, and other workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_request import PaymentRequest
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL, PaymentStatus
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, call_name, checkout

pytestmark = pytest.mark.looptime

CASE = "chinese_shop"
WRONG = "000000"


async def spend(shop: Checkout, payment: Payment) -> list[Payment]:
    tokens = [payment]
    for _ in range(3):
        tokens.append(await shop.answer(tokens[-1], WRONG))
    return tokens


async def expire(shop: Checkout, payment: Payment) -> list[Payment]:
    await asyncio.sleep(301)
    return [payment, await shop.look(payment)]


async def cancel(shop: Checkout, payment: Payment) -> list[Payment]:
    return [payment, await shop.cancel(payment)]


async def order_closes(shop: Checkout, payment: Payment) -> list[Payment]:
    shop.world.acquirer.close(payment.order_id)
    return [payment, await shop.look(payment)]


async def cancel_what_was_spent_elsewhere(shop: Checkout, payment: Payment) -> list[Payment]:
    return [*await spend(shop, payment), await shop.cancel(payment)]


async def spend_what_was_cancelled_elsewhere(shop: Checkout, payment: Payment) -> list[Payment]:
    return [await shop.cancel(payment), *await spend(shop, payment)]


ENDS: dict[Callable[[Checkout, Payment], Awaitable[list[Payment]]], tuple[PaymentStatus, MessageCode]] = {
    spend: (PaymentStatus.FAILED, MessageCode.CHALLENGE_FAILED),
    cancel_what_was_spent_elsewhere: (PaymentStatus.FAILED, MessageCode.CHALLENGE_FAILED),
    cancel: (PaymentStatus.CLOSED, MessageCode.CANCELLED),
    spend_what_was_cancelled_elsewhere: (PaymentStatus.CLOSED, MessageCode.CANCELLED),
    expire: (PaymentStatus.CLOSED, MessageCode.CLOSED_UNPAID),
    order_closes: (PaymentStatus.CLOSED, MessageCode.CLOSED_UNPAID),
}
GENERIC = (PaymentStatus.CLOSED, MessageCode.CLOSED_UNPAID)


def reports_reasons(shop: Checkout) -> None:
    """As the sandbox does."""


def reports_reasons_in_look_ups_only(shop: Checkout) -> None:
    _replace_answers(shop, "reverse", lambda status, body: (status, _without_reason(body)))


def reports_no_reasons(shop: Checkout) -> None:
    for call in ("look_up", "reverse", "submit"):
        _replace_answers(shop, call, lambda status, body: (status, _without_reason(body)))


def forgets_what_it_refuses(shop: Checkout) -> None:
    """Sealed payments are unknown to look-ups, and no reason is reported."""
    reports_no_reasons(shop)
    _replace_answers(
        shop,
        "look_up",
        lambda status, body: (
            (404, {"code": "PAYMENT_UNKNOWN"})
            if body.get("failure", {}).get("code") == "REVERSED" and "order_id" not in body
            else (status, _without_reason(body))
        ),
    )


@pytest.mark.parametrize("engine", [reports_reasons, reports_reasons_in_look_ups_only, reports_no_reasons])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_every_caller_gets_the_same_end(
    end: Callable[[Checkout, Payment], Awaitable[list[Payment]]], engine: Callable[[Checkout], None]
) -> None:
    async with checkout(workers=2) as shop:
        engine(shop)
        request = await shop.new_request(CASE, "QUICK_PAY:c_2")
        tokens = await end(shop, await shop.submit(request))
        expected = GENERIC if engine is reports_no_reasons else ENDS[end]
        seen = [await shop.look(token) for token in tokens]
        seen += [await ask(shop, tokens, request) for ask in (_other_worker, _key, _key_elsewhere, _answer, _cancel)]
        seen.append(tokens[-1])
        assert {(payment.status, payment.message.code) for payment in seen} == {expected}
        assert shop.count("submit") == 0


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_an_engine_that_forgets_what_it_refuses_ends_it_the_same_for_all(
    end: Callable[[Checkout, Payment], Awaitable[list[Payment]]],
) -> None:
    """An open challenge may seem open for longer, but no caller gets another end."""
    async with checkout(workers=2) as shop:
        forgets_what_it_refuses(shop)
        request = await shop.new_request(CASE, "QUICK_PAY:c_2")
        tokens = await end(shop, await shop.submit(request))
        seen = [await shop.look(token) for token in tokens]
        # The order of a closed one is checked before the challenge goes on.
        asks = (_other_worker, _cancel) if end is order_closes else (_other_worker, _answer, _cancel)
        seen += [await ask(shop, tokens, request) for ask in asks]
        finals = {(payment.status, payment.message.code) for payment in seen if payment.status in FINAL}
        assert finals == {GENERIC}
        assert shop.net_taken() == {}


async def test_two_workers_that_reverse_for_different_reasons_report_the_first_one() -> None:
    async with checkout(workers=2) as shop:
        payment = await shop.pay(CASE, "QUICK_PAY:c_2")
        shop.held["reverse"] = asyncio.Event()
        cancelled = asyncio.create_task(shop.cancel(payment))
        shop.world.acquirer.close(payment.order_id)
        over = asyncio.create_task(_other_worker(shop, [payment], None))
        await asyncio.sleep(0.1)
        assert shop.count("reverse") == 2
        shop.held["reverse"].set()
        ends = {(end.status, end.message.code) for end in await asyncio.gather(cancelled, over)}
        assert len(ends) == 1
        assert ends == {(latest.status, latest.message.code) for latest in [await shop.look(payment)]}


async def test_an_unanswered_look_up_after_a_seal_decides_nothing() -> None:
    """Another caller's reason may be the first one, so the end is not known yet."""
    async with checkout() as shop:
        reports_reasons_in_look_ups_only(shop)
        payment = await shop.pay(CASE, "QUICK_PAY:c_2")
        seen = shop.count("look_up")
        answered = shop._sandbox

        async def fail_after_the_seal(request: Request) -> Response:
            silent = shop.count("reverse") and shop.count("look_up") > seen + 1
            return Response(500, b"{}") if silent else await answered(request)

        shop.replies["look_up"] = fail_after_the_seal
        cancelled = await shop.cancel(payment)
        assert (cancelled.status, cancelled.message.code) == (PaymentStatus.PROCESSING, MessageCode.CLOSING)
        del shop.replies["look_up"]
        ended = await shop.look(cancelled)
        assert (ended.status, ended.message.code) == (PaymentStatus.CLOSED, MessageCode.CANCELLED)


async def _other_worker(shop: Checkout, tokens: list[Payment], request: PaymentRequest | None) -> Payment:
    oldest = tokens[0]
    return await shop.payments_of(shop.workers[1]).look(oldest.payment_id, oldest.payment_token)


async def _key(shop: Checkout, tokens: list[Payment], request: PaymentRequest) -> Payment:
    return await shop.submit(request)


async def _key_elsewhere(shop: Checkout, tokens: list[Payment], request: PaymentRequest) -> Payment:
    return await shop.submit(request, worker=1)


async def _answer(shop: Checkout, tokens: list[Payment], request: PaymentRequest) -> Payment:
    return await shop.answer(tokens[0])


async def _cancel(shop: Checkout, tokens: list[Payment], request: PaymentRequest) -> Payment:
    return await shop.cancel(tokens[0])


def _without_reason(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "reversal_reason"}


def _replace_answers(
    shop: Checkout, call: str, change: Callable[[int, dict[str, Any]], tuple[int, dict[str, Any]]]
) -> None:
    async def reply(request: Request) -> Response:
        assert call_name(request) == call
        response = await shop._sandbox(request)
        status, body = change(response.status, response.json())
        return Response(status, msgspec.json.encode(body))

    shop.replies[call] = reply
