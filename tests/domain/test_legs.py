"""Legs add up exactly: promotions to the discounts, the others to the payable amount."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.channel_candidates import Candidates, ChosenMethod, candidates
from cashier.domain.legs import EngineLeg, EngineLegType, LegsDoNotAddUp, LegsRefused, LegsRefusedCode, legs
from cashier.domain.money import Money
from cashier.domain.pay_method import Availability, Kind, PayMethod, ReasonCode
from cashier.domain.quote import Quote
from cashier.source_errors import MissingCause
from tests.domain.builders import World, account, card, channel, cny, one_of_each, order, promotion
from tests.domain.world_strategies import worlds

TOKEN = "tok_1"


def find_candidates(world: World, method: PayMethod, option_id: str | None = None) -> Candidates:
    return candidates(world.case(), ChosenMethod(method.method_id, option_id))


def make_legs(
    world: World, method_id: str, option_id: str | None = None, card_token: str | None = TOKEN
) -> tuple[EngineLeg, ...] | LegsRefused:
    """The legs as in acceptance, over the first candidate channel."""
    method = world.method(method_id)
    result = find_candidates(world, method, option_id)
    return legs(method, result.quote, result.channels[0].channel_id if result.channels else None, card_token)


def channel_leg(amount: int, channel_id: str, instrument_id: str | None = None) -> EngineLeg:
    return EngineLeg(
        type=EngineLegType.CHANNEL,
        id=channel_id,
        channel_id=channel_id,
        instrument_id=instrument_id,
        amount=cny(amount),
    )


def promotion_leg(promotion_id: str, amount: int) -> EngineLeg:
    return EngineLeg(type=EngineLegType.PROMOTION, id=promotion_id, amount=cny(amount))


def balance_leg(amount: int, account_id: str = "b_1") -> EngineLeg:
    return EngineLeg(type=EngineLegType.BALANCE, id=account_id, amount=cny(amount))


@pytest.mark.parametrize(
    ("method_id", "option_id", "expected"),
    [
        ("QUICK_PAY:c_CMB", None, channel_leg(10_000, "QUICK_PAY:CMB", "c_CMB")),
        ("AGREEMENT:a_1", None, channel_leg(10_000, "AGREEMENT:UNIONPAY", "a_1")),
        ("CARD", None, channel_leg(10_000, "CARD:ACQUIRER", "tok_1")),
        ("NET_BANKING", "ICBC", channel_leg(10_000, "NET_BANKING:ICBC")),
        ("VA", "BCA", channel_leg(10_000, "VA:BCA")),
        ("OTC", "ALFAMART", channel_leg(10_000, "OTC:ALFAMART")),
        ("WALLET:ALIPAY", None, channel_leg(10_000, "WALLET:ALIPAY")),
        ("BALANCE:b_1", None, balance_leg(10_000)),
        ("MERCHANT_QR:WECHAT", None, channel_leg(10_000, "MERCHANT_QR:WECHAT")),
        ("CONSUMER_QR", None, channel_leg(10_000, "CONSUMER_QR:WECHAT")),
    ],
)
def test_each_kind_names_what_the_engine_needs(method_id: str, option_id: str | None, expected: EngineLeg) -> None:
    assert make_legs(one_of_each(), method_id, option_id) == (expected,)


def test_promotions_balance_and_card_add_up_to_one_payment() -> None:
    world = World(
        cards=(card("CMB"),),
        accounts=(account(4_000),),
        channels=(channel(Kind.QUICK_PAY, "CMB", fee_bps=100),),
        promotions=(promotion("p_1", 500), promotion("p_2", 333)),
    )
    assert make_legs(world, "BALANCE:b_1+QUICK_PAY") == (
        promotion_leg("p_1", 500),
        promotion_leg("p_2", 333),
        balance_leg(4_000),
        channel_leg(5_219, "QUICK_PAY:CMB", "c_CMB"),
    )


def test_another_card_than_the_cheapest_completes_the_balance_at_its_own_price() -> None:
    world = World(
        cards=(card("CMB"), card("ICBC")),
        accounts=(account(9_990),),
        channels=(channel(Kind.QUICK_PAY, "CMB"), channel(Kind.QUICK_PAY, "ICBC", least=100, fee_bps=200)),
    )
    assert make_legs(world, "BALANCE:b_1+QUICK_PAY") == (balance_leg(9_990), channel_leg(10, "QUICK_PAY:CMB", "c_CMB"))
    assert make_legs(world, "BALANCE:b_1+QUICK_PAY", "c_ICBC") == (
        balance_leg(9_902),
        channel_leg(100, "QUICK_PAY:ICBC", "c_ICBC"),
    )


@pytest.mark.parametrize("method_id", ["QUICK_PAY:c_CMB", "BALANCE:b_1", "CARD", "WALLET:ALIPAY"])
def test_an_order_that_discounts_bring_to_zero_is_paid_by_promotions_alone(method_id: str) -> None:
    mine: Any = {"kinds": frozenset({Kind(method_id.partition(":")[0])})}
    world = one_of_each(promotions=(promotion("p_1", 7_000, **mine), promotion("p_2", 4_000)))
    assert make_legs(world, method_id, card_token=None) == (promotion_leg("p_1", 7_000), promotion_leg("p_2", 3_000))


def test_a_split_payment_with_nothing_left_to_pay_needs_no_card() -> None:
    world = World(
        cards=(card("ICBC"),),
        accounts=(account(1),),
        channels=(channel(Kind.QUICK_PAY, "ICBC"),),
        promotions=(promotion("p_1", 10_000, banks=frozenset({"ICBC"})),),
    )
    assert make_legs(world, "BALANCE:b_1+QUICK_PAY") == (promotion_leg("p_1", 10_000),)
    assert make_legs(world, "BALANCE:b_1+QUICK_PAY", "c_ICBC") == (promotion_leg("p_1", 10_000),)


def test_an_order_of_zero_has_no_legs() -> None:
    for promotions in ((), (promotion("p_1", 100),)):
        assert make_legs(one_of_each(order=order(0), promotions=promotions), "FREE") == ()


def test_an_order_that_promotions_for_any_kind_bring_to_zero_has_only_their_legs() -> None:
    world = one_of_each(promotions=(promotion("p_1", 7_000), promotion("p_2", 4_000)))
    assert make_legs(world, "FREE", card_token=None) == (promotion_leg("p_1", 7_000), promotion_leg("p_2", 3_000))


def test_the_fee_is_carried_by_the_channel() -> None:
    world = World(channels=(channel(Kind.CARD, "VISA", fee_bps=150),), promotions=(promotion("p_1", 1_000),))
    assert make_legs(world, "CARD") == (promotion_leg("p_1", 1_000), channel_leg(9_135, "CARD:VISA", "tok_1"))


def test_a_card_without_its_token_and_a_method_without_its_instrument_have_no_legs() -> None:
    assert make_legs(one_of_each(), "CARD", card_token=None) == LegsRefused(LegsRefusedCode.INSTRUMENT_MISSING)
    world = one_of_each()
    nameless = structs.replace(world.method("QUICK_PAY:c_CMB"), instrument=None)
    assert legs(nameless, find_candidates(world, nameless).quote, "QUICK_PAY:CMB") == LegsRefused(
        LegsRefusedCode.INSTRUMENT_MISSING
    )


def test_a_method_that_needs_a_channel_has_no_legs_without_one() -> None:
    world = one_of_each()
    for method in world.methods():
        quote = find_candidates(world, method, "ICBC").quote
        if method.kind is not Kind.BALANCE and quote.refusal is None:
            assert legs(method, quote, None, "tok_1") == LegsRefused(LegsRefusedCode.CHANNEL_MISSING)


def test_a_balance_that_needs_a_card_never_pays_the_whole() -> None:
    world = World(cards=(card("CMB"),), accounts=(account(4_000),), channels=(channel(Kind.QUICK_PAY, "CMB"),))
    method = world.method("BALANCE:b_1+QUICK_PAY")
    whole = Quote(None, method.amount)
    assert legs(method, whole, "QUICK_PAY:CMB") == LegsRefused(LegsRefusedCode.INSTRUMENT_MISSING)


def test_a_refused_or_undetermined_method_has_no_legs_but_a_reason() -> None:
    short = World(accounts=(account(1),))
    assert make_legs(short, "BALANCE:b_1") == LegsRefused(LegsRefusedCode.REFUSED, ReasonCode.BALANCE_INSUFFICIENT)
    silent = one_of_each(silent={"quota": MissingCause.TIMEOUT})
    assert make_legs(silent, "QUICK_PAY:c_CMB") == LegsRefused(LegsRefusedCode.REFUSED, ReasonCode.SOURCE_TIMEOUT)
    assert legs(short.method("BALANCE:b_1"), Quote(None), None) == LegsRefused(LegsRefusedCode.PRICE_UNKNOWN)


def test_a_price_whose_parts_do_not_add_up_raises() -> None:
    world = one_of_each(promotions=(promotion("p_1", 500),))
    method = world.method("BALANCE:b_1")
    price = method.amount
    assert price is not None
    for wrong in (
        {"payable": cny(9_499)},
        {"fee": cny(1)},
        {"discounts": ()},
        {"order": cny(9_999)},
        {"fee": Money("USD", 0)},
    ):
        with pytest.raises(LegsDoNotAddUp):
            legs(method, Quote(None, structs.replace(price, **wrong)), None)


def test_the_repr_omits_the_card_token() -> None:
    result = make_legs(one_of_each(), "CARD", card_token="tok_secret")
    assert "tok_secret" not in repr(result)
    assert b"tok_secret" in msgspec.json.encode(result), "the engine gets it"


def test_a_leg_has_the_shape_of_the_contract() -> None:
    written = {"type": "PROMOTION", "id": "p_1", "amount": {"currency": "CNY", "value": 5}}
    assert msgspec.to_builtins(promotion_leg("p_1", 5)) == written
    assert set(msgspec.to_builtins(channel_leg(5, "ch", "c_1"))) == {
        "type",
        "id",
        "amount",
        "channel_id",
        "instrument_id",
    }


def every_choice(world: World) -> list[tuple[PayMethod, str | None]]:
    """All available choices: methods, and options of methods that have some."""
    result: list[tuple[PayMethod, str | None]] = []
    for method in world.methods():
        if method.availability is not Availability.AVAILABLE:
            continue
        split = method.kind is Kind.BALANCE and bool(method.options)
        result += [
            (method, option.option_id) for option in method.options if option.availability is Availability.AVAILABLE
        ]
        result += [(method, None)] if split or not method.options else []
    return result


def sums(result: tuple[EngineLeg, ...], *types: EngineLegType) -> int:
    return sum(leg.amount.value for leg in result if leg.type in types)


def shop(amount: int, balance: int, off_1: int, off_2: int, terms: int) -> World:
    """A small shop with all effects on a price.

    `terms`: a number that selects fees and minimums.
    """
    fees_bps, minimums = (0, 1, 150, 5_000), (1, 50, 100)
    return World(
        order=order(amount),
        cards=(card("CMB"), card("ICBC")),
        accounts=(account(balance),),
        channels=(
            channel(Kind.QUICK_PAY, "CMB", least=minimums[terms % 3], fee_bps=fees_bps[terms % 4]),
            channel(Kind.QUICK_PAY, "ICBC", least=minimums[terms // 3 % 3], fee_bps=fees_bps[terms // 4 % 4]),
            channel(Kind.VA, "BCA", fee_bps=fees_bps[terms // 16 % 4]),
            channel(Kind.WALLET, "ALIPAY"),
        ),
        promotions=(promotion("p_1", off_1), promotion("p_2", off_2, banks=frozenset({"ICBC"}))),
    )


SHOPS = st.builds(
    shop, st.integers(0, 300), st.integers(0, 300), st.integers(1, 150), st.integers(1, 150), st.integers(0, 143)
)


@given(st.one_of(SHOPS, SHOPS, worlds()))
def test_the_legs_of_every_available_method_are_order_and_fee_as_shown(world: World) -> None:
    for method, option_id in every_choice(world):
        result = make_legs(world, method.method_id, option_id)
        option = next((option for option in method.options if option.option_id == option_id), None)
        amounts = method.amount if option is None else option.amount
        assert amounts is not None
        assert isinstance(result, tuple)
        assert {leg.amount.currency for leg in result} <= {world.order.amount.currency}
        assert [(leg.id, leg.amount) for leg in result if leg.type is EngineLegType.PROMOTION] == [
            (discount.promotion_id, discount.amount) for discount in amounts.discounts
        ]
        assert sums(result, EngineLegType.BALANCE, EngineLegType.CHANNEL) == amounts.payable.value
        assert sums(result, *EngineLegType) == world.order.amount.value + amounts.fee.value
        assert all(leg.amount.value > 0 for leg in result)
        assert sum(leg.type is EngineLegType.CHANNEL for leg in result) <= 1


def test_the_generated_shops_have_splits_zeroes_options_and_fees() -> None:
    """Without these cases the property above would cover plain payments only."""
    seen: set[str] = set()

    random = Random(7)
    for _ in range(40):
        world = shop(*(random.randrange(most) for most in (300, 300, 150, 150, 144)))
        for method, option_id in every_choice(world):
            result: Any = make_legs(world, method.method_id, option_id)
            types = {leg.type for leg in result} if isinstance(result, tuple) else set()
            seen.update({"split"} if {EngineLegType.BALANCE, EngineLegType.CHANNEL} <= types else set())
            seen.update({"zero"} if types == {EngineLegType.PROMOTION} else set())
            seen.update({"option"} if option_id is not None and types else set())
            seen.update({"fee"} if method.amount is not None and method.amount.fee.value else set())
    assert seen == {"split", "zero", "option", "fee"}
