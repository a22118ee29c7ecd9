"""Split payments: the parts of balance and card, the choice of the card, and the legs."""

from __future__ import annotations

from typing import Any

from cashier.domain.facts import CardStatus, ChannelStatus
from cashier.domain.pay_method import (
    Availability,
    Kind,
    Leg,
    LegType,
    PayMethod,
    ReasonCode,
    Remedy,
    RemedyType,
)
from tests.domain.builders import World, account, card, channel, cny, member, merchant, order, promotion, quota

AVAILABLE, UNAVAILABLE = Availability.AVAILABLE, Availability.UNAVAILABLE
COMBINED = "BALANCE:b_1+QUICK_PAY"


def short(amount: int = 10_000, available: int = 4_000, *, channels: Any = None, **changes: Any) -> World:
    """An account with too little, and a CMB card."""
    return World(
        order=order(amount),
        cards=(card("CMB"),),
        accounts=(account(available),),
        channels=channels or (channel(Kind.QUICK_PAY, "CMB"),),
    ).but(**changes)


def legs(method: PayMethod) -> dict[LegType, int]:
    return {leg.type: leg.amount.value for leg in method.legs}


def test_the_balance_pays_its_amount_and_the_card_the_rest() -> None:
    method = short().method(COMBINED)
    assert method.availability is AVAILABLE
    assert method.title == "Balance and CMB Bank debit card (1014)"
    assert method.legs == (
        Leg(LegType.BALANCE, "b_1", cny(4_000)),
        Leg(LegType.CHANNEL, "c_CMB", cny(6_000)),
    )


def test_the_balance_alone_is_listed_too_with_its_shortfall() -> None:
    method = short().method("BALANCE:b_1")
    assert method.availability is UNAVAILABLE
    assert method.reason is not None
    assert method.reason.remedy == Remedy(RemedyType.TOP_UP, cny(6_000))


def test_a_sufficient_or_empty_account_is_not_split() -> None:
    assert COMBINED not in short(available=10_000).ids()
    assert COMBINED not in short(available=0).ids()
    assert COMBINED in short(available=1).ids()
    assert COMBINED in short(available=9_999).ids()


def test_no_split_exists_without_a_usable_card_or_if_a_kind_is_refused() -> None:
    assert COMBINED not in short(cards=()).ids()
    assert COMBINED not in short(cards=(card("CMB", status=CardStatus.FROZEN),)).ids()
    assert COMBINED not in short(merchant=merchant(kinds=frozenset({Kind.BALANCE}))).ids()
    assert COMBINED not in short(merchant=merchant(kinds=frozenset({Kind.QUICK_PAY}))).ids()
    assert COMBINED not in short(member=member(kyc_level=0)).ids()


def test_an_account_refused_by_its_own_limit_is_not_split() -> None:
    assert COMBINED not in short(quotas=(quota(Kind.BALANCE, single=9_999),)).ids()
    assert COMBINED in short(quotas=(quota(Kind.BALANCE, single=10_000),)).ids()


def test_the_fee_is_on_what_the_card_carries() -> None:
    method = short(channels=(channel(Kind.QUICK_PAY, "CMB", fee_bps=100),)).method(COMBINED)
    assert method.amount is not None
    assert (method.amount.fee, method.amount.payable) == (cny(60), cny(10_060))
    assert legs(method) == {LegType.BALANCE: 4_000, LegType.CHANNEL: 6_060}


def test_the_balance_pays_less_if_the_rest_is_below_the_channels_minimum() -> None:
    method = short(available=9_990, channels=(channel(Kind.QUICK_PAY, "CMB", least=100),)).method(COMBINED)
    assert method.availability is AVAILABLE
    assert legs(method) == {LegType.BALANCE: 9_900, LegType.CHANNEL: 100}


def test_the_fee_counts_towards_the_minimum_of_the_cards_channel() -> None:
    method = short(available=9_990, channels=(channel(Kind.QUICK_PAY, "CMB", least=100, fee_bps=200),)).method(COMBINED)
    assert legs(method) == {LegType.BALANCE: 9_902, LegType.CHANNEL: 100}


def test_a_split_in_which_the_card_would_carry_everything_is_below_the_minimum() -> None:
    for least, availability in ((9_999, AVAILABLE), (10_000, UNAVAILABLE), (10_001, UNAVAILABLE)):
        method = short(channels=(channel(Kind.QUICK_PAY, "CMB", least=least),)).method(COMBINED)
        assert method.availability is availability
    assert method.reason is not None
    assert method.reason.code is ReasonCode.BELOW_MIN
    assert method.legs == ()


def test_the_cards_limits_are_tested_on_its_own_leg() -> None:
    def method(single: int) -> PayMethod:
        return short(quotas=(quota(Kind.QUICK_PAY, bank="CMB", single=single),)).method(COMBINED)

    assert method(6_000).availability is AVAILABLE
    refused = method(5_999).reason
    assert refused is not None
    assert (refused.code, refused.source) == (ReasonCode.ABOVE_SINGLE_LIMIT, "quota")
    assert refused.remedy == Remedy(RemedyType.REDUCE_AMOUNT, cny(9_999)), "the card's share and what the balance gives"
    assert short(channels=(channel(Kind.QUICK_PAY, "CMB", most=5_999),)).method(COMBINED).availability is UNAVAILABLE


def test_a_card_without_a_channel_is_a_refused_option() -> None:
    world = short(cards=(card("CMB"), card("ICBC")))
    option = world.option(COMBINED, "c_ICBC")
    assert option.reason is not None
    assert option.reason.code is ReasonCode.NO_CHANNEL
    assert world.method(COMBINED).availability is AVAILABLE


def test_every_usable_card_is_an_option_and_the_cheapest_is_chosen() -> None:
    world = short(
        cards=(card("CMB"), card("ICBC"), card("BOC", status=CardStatus.FROZEN)),
        channels=(
            channel(Kind.QUICK_PAY, "CMB", fee_bps=10),
            channel(Kind.QUICK_PAY, "ICBC"),
            channel(Kind.QUICK_PAY, "BOC"),
        ),
    )
    method = world.method(COMBINED)
    assert [option.option_id for option in method.options] == ["c_CMB", "c_ICBC"]
    assert method.legs[1].id == "c_ICBC"
    assert [option.amount.payable for option in method.options if option.amount] == [cny(10_006), cny(10_000)]


def test_the_choice_among_cards_of_one_bank_does_not_depend_on_their_order() -> None:
    cards = (card("CMB", "c_1"), card("CMB", "c_2"))
    assert short(cards=cards).method(COMBINED).legs[1].id == "c_1"
    assert short(cards=cards[::-1]).method(COMBINED).legs[1].id == "c_1"


def test_a_card_whose_channel_is_closed_is_not_chosen() -> None:
    world = short(
        cards=(card("CMB"), card("ICBC")),
        channels=(
            channel(Kind.QUICK_PAY, "CMB", status=ChannelStatus.CLOSED),
            channel(Kind.QUICK_PAY, "ICBC", fee_bps=500),
        ),
    )
    assert world.method(COMBINED).legs[1].id == "c_ICBC"


def test_a_promotion_applies_to_a_split_if_it_allows_both_kinds() -> None:
    def discounts(*kinds: Kind) -> list[str]:
        amount = short(promotions=(promotion("p", 100, kinds=kinds),)).method(COMBINED).amount
        assert amount is not None
        return [discount.promotion_id for discount in amount.discounts]

    assert discounts() == ["p"]
    assert discounts(Kind.BALANCE, Kind.QUICK_PAY) == ["p"]
    assert discounts(Kind.BALANCE) == []
    assert discounts(Kind.QUICK_PAY) == []


def test_a_banks_promotion_applies_only_to_a_split_with_its_card() -> None:
    world = short(
        cards=(card("CMB"), card("ICBC")),
        channels=(channel(Kind.QUICK_PAY, "CMB"), channel(Kind.QUICK_PAY, "ICBC")),
        promotions=(promotion("p", 100, banks=frozenset({"CMB"})),),
    )
    prices = {option.option_id: option.amount.payable for option in world.method(COMBINED).options if option.amount}
    assert prices == {"c_CMB": cny(9_900), "c_ICBC": cny(10_000)}
    assert legs(world.method(COMBINED)) == {LegType.BALANCE: 4_000, LegType.CHANNEL: 5_900}


def test_a_card_promotion_does_not_apply_without_a_card_payment() -> None:
    world = short(
        100,
        available=99,
        channels=(channel(Kind.QUICK_PAY, "CMB", least=0),),
        promotions=(promotion("p", 10, banks=frozenset({"CMB"})),),
    )
    method = world.method(COMBINED)
    assert method.availability is AVAILABLE
    assert legs(method) == {LegType.BALANCE: 89, LegType.CHANNEL: 1}


def test_a_discount_always_leaves_a_part_for_the_balance() -> None:
    world = short(
        100,
        available=50,
        channels=(channel(Kind.QUICK_PAY, "CMB", least=60),),
        promotions=(promotion("p_1", 40, kinds=[Kind.BALANCE, Kind.QUICK_PAY]),),
    )
    method = world.method(COMBINED)
    assert method.availability is AVAILABLE
    assert legs(method) == {LegType.BALANCE: 40, LegType.CHANNEL: 60}


def test_a_split_fully_paid_by_promotions_has_no_legs() -> None:
    world = short(100, available=50, promotions=(promotion("p_1", 100, banks=frozenset({"CMB"})),))
    method = world.method(COMBINED)
    assert method.availability is AVAILABLE
    assert method.amount is not None
    assert (method.amount.payable, method.legs) == (cny(0), ())


def test_each_insufficient_account_has_its_own_split() -> None:
    world = short(accounts=(account(4_000, "b_1"), account(3_000, "b_2"), account(20_000, "b_3")))
    assert {method_id for method_id in world.ids() if "+" in method_id} == {COMBINED, "BALANCE:b_2+QUICK_PAY"}
    assert legs(world.method("BALANCE:b_2+QUICK_PAY")) == {
        LegType.BALANCE: 3_000,
        LegType.CHANNEL: 7_000,
    }
