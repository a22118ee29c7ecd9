"""After a final status: the acquirer's word is passed on with every token, logged and counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import structlog.testing

from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL, PaymentStatus
from cashier.payments.errors import CheckUnavailable, ConsultChanged, RiskRejected
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, checkout

pytestmark = pytest.mark.looptime

CASE, WALLET = "chinese_shop", "WALLET:ALIPAY"


def report_result(shop: Checkout, payment: Payment, **result: Any) -> None:
    """From now on the acquirer reports this about the payment's order."""
    body = msgspec.json.encode({"order_id": payment.order_id, "payment_id": payment.payment_id, **result})

    async def reply(_: Request) -> Response:
        return Response(200, body)

    shop.replies["result"] = reply


async def a_failed_payment(shop: Checkout) -> tuple[Payment, Payment]:
    """As it was sent, and as it ended; each with its own token."""
    sent = await shop.pay(CASE, WALLET)
    shop.settle(sent, "FAILED")
    failed = await shop.look(sent)
    assert failed.status is PaymentStatus.FAILED
    assert failed.payment_token != sent.payment_token
    return sent, failed


@pytest.mark.moves("cashier_payment_corrections_total")
@pytest.mark.parametrize(
    ("result", "status"),
    [
        ({"status": "PAID"}, PaymentStatus.SUCCEEDED),
        ({"status": "CLOSED_REFUNDING"}, PaymentStatus.CLOSED_REFUNDING),
        ({"status": "REFUNDED"}, PaymentStatus.SUCCEEDED),
        ({"status": "REFUNDED", "closed_reason": "CLOSED_BY_MERCHANT"}, PaymentStatus.CLOSED_REFUNDING),
    ],
)
async def test_money_after_a_failure_reaches_every_token_and_the_log_once(
    result: dict[str, Any], status: PaymentStatus
) -> None:
    with structlog.testing.capture_logs() as entries:
        async with checkout() as shop:
            sent, failed = await a_failed_payment(shop)
            report_result(shop, failed, **result)
            for token in (failed, sent, failed, await shop.look(failed)):
                assert (await shop.look(token)).status is status
            assert (await shop.follow_to_end(failed)).status is status
            assert (await shop.cancel(failed)).status is status
            assert shop.payments._status_query._counts.corrections.value == 1
    corrections = [entry for entry in entries if entry["event"] == "the acquirer corrected a final status"]
    assert [(entry["payment_id"], entry["reported"], entry["corrected"]) for entry in corrections] == [
        (failed.payment_id, "FAILED", status.value)
    ]


@pytest.mark.parametrize("caller", ["an older token", "a retry", "another device", "a finder"])
async def test_a_correction_is_counted_whichever_caller_sees_it(caller: str) -> None:
    async with checkout() as shop:
        request = await shop.new_request(CASE, WALLET)
        sent = await shop.submit(request)
        shop.settle(sent, "FAILED")
        assert (await shop.look(sent)).status is PaymentStatus.FAILED
        report_result(shop, sent, status="PAID")
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "an older token": lambda: shop.look(sent),
            "a retry": lambda: shop.submit(request),
            "another device": lambda: shop.resume(CASE, sent.payment_id),
            "a finder": lambda: shop.find(CASE),
        }
        for _ in range(2):
            assert (await calls[caller]()).status is PaymentStatus.SUCCEEDED
        assert shop.payments._status_query._counts.corrections.value == 1


async def test_a_success_that_the_acquirer_takes_back_is_told() -> None:
    async with checkout() as shop:
        sent = await shop.pay(CASE, WALLET)
        shop.settle(sent)
        paid = await shop.look(sent)
        assert paid.status is PaymentStatus.SUCCEEDED
        report_result(shop, paid, status="CLOSED_REFUNDING")
        assert (await shop.look(paid)).status is PaymentStatus.CLOSED_REFUNDING


async def test_another_payments_money_corrects_nothing() -> None:
    async with checkout() as shop:
        sent, failed = await a_failed_payment(shop)
        report_result(shop, failed, status="PAID", payment_id="pay_other")
        assert {(await shop.look(token)).status for token in (sent, failed)} == {PaymentStatus.FAILED}
        assert shop.payments._status_query._counts.corrections.value == 0


@pytest.mark.parametrize(
    ("case", "method_id"), [("balance_is_enough", "BALANCE:acc_1"), (CASE, WALLET), (CASE, "QUICK_PAY:c_2")]
)
async def test_the_same_submit_at_two_workers_is_one_payment_and_no_change(case: str, method_id: str) -> None:
    """Without a shared cache. The first worker's effects are on the second one's way."""
    async with checkout(workers=2) as shop:
        request = await shop.new_request(case, method_id)
        first: list[Payment] = []
        consult = shop.workers[1].payments.policy.consult_uncached  # type: ignore[union-attr]

        async def meanwhile(*arguments: Any) -> Any:
            """The first worker sends the payment after the second one has looked it up."""
            if not first:
                first.append(await shop.submit(request, worker=0))
            return await consult(*arguments)

        payments = shop.payments_of(shop.workers[1])
        payments.policy = msgspec.structs.replace(payments.policy, consult_uncached=meanwhile)
        second = await shop.submit(request, worker=1)
        assert second.payment_id == first[0].payment_id
        assert second.status is first[0].status
        assert shop.count("submit") == len(shop.submissions)
        assert len({body["payment_id"] for body in shop.submissions}) <= 1
        if second.status not in FINAL:
            await shop.cancel(second)


@pytest.mark.parametrize(
    ("risk", "refusal"),
    [
        (Response(200, b'{"decision": "REJECT", "decision_id": "d", "code": "VELOCITY"}'), RiskRejected),
        (Response(500, b"{}"), CheckUnavailable),
    ],
)
@pytest.mark.parametrize("sent", [True, False])
async def test_a_risk_that_refuses_to_decide_twice_refuses_no_payment_that_was_sent(
    risk: Response, refusal: type[Exception], sent: bool
) -> None:
    async with checkout(workers=2) as shop:
        request = await shop.new_request("balance_is_enough", "BALANCE:acc_1")
        asked: list[Payment | None] = []

        async def decide(call: Request) -> Response:
            if asked:
                return await shop._sandbox(call)
            asked.append(None)
            if sent:
                asked.append(await shop.submit(request, worker=0))
            return risk

        shop.replies["decide"] = decide
        if sent:
            second = await shop.submit(request, worker=1)
            assert (second.payment_id, second.status) == (asked[-1].payment_id, PaymentStatus.SUCCEEDED)  # type: ignore[union-attr]
        else:
            with pytest.raises(refusal):
                await shop.submit(request, worker=1)
        assert shop.count("submit") == sent


async def test_a_real_change_is_still_a_change() -> None:
    async with checkout() as shop:
        request = await shop.new_request(CASE, WALLET)
        shop.close_channels("ch_wallet_alipay")
        with pytest.raises(ConsultChanged):
            await shop.submit(request)
        assert shop.count("look_up") == 2
