"""A submit first looks the payment up, then rechecks everything without a cache."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from cashier.consultation.answer import OrderUnknown
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.domain.offer_diff import ChangeType
from cashier.domain.pay_method import Availability
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import ConsultChanged, EngineUnavailable, Invalid
from tests.payments.checkout import Checkout, method_by_id

pytestmark = pytest.mark.virtual_time


async def test_a_submit_looks_up_rechecks_asks_risk_sends_and_asks_the_acquirer(shop: Checkout) -> None:
    request = await shop.new_request("balance_is_enough", "BALANCE:acc_1")
    shop.reset_counts()
    payment = await shop.submit(request)
    assert payment.status is PaymentStatus.SUCCEEDED
    assert shop.calls[0] == "look_up"
    assert sorted(shop.calls[1:-3]) == sorted(SOURCE_NAMES)
    assert shop.calls[-3:] == ["decide", "submit", "result"]


async def test_a_retry_reports_the_existing_payment_without_a_recheck(shop: Checkout) -> None:
    request = await shop.new_request("balance_is_enough", "BALANCE:acc_1")
    first = await shop.submit(request)
    shop.reset_counts()
    again = await shop.submit(request)
    assert shop.calls == ["look_up", "result"]
    assert (again.payment_id, again.status, again.amount) == (
        first.payment_id,
        PaymentStatus.SUCCEEDED,
        first.amount,
    )


async def test_a_retry_of_a_payment_that_waits_for_the_payer_repeats_its_action(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    first = await shop.submit(request)
    await asyncio.sleep(3)
    again = await shop.submit(request)
    assert again.status is PaymentStatus.ACTION_REQUIRED
    assert again.next_action == first.next_action
    assert shop.count("submit") == shop.count("decide") == 1
    assert (await shop.cancel(again)).status is PaymentStatus.CLOSED


@pytest.mark.parametrize("fault", ["hang", "error", "overload", "garbage", "truncate", "reset"])
async def test_without_an_answer_to_the_look_up_nothing_is_sent(shop: Checkout, fault: str) -> None:
    request = await shop.new_request("balance_is_enough", "BALANCE:acc_1")
    shop.inject("engine", fault, always=True)
    shop.reset_counts()
    with pytest.raises(EngineUnavailable):
        await shop.submit(request)
    assert set(shop.calls) == {"look_up"}
    shop.clear_faults()
    assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED


async def test_the_look_up_is_retried(shop: Checkout) -> None:
    request = await shop.new_request("balance_is_enough", "BALANCE:acc_1")
    shop.inject("engine", "reset", "error", on="look_up")
    assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED
    assert shop.count("look_up") == 3


async def test_a_stale_cache_decides_nothing(shop: Checkout) -> None:
    consultation = await shop.consult("chinese_shop")
    shop.close_channels("ch_wallet_alipay")
    stale = await shop.consult("chinese_shop")
    assert method_by_id(stale, "WALLET:ALIPAY").availability is Availability.AVAILABLE, "the cache is warm and stale"
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(shop.request_for("chinese_shop", consultation, "WALLET:ALIPAY"))
    assert [change.what for change in changed.value.changes] == [ChangeType.METHOD_CLOSED]
    assert method_by_id(changed.value.consultation, "WALLET:ALIPAY").availability is Availability.UNAVAILABLE
    assert shop.count("decide") == shop.count("submit") == 0


async def test_every_submit_calls_all_sources_despite_a_warm_cache(shop: Checkout) -> None:
    for key in ("k1", "k2", "k3"):
        request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        shop.reset_counts()
        payment = await shop.submit(request, key)
        assert set(shop.calls) >= {*SOURCE_NAMES}
        assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def test_a_submit_for_an_order_that_is_gone_sends_nothing(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    del shop.world.population._orders["o_1001"]
    with pytest.raises(OrderUnknown):
        await shop.submit(request)
    assert shop.count("decide") == shop.count("submit") == 0


@pytest.mark.parametrize(
    ("case", "offered", "method_id", "field"),
    [
        ("chinese_shop", "CARD", "CARD", "card_token"),
        ("scan_to_pay", "CONSUMER_QR", "CONSUMER_QR", "auth_code"),
        ("indonesian_shop", "VA", "VA", "option_id"),
        ("chinese_shop", "CARD", "CASH", "method_id"),
    ],
)
async def test_a_submit_without_a_required_field_is_invalid_and_calls_nothing(
    shop: Checkout, case: str, offered: str, method_id: str, field: str
) -> None:
    request = msgspec.structs.replace(await shop.new_request(case, offered), method_id=method_id)
    shop.reset_counts()
    with pytest.raises(Invalid) as invalid:
        await shop.submit(request)
    assert [fault.field for fault in invalid.value.faults] == [field]
    assert shop.calls == []
