"""Balance and one card together: who gives what, which card, and that the legs are the payment."""

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
    """An account that is short, and a CMB card."""
    return World(
        order=order(amount),
        cards=(card("CMB"),),
        accounts=(account(available),),
        channels=channels or (channel(Kind.QUICK_PAY, "CMB"),),
    ).but(**changes)


def legs(method: PayMethod) -> dict[LegType, int]:
    return {leg.type: leg.amount.value for leg in method.legs}


def test_the_balance_gives_what_it_has_and_the_card_the_rest() -> None:
    method = short().method(COMBINED)
    assert method.availability is AVAILABLE
    assert method.title == "Balance and CMB Bank debit card (1014)"
    assert method.legs == (
        Leg(LegType.BALANCE, "b_1", cny(4_000)),
        Leg(LegType.CHANNEL, "c_CMB", cny(6_000)),
    )


def test_the_balance_alone_is_shown_too_and_says_what_is_missing() -> None:
    method = short().method("BALANCE:b_1")
    assert method.availability is UNAVAILABLE
    assert method.reason is not None
    assert method.reason.remedy == Remedy(RemedyType.TOP_UP, cny(6_000))


def test_an_account_that_holds_enough_or_nothing_is_not_combined() -> None:
    assert COMBINED not in short(available=10_000).ids()
    assert COMBINED not in short(available=0).ids()
    assert COMBINED in short(available=1).ids()
    assert COMBINED in short(available=9_999).ids()


def test_there_is_nothing_to_combine_with_where_no_card_is_good_or_either_kind_is_refused() -> None:
    assert COMBINED not in short(cards=()).ids()
    assert COMBINED not in short(cards=(card("CMB", status=CardStatus.FROZEN),)).ids()
    assert COMBINED not in short(merchant=merchant(kinds=frozenset({Kind.BALANCE}))).ids()
    assert COMBINED not in short(merchant=merchant(kinds=frozenset({Kind.QUICK_PAY}))).ids()
    assert COMBINED not in short(member=member(kyc_level=0)).ids()


def test_an_account_that_its_own_limit_refuses_is_not_combined() -> None:
    assert COMBINED not in short(quotas=(quota(Kind.BALANCE, single=9_999),)).ids()
    assert COMBINED in short(quotas=(quota(Kind.BALANCE, single=10_000),)).ids()


def test_the_fee_is_on_what_the_card_carries() -> None:
    method = short(channels=(channel(Kind.QUICK_PAY, "CMB", fee_bps=100),)).method(COMBINED)
    assert method.amount is not None
    assert (method.amount.fee, method.amount.payable) == (cny(60), cny(10_060))
    assert legs(method) == {LegType.BALANCE: 4_000, LegType.CHANNEL: 6_060}


def test_where_the_rest_is_less_than_the_channel_carries_the_balance_gives_less() -> None:
    method = short(available=9_990, channels=(channel(Kind.QUICK_PAY, "CMB", least=100),)).method(COMBINED)
    assert method.availability is AVAILABLE
    assert legs(method) == {LegType.BALANCE: 9_900, LegType.CHANNEL: 100}


def test_the_minimum_of_the_channel_is_reached_with_the_fee() -> None:
    method = short(available=9_990, channels=(channel(Kind.QUICK_PAY, "CMB", least=100, fee_bps=200),)).method(COMBINED)
    assert legs(method) == {LegType.BALANCE: 9_902, LegType.CHANNEL: 100}


def test_where_the_card_would_have_to_carry_everything_it_is_below_the_channels_minimum() -> None:
    for least, availability in ((9_999, AVAILABLE), (10_000, UNAVAILABLE), (10_001, UNAVAILABLE)):
        method = short(channels=(channel(Kind.QUICK_PAY, "CMB", least=least),)).method(COMBINED)
        assert method.availability is availability
    assert method.reason is not None
    assert method.reason.code is ReasonCode.BELOW_MIN
    assert method.legs == ()


def test_the_card_is_held_to_its_limits_by_its_own_leg() -> None:
    def method(single: int) -> PayMethod:
        return short(quotas=(quota(Kind.QUICK_PAY, bank="CMB", single=single),)).method(COMBINED)

    assert method(6_000).availability is AVAILABLE
    refused = method(5_999).reason
    assert refused is not None
    assert (refused.code, refused.source) == (ReasonCode.ABOVE_SINGLE_LIMIT, "quota")
    assert refused.remedy == Remedy(RemedyType.REDUCE_AMOUNT, cny(9_999)), "the card's share and what the balance gives"
    assert short(channels=(channel(Kind.QUICK_PAY, "CMB", most=5_999),)).method(COMBINED).availability is UNAVAILABLE


def test_a_card_without_a_channel_is_an_option_that_says_so() -> None:
    world = short(cards=(card("CMB"), card("ICBC")))
    option = world.option(COMBINED, "c_ICBC")
    assert option.reason is not None
    assert option.reason.code is ReasonCode.NO_CHANNEL
    assert world.method(COMBINED).availability is AVAILABLE


def test_every_good_card_is_an_option_and_the_cheapest_is_chosen() -> None:
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


def test_of_cards_of_one_bank_the_choice_does_not_depend_on_their_order() -> None:
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


def test_a_promotion_counts_where_it_allows_both_kinds() -> None:
    def discounts(*kinds: Kind) -> list[str]:
        amount = short(promotions=(promotion("p", 100, kinds=kinds),)).method(COMBINED).amount
        assert amount is not None
        return [discount.promotion_id for discount in amount.discounts]

    assert discounts() == ["p"]
    assert discounts(Kind.BALANCE, Kind.QUICK_PAY) == ["p"]
    assert discounts(Kind.BALANCE) == []
    assert discounts(Kind.QUICK_PAY) == []


def test_a_banks_promotion_is_for_the_combination_with_its_card_only() -> None:
    world = short(
        cards=(card("CMB"), card("ICBC")),
        channels=(channel(Kind.QUICK_PAY, "CMB"), channel(Kind.QUICK_PAY, "ICBC")),
        promotions=(promotion("p", 100, banks=frozenset({"CMB"})),),
    )
    prices = {option.option_id: option.amount.payable for option in world.method(COMBINED).options if option.amount}
    assert prices == {"c_CMB": cny(9_900), "c_ICBC": cny(10_000)}
    assert legs(world.method(COMBINED)) == {LegType.BALANCE: 4_000, LegType.CHANNEL: 5_900}


def test_a_promotion_for_paying_by_a_card_is_not_had_without_paying_by_it() -> None:
    world = short(
        100,
        available=99,
        channels=(channel(Kind.QUICK_PAY, "CMB", least=0),),
        promotions=(promotion("p", 10, banks=frozenset({"CMB"})),),
    )
    method = world.method(COMBINED)
    assert method.availability is AVAILABLE
    assert legs(method) == {LegType.BALANCE: 89, LegType.CHANNEL: 1}


def test_a_discount_does_not_leave_so_little_that_the_balance_has_no_part() -> None:
    world = short(
        100,
        available=50,
        channels=(channel(Kind.QUICK_PAY, "CMB", least=60),),
        promotions=(promotion("p_1", 40, kinds=[Kind.BALANCE, Kind.QUICK_PAY]),),
    )
    method = world.method(COMBINED)
    assert method.availability is AVAILABLE
    assert legs(method) == {LegType.BALANCE: 40, LegType.CHANNEL: 60}


def test_where_promotions_pay_for_everything_nobody_gives_anything() -> None:
    world = short(100, available=50, promotions=(promotion("p_1", 100, banks=frozenset({"CMB"})),))
    method = world.method(COMBINED)
    assert method.availability is AVAILABLE
    assert method.amount is not None
    assert (method.amount.payable, method.legs) == (cny(0), ())


def test_each_account_that_is_short_is_combined_for_itself() -> None:
    world = short(accounts=(account(4_000, "b_1"), account(3_000, "b_2"), account(20_000, "b_3")))
    assert {method_id for method_id in world.ids() if "+" in method_id} == {COMBINED, "BALANCE:b_2+QUICK_PAY"}
    assert legs(world.method("BALANCE:b_2+QUICK_PAY")) == {
        LegType.BALANCE: 3_000,
        LegType.CHANNEL: 7_000,
    }
