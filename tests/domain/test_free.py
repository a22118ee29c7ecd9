"""Orders that leave nothing to pay: one method in the place of all others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from msgspec import structs

from cashier.domain.facts import Promotion
from cashier.domain.offer_diff import Change, ChangeType
from cashier.domain.pay_method import Availability, Kind, NextAction, PayMethod, ReasonCode
from cashier.source_errors import MissingCause
from tests.domain.builders import (
    OPTIONAL,
    World,
    account,
    cny,
    member,
    merchant,
    one_of_each,
    order,
    promotion,
    request,
    with_terms,
)
from tests.domain.test_kinds import WAYS
from tests.domain.test_offer_diff import find_changes, find_unverified
from tests.domain.world_strategies import silences, worlds

FREE_COUPON = promotion("p_1", 10_000)


def only(world: World) -> PayMethod:
    [method] = world.methods()
    return method


def free_of(world: World) -> bool:
    """By another hand: the most that promotions without kinds (or for FREE) and banks take off.

    At a till the payer confirms nothing where they take off all.
    """
    amount = world.order.amount
    if amount.value and (world.request.terminal == "POS" or world.request.product == "SCAN"):
        return False
    usable: list[tuple[Promotion, int]] = [
        (found, value_of(found, amount.value))
        for found in world.promotions
        if found.banks is None
        and (not found.kinds or Kind.FREE in found.kinds)
        and found.threshold.currency == amount.currency
        and found.threshold.value <= amount.value
        and (found.expires_at is None or found.expires_at > world.now)
    ]
    alone = max((value for _, value in usable), default=0)
    by_group: dict[str, int] = {}
    for found, value in usable:
        if found.stackable:
            by_group[found.group] = max(value, by_group.get(found.group, 0))
    return max(alone, sum(by_group.values())) >= amount.value


def value_of(found: Promotion, total: int) -> int:
    if found.amount_off is not None:
        return min(total, found.amount_off.value)
    assert found.percent_off_bps is not None
    value = total * found.percent_off_bps // 10_000
    if found.cap is None:
        return value
    return min(value, found.cap.value) if found.cap.currency == found.threshold.currency else 0


@given(worlds(), silences())
def test_free_is_the_only_method_exactly_where_nothing_is_to_pay(world: World, silent: Any) -> None:
    world = world.but(silent=silent)
    methods = world.methods()
    heard = world if "marketing" not in silent else world.but(promotions=())
    if not free_of(heard):
        assert Kind.FREE not in {method.kind for method in methods}
        return
    [method] = methods
    assert (method.method_id, method.instrument, method.options, method.legs) == ("FREE", None, (), ())
    assert (method.required_fields, method.next_action, method.limits) == ((), NextAction.NONE, None)
    assert method.amount is not None
    assert (method.amount.payable.value, method.amount.fee.value) == (0, 0)
    assert sum(discount.amount.value for discount in method.amount.discounts) == world.order.amount.value
    assert method.availability is not Availability.UNDETERMINED


@pytest.mark.parametrize("free", [{"order": order(0)}, {"promotions": (FREE_COUPON,)}], ids=["zero", "coupon"])
@pytest.mark.parametrize(
    "circumstance",
    [
        {"merchant": merchant(kinds=frozenset())},
        {"member": structs.replace(member(), kyc_level=0)},
        {"channels": (), "cards": (), "accounts": (), "agreements": ()},
        {"silent": dict.fromkeys(set(OPTIONAL) - {"marketing"}, MissingCause.TIMEOUT)},
        {"request": request(locale="zh-CN")},
    ],
    ids=["contract", "identity", "nothing held", "silence", "locale"],
)
def test_nothing_but_the_operators_terms_refuses_a_free_order(free: dict[str, Any], circumstance: Any) -> None:
    world = one_of_each(**free, **circumstance)
    assert (only(world).method_id, only(world).availability) == ("FREE", Availability.AVAILABLE)


def test_an_order_of_0_is_free_at_a_till_too() -> None:
    world = one_of_each(order=order(0), promotions=(FREE_COUPON,), request=request(product="SCAN", terminal="POS"))
    assert (only(world).method_id, only(world).availability) == ("FREE", Availability.AVAILABLE)


def test_a_zero_order_needs_no_marketing() -> None:
    for cause in MissingCause:
        assert only(one_of_each(order=order(0), silent={"marketing": cause})).kind is Kind.FREE


def test_an_operator_can_decline_free_orders() -> None:
    method = only(one_of_each(order=order(0), catalog=with_terms(Kind.FREE, offered=False)))
    assert method.reason is not None
    assert (method.availability, method.reason.code) == (Availability.UNAVAILABLE, ReasonCode.NOT_OFFERED)


@pytest.mark.parametrize(
    ("restriction", "is_free"),
    [
        ({}, True),
        ({"kinds": frozenset({Kind.FREE})}, True),
        ({"kinds": frozenset({Kind.FREE, Kind.CARD})}, True),
        ({"kinds": frozenset({Kind.QUICK_PAY})}, False),
        ({"banks": frozenset({"CMB"})}, False),
        ({"threshold": 10_001}, False),
        ({"stackable": False}, True),
    ],
)
def test_only_a_promotion_for_any_kind_and_bank_makes_an_order_free(restriction: Any, is_free: bool) -> None:
    methods = one_of_each(promotions=(promotion("p_1", 10_000, **restriction),)).methods()
    assert (methods[0].kind is Kind.FREE) is is_free
    assert (len(methods) == 1) is is_free


def test_a_promotion_for_one_kind_still_leaves_nothing_to_pay_by_that_kind() -> None:
    world = one_of_each(promotions=(promotion("p_1", 10_000, kinds=frozenset({Kind.QUICK_PAY})),))
    amount = world.method("QUICK_PAY:c_CMB").amount
    assert amount is not None
    assert amount.payable == cny(0)


# What changed between the offer and its acceptance

COVERED = one_of_each(promotions=(FREE_COUPON,))


def test_a_coupon_that_paid_for_all_and_is_gone_is_named() -> None:
    assert find_changes(COVERED, one_of_each(), "FREE") == (
        Change(
            what=ChangeType.METHOD_CLOSED,
            before=Availability.AVAILABLE,
            after=None,
            subject="FREE",
            reason=ReasonCode.NOT_OFFERED,
        ),
        Change(what=ChangeType.PROMOTION_GONE, before=cny(10_000), after=None, subject="p_1"),
    )


def test_of_two_coupons_only_the_one_that_is_gone_is_named() -> None:
    first, second = promotion("p_1", 7_000), promotion("p_2", 3_000)
    found = find_changes(one_of_each(promotions=(first, second)), one_of_each(promotions=(first,)), "FREE")
    assert [change.subject for change in found if change.what is ChangeType.PROMOTION_GONE] == ["p_2"]


def test_silent_marketing_leaves_open_only_an_order_that_a_coupon_paid_for() -> None:
    silent = {"silent": {"marketing": MissingCause.TIMEOUT}}
    assert find_unverified(COVERED, one_of_each(**silent), "FREE") == ("marketing",)
    zero = one_of_each(order=order(0))
    assert find_unverified(zero, zero.but(**silent), "FREE") == ()
    assert find_changes(zero, zero.but(**silent), "FREE") == ()


@pytest.mark.parametrize("method_id", ["QUICK_PAY:c_CMB", "WALLET:ALIPAY", "BALANCE:b_1", "BALANCE:b_2+QUICK_PAY"])
def test_an_order_that_became_free_closes_the_method_and_unbinds_no_card(method_id: str) -> None:
    earlier = one_of_each(accounts=(account(50_000), account(4_000, "b_2")))
    found = find_changes(earlier, earlier.but(promotions=(FREE_COUPON,)), method_id)
    assert [(change.what, change.before, change.after) for change in found] == [
        (ChangeType.METHOD_CLOSED, Availability.AVAILABLE, None),
        (ChangeType.PRICE_CHANGED, cny(10_000), cny(0)),
    ]


@pytest.mark.parametrize("way", sorted(set(WAYS.values()) - {"FREE"}))
def test_another_kind_at_a_price_of_zero_is_closed_once_the_order_is_free(way: str) -> None:
    """Tokens from before FREE existed offered every kind at 0."""
    mine = promotion("p_9", 10_000, kinds=frozenset({way.partition(":")[0]}))
    found = find_changes(one_of_each(promotions=(mine,)), COVERED, way)
    assert [change.what for change in found] == [ChangeType.METHOD_CLOSED]
