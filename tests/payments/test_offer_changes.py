"""Changes since the consultation are reported by type, with a fresh one; nothing is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest
from msgspec import structs

from cashier.domain.money import Money
from cashier.domain.offer_diff import ChangeType
from cashier.domain.order import Blocked, Product
from cashier.domain.pay_method import ReasonCode
from cashier.domain.payment_request import PaymentRequest
from cashier.domain.payment_state import FINAL, PaymentStatus
from cashier.payments.errors import CheckUnavailable, ConsultChanged
from tests.payments.checkout import Checkout, first_available

pytestmark = pytest.mark.virtual_time

WorldChange = Callable[[Checkout], Awaitable[None]]


async def _fee_rises(shop: Checkout) -> None:
    for channel_id in ("ch_card_worldpay", "ch_card_adyen"):
        shop.world.population._channels[channel_id]["fee_bps"] = 150


async def _discount_shrinks(shop: Checkout) -> None:
    person = shop.world.population.user("u_1")
    assert person is not None
    assert person.promotions is not None
    person.promotions[3]["amount_off"] = {"currency": "CNY", "value": 1_400}


async def _order_amount_rises(shop: Checkout) -> None:
    shop.reprice("o_1001", 12_900)


async def _red_packet_is_spent_elsewhere(shop: Checkout) -> None:
    assert (await shop.pay("balance_is_enough", "BALANCE:acc_1", key="other")).status is PaymentStatus.SUCCEEDED


async def _balance_is_spent_elsewhere(shop: Checkout) -> None:
    assert (await shop.pay("balance_is_enough", "BALANCE:acc_1", key="other")).status is PaymentStatus.SUCCEEDED


async def _limit_is_used_up_elsewhere(shop: Checkout) -> None:
    assert (await shop.pay("guest_order", "QUICK_PAY:c_1", key="other")).status is PaymentStatus.SUCCEEDED


async def _alipay_closes(shop: Checkout) -> None:
    shop.close_channels("ch_wallet_alipay")


async def _card_is_unbound(shop: Checkout) -> None:
    person = shop.world.population.user("u_1")
    assert person is not None
    assert person.cards is not None
    person.cards[1]["status"] = "UNBOUND"


async def _card_disappears(shop: Checkout) -> None:
    person = shop.world.population.user("u_1")
    assert person is not None
    assert person.cards is not None
    del person.cards[1]


CHANGES: dict[str, tuple[str, str, WorldChange, set[ChangeType]]] = {
    "the fee rises": ("chinese_shop", "CARD", _fee_rises, {ChangeType.PRICE_CHANGED}),
    "a discount shrinks": ("chinese_shop", "WALLET:ALIPAY", _discount_shrinks, {ChangeType.PRICE_CHANGED}),
    "the order amount rises": ("chinese_shop", "WALLET:ALIPAY", _order_amount_rises, {ChangeType.PRICE_CHANGED}),
    "a promotion is used": (
        "chinese_shop",
        "QUICK_PAY:c_2",
        _red_packet_is_spent_elsewhere,
        {ChangeType.PROMOTION_GONE, ChangeType.PRICE_CHANGED},
    ),
    "a balance is short": (
        "chinese_shop",
        "BALANCE:acc_1+QUICK_PAY",
        _balance_is_spent_elsewhere,
        {ChangeType.BALANCE_SHORT, ChangeType.PRICE_CHANGED},
    ),
    "a limit is reached": (
        "balance_is_enough",
        "QUICK_PAY:c_1",
        _limit_is_used_up_elsewhere,
        {ChangeType.LIMIT_REACHED, ChangeType.PROMOTION_GONE, ChangeType.PRICE_CHANGED},
    ),
    "a channel closes": ("chinese_shop", "WALLET:ALIPAY", _alipay_closes, {ChangeType.METHOD_CLOSED}),
    "a card is unbound": ("chinese_shop", "QUICK_PAY:c_2", _card_is_unbound, {ChangeType.CARD_UNBOUND}),
    "a card is gone": ("chinese_shop", "QUICK_PAY:c_2", _card_disappears, {ChangeType.CARD_UNBOUND}),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_is_reported_by_type_with_a_fresh_consultation_that_can_be_paid(
    shop: Checkout, name: str
) -> None:
    case, method_id, change_world, expected = CHANGES[name]
    request = await shop.new_request(case, method_id, card_token="tok_1" if method_id == "CARD" else None)
    await change_world(shop)
    shop.reset_counts()
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    assert {change.what for change in changed.value.changes} == expected
    assert shop.count("decide") == shop.count("submit") == 0
    fresh = changed.value.consultation
    assert fresh.payable
    payment = await shop.submit(shop.request_for(case, fresh, first_available(fresh)), "k2")
    if payment.status is PaymentStatus.CHALLENGE:
        payment = await shop.answer(payment)
    if payment.status is PaymentStatus.ACTION_REQUIRED:
        shop.settle(payment)
    assert (await shop.follow_to_end(payment)).status is PaymentStatus.SUCCEEDED
    assert shop.payments_that_paid(request.order_id) == [payment.payment_id]


async def test_a_risen_fee_is_reported_before_and_after(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "CARD", card_token="tok_1")
    await _fee_rises(shop)
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    changes = {change.subject: (change.before, change.after) for change in changed.value.changes}
    assert changes["fee"] == (Money("CNY", 113), Money("CNY", 170))
    assert changes[None] == (Money("CNY", 11_413), Money("CNY", 11_470))


async def test_a_price_with_other_parts_has_changed_although_its_total_has_not(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "CARD", card_token="tok_1")
    await _fee_rises(shop)
    shop.reprice("o_1001", 12_744)
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    assert {change.what for change in changed.value.changes} == {ChangeType.PRICE_CHANGED}
    assert None not in {change.subject for change in changed.value.changes}, "the total is the same"
    assert shop.count("submit") == 0


async def test_every_type_of_change_is_covered() -> None:
    assert set().union(*(types for *_, types in CHANGES.values())) | {ChangeType.ORDER_STATE} == set(ChangeType)


async def test_the_same_key_can_pay_from_the_fresh_consultation(shop: Checkout) -> None:
    """Nothing was sent under the key, so it is not bound to a body."""
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    shop.close_channels("ch_wallet_alipay")
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    payment = await shop.submit(shop.request_for("chinese_shop", changed.value.consultation, "WALLET:WECHAT_PAY"))
    assert payment.status is PaymentStatus.ACTION_REQUIRED
    shop.settle(payment)
    assert (await shop.follow_to_end(payment)).status is PaymentStatus.SUCCEEDED


async def test_an_order_with_another_amount_is_consulted_again_without_claims(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    shop.reprice("o_1001", 12_900)
    shop.reset_counts()
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    order = next(change for change in changed.value.changes if change.subject == "order")
    assert (order.before, order.after) == (Money("CNY", 12_800), Money("CNY", 12_900))
    assert changed.value.consultation.order.amount == Money("CNY", 12_900)
    assert shop.count("order") == 2, "with the old claim, and without claims"
    assert shop.count("marketing") >= 1


@pytest.mark.parametrize(
    ("expected", "promotions", "what"),
    [
        (11_299, ("p_4",), ChangeType.PRICE_CHANGED),
        (11_301, ("p_4",), ChangeType.PRICE_CHANGED),
        (11_300, ("p_4", "p_5"), ChangeType.PROMOTION_GONE),
    ],
)
async def test_a_price_or_promotion_that_was_not_offered_is_refused(
    shop: Checkout, expected: int, promotions: tuple[str, ...], what: ChangeType
) -> None:
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    claimed = msgspec.structs.replace(request, expected_payable=Money("CNY", expected), promotion_ids=promotions)
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(claimed)
    assert [change.what for change in changed.value.changes] == [what]
    assert shop.count("submit") == 0


async def test_a_method_that_was_not_offered_is_refused(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    other: PaymentRequest = msgspec.structs.replace(request, method_id="WALLET:PAYPAY")
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(other)
    assert [(change.what, change.reason) for change in changed.value.changes] == [
        (ChangeType.METHOD_CLOSED, ReasonCode.NOT_OFFERED)
    ]
    assert shop.count("submit") == 0


@pytest.mark.parametrize("state", ["closed", "paid", "expired"])
async def test_an_order_that_can_no_longer_be_paid_sends_nothing(shop: Checkout, state: str) -> None:
    request = await shop.new_request("balance_is_enough", "BALANCE:acc_1")
    if state == "closed":
        shop.world.acquirer.close("o_1002")
    elif state == "paid":
        assert (await shop.pay("balance_is_enough", "BALANCE:acc_2", key="other")).status in FINAL
    else:
        shop.world.population._orders["o_1002"]["expires_at"] = shop.world.clock().isoformat()
    shop.reset_counts()
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    assert [change.what for change in changed.value.changes] == [ChangeType.ORDER_STATE]
    assert not changed.value.consultation.payable
    assert changed.value.consultation.blocked is not None
    assert changed.value.consultation.blocked.code == f"ORDER_{state.upper()}"
    assert shop.count("decide") == shop.count("submit") == 0


@pytest.mark.parametrize(
    ("case", "method_id", "named"),
    [
        ("balance_is_enough", "BALANCE:acc_1", Product.EMBEDDED_CASHIER),
        ("balance_is_enough", "BALANCE:acc_1", Product.SCAN),
        ("embedded_cashier", "WALLET:ALIPAY", Product.STANDARD_CASHIER),
        ("scan_to_pay", "MERCHANT_QR:ALIPAY", Product.STANDARD_CASHIER),
    ],
)
async def test_an_order_is_not_paid_as_another_product(
    shop: Checkout, case: str, method_id: str, named: Product
) -> None:
    request = await shop.new_request(case, method_id)
    shop.reset_counts()
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(structs.replace(request, product=named))
    assert [(change.what, change.after) for change in changed.value.changes] == [
        (ChangeType.ORDER_STATE, Blocked.PRODUCT_MISMATCH)
    ]
    assert not changed.value.consultation.payable
    assert shop.count("decide") == shop.count("submit") == 0
    assert (await shop.submit(request)).status is not PaymentStatus.FAILED, "the refused submit left the key unbound"


async def test_everything_is_rechecked_after_a_challenge(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
    assert payment.status is PaymentStatus.CHALLENGE
    await _card_is_unbound(shop)
    with pytest.raises(ConsultChanged) as changed:
        await shop.answer(payment)
    assert [change.what for change in changed.value.changes] == [ChangeType.CARD_UNBOUND]
    assert shop.count("submit") == 0
    assert shop.entries == ()


async def test_after_a_challenge_every_source_must_answer(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
    shop.silent.add("quota")
    with pytest.raises(CheckUnavailable):
        await shop.answer(payment)
    assert shop.count("submit") == 0
    shop.clear_faults()
    assert (await shop.answer(payment)).status is PaymentStatus.SUCCEEDED, "the answer has passed and still counts"
