"""Routing: the reported rule, channel and alternatives, and learning once from each payment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cashier.domain.channel_record import ChannelOutcome, with_outcome
from cashier.domain.offer_diff import ChangeType
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentStatus
from cashier.payments import channel_health
from cashier.payments.errors import ConsultChanged
from tests.payments.checkout import Checkout

pytestmark = pytest.mark.virtual_time


def recorded_outcomes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect each outcome that changes a channel record."""
    outcomes: list[str] = []
    record = with_outcome

    def collecting(before: Any, outcome: ChannelOutcome, *rest: Any) -> Any:
        outcomes.append(outcome.value)
        return record(before, outcome, *rest)

    monkeypatch.setattr(channel_health, "with_outcome", collecting)
    return outcomes


async def test_a_routed_card_payment_names_rule_channel_and_alternatives(shop: Checkout) -> None:
    payment = await shop.answer(await shop.pay("chinese_shop", "CARD", card_token="tok_1"))
    assert payment.status is PaymentStatus.SUCCEEDED
    assert payment.route is not None
    assert payment.route.rule == "cheapest_healthy"
    assert {payment.route.channel_id, *payment.route.alternatives} == {"ch_card_adyen", "ch_card_worldpay"}
    submission = shop.submissions[0]
    assert next(leg for leg in submission["legs"] if leg["type"] == "CHANNEL")["id"] == payment.route.channel_id
    assert tuple(submission["alternatives"]) == payment.route.alternatives
    assert f"CHANNEL:{payment.route.channel_id}" in shop.net_taken()


async def test_a_payment_without_a_channel_has_no_route(shop: Checkout) -> None:
    payment = await shop.pay("balance_is_enough", "BALANCE:acc_1")
    assert (payment.status, payment.route) == (PaymentStatus.SUCCEEDED, None)
    assert shop.payments._status_follower._channel_health.records == {}


async def test_a_later_query_still_reports_the_route(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    assert payment.route is not None
    shop.settle(payment)
    assert (await shop.look(payment)).route == payment.route


async def test_a_success_counts_once_although_it_is_reported_often(
    shop: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = recorded_outcomes(monkeypatch)
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    assert outcomes == [], "the outcome is not known yet"
    shop.settle(payment)
    for _ in range(3):
        assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED
    assert (await shop.follow_to_end(payment)).status is PaymentStatus.SUCCEEDED
    assert outcomes == ["WORKED"]
    assert list(shop.payments._status_follower._channel_health.records) == ["ch_wallet_alipay"]


async def test_a_failed_channel_counts_once_and_a_declining_payer_does_not_count(
    shop: Checkout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = recorded_outcomes(monkeypatch)
    declined = await shop.answer(await shop.pay("chinese_shop", "CARD", card_token="tok_declined", key="k1"))
    assert (declined.status, declined.message.code) == (PaymentStatus.FAILED, MessageCode.FAILED)
    await shop.look(declined)
    assert outcomes == ["UNSURE"], "the code is attributed to neither side"
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY", key="k2")
    shop.settle(payment, "FAILED")
    refused = await shop.look(payment)
    assert (refused.status, refused.message.code) == (PaymentStatus.FAILED, MessageCode.DECLINED)
    assert len(outcomes) == 1
    assert shop.net_taken() == {}


async def test_unknown_outcomes_and_cancels_do_not_count(shop: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = recorded_outcomes(monkeypatch)
    shop.inject("engine", "swallow", on="submit")
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY", key="k1")
    assert payment.status is PaymentStatus.PROCESSING
    await asyncio.sleep(60)
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    assert (await shop.cancel(await shop.pay("chinese_shop", "WALLET:ALIPAY", key="k2"))).status is PaymentStatus.CLOSED
    assert outcomes == []


@pytest.mark.parametrize(
    ("auth_code", "channel_id"),
    [
        ("130123456789012340", "ch_cqr_wechat"),
        ("280123456789012340", "ch_cqr_alipay"),
        ("6201234567890123450", "ch_cqr_unionpay"),
    ],
)
async def test_a_wallets_code_is_routed_to_that_wallet_only(shop: Checkout, auth_code: str, channel_id: str) -> None:
    payment = await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=auth_code)
    assert payment.status is PaymentStatus.SUCCEEDED
    assert payment.route is not None
    assert (payment.route.channel_id, payment.route.alternatives) == (channel_id, ())
    assert f"CHANNEL:{channel_id}" in shop.net_taken()


async def test_a_code_of_no_known_wallet_is_routed_among_all(shop: Checkout) -> None:
    payment = await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code="990123456789012340")
    assert payment.status is PaymentStatus.SUCCEEDED
    assert payment.route is not None
    assert len({payment.route.channel_id, *payment.route.alternatives}) == 3


async def test_a_code_of_a_closed_wallet_is_not_routed_to_another(shop: Checkout) -> None:
    request = await shop.new_request("scan_to_pay", "CONSUMER_QR", auth_code="130123456789012340")
    shop.close_channels("ch_cqr_wechat")
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    [change] = changed.value.changes
    assert (change.what, change.message) == (ChangeType.METHOD_CLOSED, "暂停服务，请更换支付方式")
    assert shop.count("submit") == 0


async def test_a_channel_that_closes_after_routing_is_replaced_by_an_alternative(shop: Checkout) -> None:
    held = shop.held["submit"] = asyncio.Event()
    paying = asyncio.create_task(_pay_challenged_card(shop))
    await asyncio.sleep(1)
    first = next(leg for leg in shop.submissions[0]["legs"] if leg["type"] == "CHANNEL")["id"]
    shop.close_channels(first)
    held.set()
    payment = await paying
    assert payment.status is PaymentStatus.SUCCEEDED
    assert [source for source in shop.net_taken() if source.startswith("CHANNEL")] == [
        f"CHANNEL:{shop.submissions[0]['alternatives'][0]}"
    ]


async def _pay_challenged_card(shop: Checkout) -> Payment:
    return await shop.answer(await shop.pay("chinese_shop", "CARD", card_token="tok_1"))
