"""Who may refuse money must be heard. Silence is told by name, and nothing goes to risk or to the engine."""

from __future__ import annotations

import pytest

from cashier.domain.payment_state import PaymentStatus
from cashier.fanout.ask import SourceStatus as Answered
from cashier.payments.errors import CheckUnavailable
from tests.payments.checkout import GATING, REQUIRED, checkout

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize("source", [*GATING, *REQUIRED])
@pytest.mark.parametrize("method_id", ["WALLET:ALIPAY", "BALANCE:acc_2"])
async def test_a_silent_source_is_named_and_nothing_is_sent(source: str, method_id: str) -> None:
    async with checkout() as shop:
        request = await shop.new_request("chinese_shop", method_id)
        shop.silent.add(source)
        shop.reset_counts()
        with pytest.raises(CheckUnavailable) as unavailable:
            await shop.submit(request)
        assert unavailable.value.silent == (source,)
        assert next(report for report in unavailable.value.sources if report.name == source).status is Answered.ERROR
        assert shop.count("decide") == shop.count("submit") == 0
        shop.clear_faults()
        payment = await shop.submit(request)
        assert payment.status in (PaymentStatus.ACTION_REQUIRED, PaymentStatus.CHALLENGE), (
            "the same submit, a moment later"
        )
        await shop.cancel(payment)


async def test_all_who_are_silent_are_named() -> None:
    async with checkout() as shop:
        request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        shop.silent |= {"quota", "card"}
        with pytest.raises(CheckUnavailable) as unavailable:
            await shop.submit(request)
        assert unavailable.value.silent == ("card", "quota")


async def test_one_that_hangs_is_waited_for_and_then_silent() -> None:
    """For the time of a check, by the machine's clock: the consultation has no other."""
    async with checkout(check_ms=100) as shop:
        request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        shop.inject("quota", "hang", always=True)
        with pytest.raises(CheckUnavailable) as unavailable:
            await shop.submit(request)
        assert "quota" in unavailable.value.silent
        assert shop.count("submit") == 0


async def test_marketing_must_be_heard_where_the_payer_was_promised_a_discount() -> None:
    async with checkout() as shop:
        request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        assert request.promotion_ids
        shop.silent.add("marketing")
        with pytest.raises(CheckUnavailable) as unavailable:
            await shop.submit(request)
        assert unavailable.value.silent == ("marketing",)
        assert shop.count("decide") == shop.count("submit") == 0


async def test_marketing_may_be_silent_where_nothing_was_promised() -> None:
    async with checkout() as shop:
        request = await shop.new_request("without_cards", "BALANCE:acc_51")
        assert not request.promotion_ids
        shop.silent.add("marketing")
        assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED


async def test_every_gating_source_may_be_waived_for_those_that_cannot_refuse_the_chosen_way() -> None:
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
async def test_not_for_those_that_could(method_id: str, source: str) -> None:
    async with checkout(every_gating_source=False) as shop:
        request = await shop.new_request("chinese_shop", method_id)
        shop.silent.add(source)
        with pytest.raises(CheckUnavailable) as unavailable:
            await shop.submit(request)
        assert source in unavailable.value.silent
        assert shop.count("decide") == shop.count("submit") == 0
