"""Instalments through the whole: consult, submit with a term, the provider's page, the ledger."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from cashier.domain.next_action import Redirect
from cashier.domain.offer_diff import ChangeType
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import ConsultChanged, Invalid
from cashier.sandbox.records import Json
from tests.payments.checkout import Checkout, checkout, method_by_id

pytestmark = pytest.mark.virtual_time
CASE, FLEXI = "in_instalments", "INSTALMENT:FLEXI_PAY"
RAILS = ("ch_inst_flexi", "ch_inst_flexi_2")


def term(shop: Checkout, channel_id: str, term_id: str) -> Json:
    channel = shop.world.population.channel(channel_id)
    assert channel is not None
    return next(found for found in channel["terms"] if found["term_id"] == term_id)


@pytest.mark.parametrize(("term_id", "count", "carried"), [("t_3", 3, 162_146), ("t_6", 6, 165_633)])
async def test_a_term_is_paid_with_its_own_fee(shop: Checkout, term_id: str, count: int, carried: int) -> None:
    payment = await shop.pay(CASE, FLEXI, term_id)
    assert payment.status is PaymentStatus.ACTION_REQUIRED
    assert isinstance(payment.next_action, Redirect)
    [leg] = [leg for leg in shop.submissions[0]["legs"] if leg["type"] == "CHANNEL"]
    assert (leg["term_id"], leg["amount"]["value"], "instrument_id" in leg) == (term_id, carried, False)
    assert {leg["channel_id"], *shop.submissions[0]["alternatives"]} == set(RAILS)
    shop.settle(payment)
    paid = await shop.follow_to_end(payment)
    assert (paid.status, paid.amount.value) == (PaymentStatus.SUCCEEDED, carried)
    assert sum(value for source, value in shop.net_taken().items() if source.startswith("CHANNEL")) == carried


async def test_a_paid_term_uses_up_the_credit_line(shop: Checkout) -> None:
    first = method_by_id(await shop.consult(CASE), FLEXI)
    assert [option.availability for option in first.options] == ["AVAILABLE", "AVAILABLE", "UNAVAILABLE"]
    shop.settle(await shop.pay(CASE, FLEXI, "t_3"))
    later = method_by_id(await shop.consult("chinese_shop"), FLEXI)
    assert first.limits is not None
    assert later.limits is not None
    assert (first.limits.monthly_remaining, later.limits.monthly_remaining) != (None, None)
    assert first.limits.monthly_remaining.value - later.limits.monthly_remaining.value == 162_146  # type: ignore[union-attr]
    assert later.availability == "UNAVAILABLE"


async def test_the_longest_term_has_one_channel_and_one_above_the_credit_line_is_refused(shop: Checkout) -> None:
    with pytest.raises(ConsultChanged) as changed:
        await shop.pay(CASE, FLEXI, "t_12")
    assert [change.what for change in changed.value.changes] == [ChangeType.LIMIT_REACHED]
    payment = await shop.pay("chinese_shop", FLEXI, "t_12")
    assert shop.submissions[0]["alternatives"] == []
    assert shop.submissions[0]["legs"][-1]["channel_id"] == "ch_inst_flexi"
    await shop.cancel(payment)


async def test_a_term_must_be_chosen_and_known(shop: Checkout) -> None:
    with pytest.raises(Invalid):
        await shop.pay(CASE, FLEXI)
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(replace(await shop.new_request(CASE, FLEXI, "t_3"), option_id="t_9"))
    assert [(change.what, change.subject) for change in changed.value.changes] == [(ChangeType.METHOD_CLOSED, "t_9")]
    assert shop.count("submit") == 0


CHANGES: list[tuple[str, Any, list[tuple[ChangeType, str | None]]]] = [
    ("fee_bps", 231, [(ChangeType.PRICE_CHANGED, None), (ChangeType.PRICE_CHANGED, "fee")]),
    ("apr_bps", 1_400, [(ChangeType.PRICE_CHANGED, "apr_bps")]),
    ("count", 4, [(ChangeType.PRICE_CHANGED, "count")]),
    ("term_id", "t_4", [(ChangeType.METHOD_CLOSED, "t_3")]),
]


@pytest.mark.parametrize(("field", "value", "expected"), CHANGES, ids=[field for field, *_ in CHANGES])
async def test_a_changed_term_is_reported_and_nothing_is_sent(
    shop: Checkout, field: str, value: Any, expected: list[tuple[ChangeType, str | None]]
) -> None:
    request = await shop.new_request(CASE, FLEXI, "t_3")
    for channel_id in RAILS:
        term(shop, channel_id, "t_3")[field] = value
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    assert [(change.what, change.subject) for change in changed.value.changes] == expected
    texts = {change.subject: change.message for change in changed.value.changes}
    assert texts.get("apr_bps") in (None, "年化利率有变化：13.70% → 14%")
    assert texts.get("count") in (None, "分期期数有变化：3 → 4")
    assert all(texts.values())
    assert shop.count("decide") == shop.count("submit") == 0


async def test_the_engine_takes_an_alternative_with_the_same_term_only() -> None:
    async with checkout() as shop:
        payment = await shop.pay(CASE, FLEXI, "t_3")
        used = shop.submissions[0]["legs"][-1]["channel_id"]
        assert shop.world.engine.attempt(payment.payment_id).channel["channel_id"] == used  # type: ignore[union-attr,index]
        await shop.cancel(payment)
    for other_fee in (False, True):
        async with checkout() as shop:
            request = await shop.new_request(CASE, FLEXI, "t_3")
            [other] = set(RAILS) - {used}

            async def close_then_submit(
                sent: Any, shop: Checkout = shop, other: str = other, dearer: bool = other_fee
            ) -> Any:
                shop.close_channels(used)
                if dearer:
                    term(shop, other, "t_3")["fee_bps"] = 240
                return await shop._sandbox(sent)

            shop.replies["submit"] = close_then_submit
            payment = await shop.submit(request)
            expected = PaymentStatus.FAILED if other_fee else PaymentStatus.ACTION_REQUIRED
            assert payment.status is expected
            await shop.cancel(payment)
            # The audit compares with the fees of today.
            term(shop, other, "t_3")["fee_bps"] = 230
