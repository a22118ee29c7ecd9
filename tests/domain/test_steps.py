"""Channels that carry only multiples of a step: KNET's last digit is 0, counters take no sen."""

from __future__ import annotations

from typing import Any

import pytest

from cashier.domain.channel_candidates import ChosenMethod, candidates
from cashier.domain.legs import LegsRefused, legs
from cashier.domain.money import Currency, Money
from cashier.domain.pay_method import Availability, Kind, LegType, PayMethod, ReasonCode, Remedy, RemedyType
from tests.domain.builders import World, account, agreement, card, channel, cny, order, promotion, quota

COMBINED = "BALANCE:b_1+QUICK_PAY"


def wallet(amount: Money | int, step: int, *promotions: Any, **changes: Any) -> PayMethod:
    money = cny(amount) if isinstance(amount, int) else amount
    rail = channel(Kind.WALLET, "W", currency=money.currency, step=step, **changes)
    return World(order=order(money), channels=(rail,), promotions=promotions).method("WALLET:W")


def code(method: PayMethod) -> ReasonCode | None:
    return None if method.reason is None else method.reason.code


def price(method: PayMethod) -> tuple[dict[str, int], int, int]:
    assert method.amount is not None
    discounts = {each.promotion_id: each.amount.value for each in method.amount.discounts}
    return discounts, method.amount.fee.value, method.amount.payable.value


@pytest.mark.parametrize(
    ("currency", "value", "step", "carried", "text"),
    [
        ("KWD", 12_587, 10, 12_580, "Only in multiples of KWD\u00a00.010."),
        ("IDR", 12_468_955, 100, 12_468_900, "Only in multiples of IDR\u00a01."),
    ],
)
def test_an_odd_amount_is_refused_and_keeps_its_price(
    currency: Currency, value: int, step: int, carried: int, text: str
) -> None:
    method = wallet(Money(currency, value), step, most=10**9)
    assert (method.availability, code(method)) == (Availability.UNAVAILABLE, ReasonCode.AMOUNT_NOT_CARRIABLE)
    assert method.reason is not None
    assert (method.reason.source, method.reason.message) == ("channel", text)
    assert method.reason.remedy == Remedy(RemedyType.REDUCE_AMOUNT, Money(currency, carried))
    assert price(method) == ({}, 0, value)


def test_discounts_and_the_fee_are_rounded_down_to_the_step() -> None:
    method = wallet(12_750, 10, promotion("p", percent_bps=250), promotion("small", 9), fee_bps=125)
    assert code(method) is None
    assert price(method) == ({"p": 310}, 150, 12_590), "2.5 % is 318, and the fee 155.5"


def test_a_discount_that_covers_the_order_is_not_rounded_because_nothing_is_carried() -> None:
    free = wallet(12_587, 10, promotion("all", 20_000, kinds=[Kind.WALLET]))
    assert (price(free), code(free)) == (({"all": 12_587}, 0, 0), None)
    two = promotion("a", 60, kinds=[Kind.WALLET]), promotion("b", 55)
    assert price(wallet(107, 10, *two)) == ({"a": 60, "b": 47}, 0, 0)


def test_a_discount_never_makes_an_odd_amount_carriable() -> None:
    assert code(wallet(12_587, 10, promotion("seven", 7))) is ReasonCode.AMOUNT_NOT_CARRIABLE


def test_after_rounding_another_promotion_may_be_the_best() -> None:
    cheap, dear = promotion("a", 19, group="g"), promotion("b", 15, group="g")
    assert price(wallet(100, 10, cheap, dear)) == ({"a": 10}, 0, 90), "a tie goes to the smaller id"
    together = (promotion("c", 19), promotion("d", 19), promotion("alone", 25, stackable=False))
    assert price(wallet(100, 10, *together)) == ({"alone": 20}, 0, 80), "38 become 20, with two promotions"


@pytest.mark.parametrize(
    ("amount", "least", "most", "reason", "remedy"),
    [
        (100, 101, 200, ReasonCode.BELOW_MIN, None),
        (110, 101, 200, None, None),
        (200, 1, 195, ReasonCode.ABOVE_SINGLE_LIMIT, 190),
        (200, 101, 109, ReasonCode.ABOVE_SINGLE_LIMIT, None),
        (105, 101, 109, ReasonCode.AMOUNT_NOT_CARRIABLE, None),
        (205, 1, 150, ReasonCode.AMOUNT_NOT_CARRIABLE, 150),
    ],
)
def test_a_remedy_names_only_what_the_channel_carries(
    amount: int, least: int, most: int, reason: ReasonCode | None, remedy: int | None
) -> None:
    method = wallet(amount, 10, least=least, most=most)
    assert code(method) is reason
    found = None if method.reason is None else method.reason.remedy
    assert found == (None if remedy is None else Remedy(RemedyType.REDUCE_AMOUNT, cny(remedy)))


def test_the_text_of_a_minimum_names_an_amount_that_can_be_paid() -> None:
    reason = wallet(100, 10, least=101).reason
    assert reason is not None
    assert "1.10" in reason.message


def test_a_remedy_is_within_every_limit() -> None:
    world = World(
        order=order(1_000),
        channels=(channel(Kind.WALLET, "W", step=10, most=900),),
        quotas=(quota(Kind.WALLET, daily=(500, 55), monthly=(9_000, 0)),),
    )
    reason = world.method("WALLET:W").reason
    assert reason is not None
    assert (reason.code, reason.remedy) == (
        ReasonCode.ABOVE_SINGLE_LIMIT,
        Remedy(RemedyType.REDUCE_AMOUNT, cny(440)),
    )


def test_an_agreements_ceiling_is_met_in_steps() -> None:
    world = World(
        order=order(1_000),
        agreements=(agreement(single_max=cny(555)),),
        channels=(channel(Kind.AGREEMENT, "UNIONPAY", step=10),),
    )
    reason = world.method("AGREEMENT:a_1").reason
    assert reason is not None
    assert (reason.source, reason.remedy) == ("card", Remedy(RemedyType.REDUCE_AMOUNT, cny(550)))


def short(amount: int, available: int, **changes: Any) -> World:
    return World(
        order=order(amount),
        cards=(card("CMB"),),
        accounts=(account(available),),
        channels=(channel(Kind.QUICK_PAY, "CMB", step=10, **changes),),
    )


def shares(method: PayMethod) -> dict[LegType, int]:
    return {leg.type: leg.amount.value for leg in method.legs}


@pytest.mark.parametrize(
    ("amount", "available", "fee_bps", "expected"),
    [
        (12_587, 5_000, 0, (4_997, 7_590)),
        (12_587, 7, 0, (7, 12_580)),
        (12_580, 5_003, 0, (5_000, 7_580)),
        (12_587, 5_000, 150, (4_997, 7_700)),
    ],
)
def test_the_balance_gives_the_odd_rest_that_no_card_carries(
    amount: int, available: int, fee_bps: int, expected: tuple[int, int]
) -> None:
    world = short(amount, available, fee_bps=fee_bps)
    method = world.method(COMBINED)
    assert code(method) is None
    assert shares(method) == dict(zip((LegType.BALANCE, LegType.CHANNEL), expected, strict=True))
    assert (code(world.method("QUICK_PAY:c_CMB")) is None) is (amount % 10 == 0)


@pytest.mark.parametrize(("amount", "available", "top_up"), [(12_587, 6, 1), (12_580, 3, 7)])
def test_a_balance_without_the_odd_rest_needs_a_little_more(amount: int, available: int, top_up: int) -> None:
    reason = short(amount, available).method(COMBINED).reason
    assert reason is not None
    assert reason.code is ReasonCode.AMOUNT_NOT_CARRIABLE
    assert reason.remedy == Remedy(RemedyType.TOP_UP, cny(top_up))
    assert short(amount, available + top_up).method(COMBINED).reason is None


def test_a_split_meets_the_cards_minimum_with_a_multiple() -> None:
    assert shares(short(1_007, 990, least=101).method(COMBINED)) == {LegType.BALANCE: 897, LegType.CHANNEL: 110}
    assert code(short(108, 100, least=101).method(COMBINED)) is ReasonCode.BELOW_MIN


def test_only_channels_that_carry_the_very_price_are_candidates_for_routing() -> None:
    rails = (
        channel(Kind.CARD, "A", step=10, fee_bps=125),
        channel(Kind.CARD, "B", fee_bps=125),
        channel(Kind.CARD, "C", step=10, fee_bps=125),
        channel(Kind.CARD, "D", step=50, fee_bps=125),
    )
    world = World(order=order(12_750), channels=rails)
    chosen = candidates(world.case(), ChosenMethod("CARD"))
    assert [each.provider for each in chosen.channels] == ["A", "C", "D"], "B would charge a fee of 159"
    sent = legs(world.method("CARD"), chosen.quote, "CARD:A", "tok_1")
    assert not isinstance(sent, LegsRefused)
    assert [leg.amount.value for leg in sent] == [12_900]


def test_an_odd_price_is_routed_to_the_channel_without_a_step() -> None:
    rails = (channel(Kind.CARD, "A", step=10), channel(Kind.CARD, "B"))
    chosen = candidates(World(order=order(12_587), channels=rails).case(), ChosenMethod("CARD"))
    assert [each.provider for each in chosen.channels] == ["B"]
