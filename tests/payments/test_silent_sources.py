"""Every source that may refuse money must answer. A silent one is named, and nothing is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cashier.domain.payment_state import PaymentStatus
from cashier.fanout.ask import SourceStatus
from cashier.payments.errors import CheckUnavailable
from tests.payments.checkout import GATING, REQUIRED, Checkout, checkout

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize("source", [*GATING, *REQUIRED])
@pytest.mark.parametrize("method_id", ["WALLET:ALIPAY", "BALANCE:acc_2"])
async def test_a_silent_source_is_named_and_nothing_is_sent(shop: Checkout, source: str, method_id: str) -> None:
    request = await shop.new_request("chinese_shop", method_id)
    shop.silent.add(source)
    shop.reset_counts()
    with pytest.raises(CheckUnavailable) as unavailable:
        await shop.submit(request)
    assert unavailable.value.silent == (source,)
    assert next(report for report in unavailable.value.sources if report.name == source).status is SourceStatus.ERROR
    assert shop.count("decide") == shop.count("submit") == 0
    shop.clear_faults()
    payment = await shop.submit(request)
    assert payment.status in (PaymentStatus.ACTION_REQUIRED, PaymentStatus.CHALLENGE), "the same submit succeeds later"
    await shop.cancel(payment)


@pytest.mark.parametrize(
    ("source", "rows", "changes"),
    [
        ("quota", "quotas", {"scope": {"kind": "wallet"}}),
        ("quota", "quotas", {"scope": {"kind": "WALLET"}, "single": None, "daily": None, "monthly": None}),
        ("channel", "channels", {"channel_id": "ch_wallet_alipay", "status": "UP"}),
    ],
)
async def test_a_row_that_cannot_be_understood_is_no_permission(
    shop: Checkout, source: str, rows: str, changes: dict[str, Any]
) -> None:
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    understood = shop._sources[source]

    async def odd(**inputs: Any) -> Any:
        answer: Any = await understood(**inputs)
        ids = [row.get("channel_id") for row in answer[rows]]
        place = ids.index(changes["channel_id"]) if "channel_id" in changes else 0
        return answer | {rows: [*answer[rows][:place], answer[rows][place] | changes, *answer[rows][place + 1 :]]}

    shop._sources = {**shop._sources, source: odd}  # type: ignore[assignment]
    shop.reset_counts()
    with pytest.raises(CheckUnavailable) as unavailable:
        await shop.submit(request)
    assert unavailable.value.silent == (source,)
    assert shop.count("decide") == shop.count("submit") == 0


async def test_all_silent_sources_are_named(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    shop.silent |= {"quota", "card"}
    with pytest.raises(CheckUnavailable) as unavailable:
        await shop.submit(request)
    assert unavailable.value.silent == ("card", "quota")


@pytest.fixture
async def patient_shop() -> AsyncIterator[Checkout]:
    """Its checks wait for two seconds."""
    async with checkout(check_ms=2_000) as shop:
        yield shop


async def test_a_hanging_source_is_silent_after_its_timeout(patient_shop: Checkout) -> None:
    request = await patient_shop.new_request("chinese_shop", "WALLET:ALIPAY")
    patient_shop.inject("quota", "hang", always=True)
    with pytest.raises(CheckUnavailable) as unavailable:
        await patient_shop.submit(request)
    assert asyncio.get_running_loop().time() == pytest.approx(2.0, abs=0.01)
    assert unavailable.value.silent == ("quota",)
    assert patient_shop.count("submit") == 0


@pytest.mark.parametrize("slow_ms", [300, 1_997])
async def test_a_check_waits_for_a_slow_source_as_long_as_configured(patient_shop: Checkout, slow_ms: int) -> None:
    """Three times the source's own timeout and more."""
    request = await patient_shop.new_request("balance_is_enough", "BALANCE:acc_1")
    answer = patient_shop._sources["quota"]

    async def slowly(**inputs: Any) -> Any:
        await asyncio.sleep(slow_ms / 1_000)
        return await answer(**inputs)

    patient_shop._sources = {**patient_shop._sources, "quota": slowly}  # type: ignore[assignment]
    assert (await patient_shop.submit(request)).status is PaymentStatus.SUCCEEDED


async def test_marketing_must_answer_if_the_offer_had_a_discount(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    assert request.promotion_ids
    shop.silent.add("marketing")
    with pytest.raises(CheckUnavailable) as unavailable:
        await shop.submit(request)
    assert unavailable.value.silent == ("marketing",)
    assert shop.count("decide") == shop.count("submit") == 0


async def test_marketing_may_be_silent_if_the_offer_had_no_discount(shop: Checkout) -> None:
    request = await shop.new_request("without_cards", "BALANCE:acc_51")
    assert not request.promotion_ids
    shop.silent.add("marketing")
    assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED


async def test_without_every_gating_source_one_that_cannot_refuse_the_method_may_be_silent() -> None:
    async with checkout(every_gating_source=False) as shop:
        request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        shop.silent.add("card")
        payment = await shop.submit(request)
        assert payment.status is PaymentStatus.ACTION_REQUIRED
        shop.settle(payment)
        assert (await shop.follow_to_end(payment)).status is PaymentStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("method_id", "source"),
    [("WALLET:ALIPAY", "channel"), ("WALLET:ALIPAY", "quota"), ("QUICK_PAY:c_2", "card"), ("BALANCE:acc_2", "balance")],
)
async def test_without_every_gating_source_one_that_could_refuse_the_method_must_answer(
    method_id: str, source: str
) -> None:
    async with checkout(every_gating_source=False) as shop:
        request = await shop.new_request("chinese_shop", method_id)
        shop.silent.add(source)
        with pytest.raises(CheckUnavailable) as unavailable:
            await shop.submit(request)
        assert source in unavailable.value.silent
        assert shop.count("decide") == shop.count("submit") == 0
