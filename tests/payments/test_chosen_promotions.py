"""The payer's choice of promotions from the consultation to the money."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import UNSET, structs

from cashier.domain.money import Money
from cashier.domain.offer_diff import ChangeType
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_request import PaymentRequest
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import ConsultChanged, KeyReused
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, method_by_id
from tests.support.sandbox_payments import sandbox_call

pytestmark = pytest.mark.virtual_time
CASE, WALLET = "chinese_shop", "QUICK_PAY:c_2"


async def price_of(shop: Checkout, chosen: list[str] | None) -> tuple[Money, tuple[str, ...]]:
    method = method_by_id(await shop.consult(CASE, chosen_promotions=chosen), WALLET)
    assert method.amount is not None
    return method.amount.payable, tuple(discount.promotion_id for discount in method.amount.discounts)


def promotion_legs(shop: Checkout) -> list[str]:
    [submission] = shop.submissions
    return [leg["id"] for leg in submission["legs"] if leg["type"] == "PROMOTION"]


async def with_choice(shop: Checkout, chosen: list[str], **fields: Any) -> PaymentRequest:
    """Consulted with the best set, submitted with a choice at its right price."""
    request = await shop.new_request(CASE, WALLET)
    payable, _ = await price_of(shop, chosen)
    return structs.replace(request, expected_payable=payable, chosen_promotions=tuple(chosen), **fields)


async def listed(shop: Checkout) -> list[str]:
    promotions = method_by_id(await shop.consult(CASE), WALLET).promotions
    assert promotions is not UNSET
    return [each.promotion_id for each in promotions]


async def paid(shop: Checkout, request: PaymentRequest) -> Payment:
    payment = await shop.submit(request)
    return payment if payment.status is not PaymentStatus.CHALLENGE else await shop.answer(payment)


async def test_each_legal_choice_is_shown_and_the_chosen_one_charged(shop: Checkout) -> None:
    ids = await listed(shop)
    assert len(ids) > 1
    for promotion_id in ids:
        assert (await price_of(shop, [promotion_id]))[1] == (promotion_id,)
    payable, _ = await price_of(shop, ids[-1:])
    payment = await paid(shop, await with_choice(shop, ids[-1:]))
    assert (payment.status, payment.amount) == (PaymentStatus.SUCCEEDED, payable)
    assert promotion_legs(shop) == ids[-1:]


async def test_an_order_is_paid_without_promotions_although_some_would_apply(shop: Checkout) -> None:
    payment = await paid(shop, await with_choice(shop, []))
    assert (payment.status, payment.amount) == (PaymentStatus.SUCCEEDED, Money("CNY", 12_800))
    assert promotion_legs(shop) == []


async def test_marketing_need_not_answer_for_a_payment_without_promotions(shop: Checkout) -> None:
    request = await with_choice(shop, [])
    shop.silent.add("marketing")
    assert (await paid(shop, request)).status is PaymentStatus.SUCCEEDED


async def test_consulted_without_and_submitted_with_promotions_is_another_price(shop: Checkout) -> None:
    consultation = await shop.consult(CASE, chosen_promotions=[])
    request = shop.request_for(CASE, consultation, WALLET)
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    assert {change.what for change in changed.value.changes} == {ChangeType.PRICE_CHANGED}
    assert shop.count("submit") == 0


async def test_a_chosen_promotion_that_was_used_elsewhere_is_gone_and_an_unchosen_one_is_not(shop: Checkout) -> None:
    first, *others = (await price_of(shop, None))[1]
    request = await with_choice(shop, [first])
    person = shop.world.population.user("u_1")
    assert person is not None
    assert person.promotions is not None
    [record] = [each for each in person.promotions if each["promotion_id"] == first]
    record["threshold"] = {"currency": "CNY", "value": 99_999_999}
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    gone = [change.subject for change in changed.value.changes if change.what is ChangeType.PROMOTION_GONE]
    assert gone == [first], others


async def test_a_key_belongs_to_one_choice(shop: Checkout) -> None:
    request = await with_choice(shop, [])
    assert (await paid(shop, request)).status is PaymentStatus.SUCCEEDED
    with pytest.raises(KeyReused):
        await shop.submit(structs.replace(request, chosen_promotions=None))
    assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED


async def test_more_than_sixteen_promotions_cannot_be_chosen(shop: Checkout) -> None:
    request = await with_choice(shop, [])
    with pytest.raises(msgspec.ValidationError):
        await shop.submit(structs.replace(request, chosen_promotions=tuple(f"p_{n}" for n in range(17))))


@pytest.mark.parametrize(
    ("locale", "text"),
    [
        ("en", "Coupon “{title}” can no longer be used. No money was taken."),
        ("zh-CN", "优惠券“{title}”已不可用，未扣款"),
    ],
)
async def test_a_promotion_that_the_engine_refuses_is_named_to_the_payer(
    shop: Checkout, locale: str, text: str
) -> None:
    """Used at the very moment of the submit: the recheck could not know."""
    request = await shop.new_request(CASE, WALLET, locale=locale)
    first = request.promotion_ids[0]
    person = shop.world.population.user("u_1")
    assert person is not None
    assert person.promotions is not None
    [record] = [each for each in person.promotions if each["promotion_id"] == first]
    payment = await shop.submit(request)
    assert payment.status is PaymentStatus.CHALLENGE
    sandbox = sandbox_call(shop.world, shop.weather)

    async def spent_meanwhile(submit: Request) -> Response:
        record["threshold"] = {"currency": "CNY", "value": 99_999_999}
        return await sandbox(submit)

    shop.replies["submit"] = spent_meanwhile
    failed = await shop.answer(payment)
    assert (failed.status, failed.message.code) == (PaymentStatus.FAILED, MessageCode.PROMOTION_GONE)
    assert failed.message.text == text.format(title=record["title"])
    assert (await shop.look(failed)).message == failed.message
    again = await shop.submit(request)
    assert (again.status, again.message.code) == (PaymentStatus.FAILED, MessageCode.PROMOTION_GONE)
