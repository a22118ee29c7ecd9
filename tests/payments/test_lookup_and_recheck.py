"""Before anything else it is looked whether the payment is there; then everything is asked again, from nobody's memory."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from cashier.consultation.flow import OrderUnknown
from cashier.domain.offer_diff import ChangeType
from cashier.domain.pay_method import Availability
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import ConsultChanged, EngineUnavailable, Invalid
from tests.payments.checkout import GATING, REQUIRED, checkout, method_by_id

pytestmark = pytest.mark.looptime
SOURCES = {*REQUIRED, *GATING, "marketing"}


async def test_a_submit_looks_up_then_asks_all_eight_then_risk_then_the_engine_then_the_acquirer() -> None:
    async with checkout() as shop:
        request = await shop.new_request("balance_is_enough", "BALANCE:acc_1")
        shop.reset_counts()
        payment = await shop.submit(request)
        assert payment.status is PaymentStatus.SUCCEEDED
        assert shop.calls[0] == "look_up"
        assert sorted(shop.calls[1:9]) == sorted(SOURCES)
        assert shop.calls[9:] == ["decide", "submit", "result"]


async def test_a_payment_that_is_there_is_told_and_nothing_is_asked_again() -> None:
    async with checkout() as shop:
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


async def test_one_that_waits_for_the_payer_is_told_with_what_the_payer_has_to_do() -> None:
    async with checkout() as shop:
        request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        first = await shop.submit(request)
        await asyncio.sleep(3)
        again = await shop.submit(request)
        assert again.status is PaymentStatus.ACTION_REQUIRED
        assert again.next_action == first.next_action
        assert shop.count("submit") == shop.count("decide") == 1
        assert (await shop.cancel(again)).status is PaymentStatus.CLOSED


@pytest.mark.parametrize("fault", ["hang", "error", "overload", "garbage", "truncate", "reset"])
async def test_without_an_answer_to_the_first_look_nothing_at_all_is_sent(fault: str) -> None:
    async with checkout() as shop:
        request = await shop.new_request("balance_is_enough", "BALANCE:acc_1")
        shop.inject("engine", fault, always=True)
        shop.reset_counts()
        with pytest.raises(EngineUnavailable):
            await shop.submit(request)
        assert set(shop.calls) == {"look_up"}
        shop.clear_faults()
        assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED


async def test_the_first_look_is_made_again_before_it_is_given_up() -> None:
    async with checkout() as shop:
        request = await shop.new_request("balance_is_enough", "BALANCE:acc_1")
        shop.inject("engine", "reset", "error", on="look_up")
        assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED
        assert shop.count("look_up") == 3


async def test_a_cache_that_is_behind_decides_nothing() -> None:
    async with checkout() as shop:
        offer = await shop.consult("chinese_shop")
        shop.close_channels("ch_wallet_alipay")
        behind = await shop.consult("chinese_shop")
        assert method_by_id(behind, "WALLET:ALIPAY").availability is Availability.AVAILABLE, (
            "the cache is warm, and behind"
        )
        with pytest.raises(ConsultChanged) as changed:
            await shop.submit(shop.request_for("chinese_shop", offer, "WALLET:ALIPAY"))
        assert [change.what for change in changed.value.changes] == [ChangeType.METHOD_CLOSED]
        assert method_by_id(changed.value.consultation, "WALLET:ALIPAY").availability is Availability.UNAVAILABLE
        assert shop.count("decide") == shop.count("submit") == 0


async def test_every_submit_asks_all_eight_anew_however_warm_the_cache_is() -> None:
    async with checkout() as shop:
        for key in ("k1", "k2", "k3"):
            request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
            shop.reset_counts()
            payment = await shop.submit(request, key)
            assert set(shop.calls) >= SOURCES
            assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def test_an_order_that_is_gone_is_unknown_and_nothing_is_sent() -> None:
    async with checkout() as shop:
        request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        del shop.world.cast._orders["o_1001"]
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
async def test_a_submit_without_what_its_way_needs_is_invalid_and_nobody_is_asked(
    case: str, offered: str, method_id: str, field: str
) -> None:
    async with checkout() as shop:
        request = msgspec.structs.replace(await shop.new_request(case, offered), method_id=method_id)
        shop.reset_counts()
        with pytest.raises(Invalid) as invalid:
            await shop.submit(request)
        assert [fault.field for fault in invalid.value.faults] == [field]
        assert shop.calls == []
