"""Candidates are exactly the channels that assembly accepts for a method at its price."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import event, given

from cashier.domain import refusal
from cashier.domain.channel_candidates import Candidates, ChosenMethod, candidates
from cashier.domain.facts import CardType, Channel, ChannelStatus
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Availability, Instrument, Kind, LegType, PayMethod, ReasonCode
from cashier.source_errors import MissingCause
from tests.domain.builders import (
    World,
    account,
    agreement,
    card,
    channel,
    cny,
    one_of_each,
    order,
    promotion,
    quota,
    request,
)
from tests.domain.test_kinds import WAYS
from tests.domain.world_strategies import worlds

ADYEN = channel(Kind.CARD, "ADYEN", "ch_adyen", brands=frozenset({"VISA", "JCB"}), fee_bps=100)
WORLDPAY = channel(
    Kind.CARD, "WORLDPAY", "ch_worldpay", brands=frozenset({"VISA"}), card_types=frozenset({"CREDIT"}), fee_bps=100
)


def find_candidates(world: World, method_id: str, option_id: str | None = None, **more: Any) -> Candidates:
    return candidates(world.case(), ChosenMethod(method_id, option_id, **more))


def ids(found: Candidates) -> list[str]:
    return [channel.channel_id for channel in found.channels]


def choices(method: PayMethod) -> list[tuple[str | None, Availability]]:
    """The payer's choices within a method: the method itself, or each of its options."""
    return [(option.option_id, option.availability) for option in method.options] or [(None, method.availability)]


@given(worlds())
def test_a_method_has_candidates_at_its_offered_price_exactly_if_it_is_available_over_a_channel(
    world: World,
) -> None:
    for method in world.methods():
        for option_id, availability in choices(method):
            result = find_candidates(world, method.method_id, option_id)
            assert result.quote.amounts == next(
                (option.amount for option in method.options if option.option_id == option_id), method.amount
            )
            carried = (
                result.quote.amounts is not None
                and result.quote.amounts.payable.value > 0
                and result.quote.channel is not None
            )
            assert bool(result.channels) == (availability is Availability.AVAILABLE and carried)
            assert refusal.availability(result.quote.refusal) is availability
            event(f"{len(result.channels)} candidates")


@given(worlds())
def test_every_candidate_alone_would_carry_the_method_at_the_same_price(world: World) -> None:
    for method in world.methods():
        for option_id, _ in choices(method):
            result = find_candidates(world, method.method_id, option_id)
            for candidate in result.channels:
                others = tuple(
                    other
                    for other in world.channels
                    if other.kind != candidate.kind or other.channel_id == candidate.channel_id
                )
                alone = world.but(channels=others).method(method.method_id)
                price = next((option.amount for option in alone.options if option.option_id == option_id), alone.amount)
                assert alone.availability is Availability.AVAILABLE
                assert price == result.quote.amounts


def test_each_kind_describes_the_payment_for_routing() -> None:
    world = one_of_each(order=order(7_000))
    for kind, bank in [
        (Kind.CARD, None),
        (Kind.CONSUMER_QR, None),
        (Kind.NET_BANKING, "ICBC"),
        (Kind.VA, "BCA"),
        (Kind.OTC, "ALFAMART"),
    ]:
        routed = find_candidates(world, kind, bank).routed_payment
        assert routed is not None
        assert (routed.kind, routed.bank, routed.amount, routed.merchant_id) == (kind, bank, cny(7_000), "m_1")
    for method_id, bank in [
        ("WALLET:ALIPAY", "ALIPAY"),
        ("MERCHANT_QR:WECHAT", "WECHAT"),
        ("AGREEMENT:a_1", "UNIONPAY"),
    ]:
        routed = find_candidates(world, method_id).routed_payment
        assert routed is not None
        assert routed.bank == bank
    quick_pay = find_candidates(world, "QUICK_PAY:c_CMB").routed_payment
    assert quick_pay is not None
    assert (quick_pay.bank, quick_pay.brand, quick_pay.country, quick_pay.terminal) == (
        "CMB",
        "UNIONPAY",
        "CN",
        Terminal.APP,
    )


def test_the_routed_amount_is_the_payable_amount() -> None:
    routed = find_candidates(World(channels=(ADYEN,), promotions=(promotion("p_1", 1_000),)), "CARD").routed_payment
    assert routed is not None
    # 100.00 less 10.00, plus 1 % of that as the fee.
    assert routed.amount == cny(9_090)


def test_an_external_card_goes_only_to_channels_that_accept_its_brand_and_type() -> None:
    world = World(channels=(ADYEN, WORLDPAY))
    assert ids(find_candidates(world, "CARD")) == ["ch_adyen", "ch_worldpay"]
    assert ids(find_candidates(world, "CARD", card=Instrument("", brand="JCB"))) == ["ch_adyen"]
    assert ids(find_candidates(world, "CARD", card=Instrument("", brand="VISA", type=CardType.DEBIT))) == ["ch_adyen"]
    unknown = find_candidates(world, "CARD", card=Instrument("", brand="AMEX"))
    assert (ids(unknown), unknown.routed_payment) == ([], None)
    assert unknown.quote.refusal is not None
    assert unknown.quote.refusal.code is ReasonCode.NO_CHANNEL


def test_a_channel_with_another_fee_is_no_candidate() -> None:
    dearer = channel(Kind.CARD, "STRIPE", "ch_stripe", fee_bps=150)
    assert ids(find_candidates(World(channels=(ADYEN, WORLDPAY, dearer)), "CARD")) == ["ch_adyen", "ch_worldpay"]


@pytest.mark.parametrize(
    "refused",
    [
        channel(Kind.CARD, "X", status=ChannelStatus.CLOSED),
        channel(Kind.CARD, "X", status=ChannelStatus.MAINTENANCE),
        channel(Kind.CARD, "X", most=9_999),
        channel(Kind.CARD, "X", least=10_001),
        channel(Kind.CARD, "X", terminals=frozenset({"POS"})),
        channel(Kind.CARD, "X", products=frozenset({"SCAN"})),
        channel(Kind.CARD, "X", currency="USD"),
    ],
)
def test_a_channel_that_cannot_carry_this_payment_is_no_candidate(refused: Channel) -> None:
    good = channel(Kind.CARD, "GOOD", "ch_good")
    assert ids(find_candidates(World(channels=(good, refused)), "CARD")) == ["ch_good"]


def test_a_scanned_code_goes_only_to_its_own_provider() -> None:
    both = (channel(Kind.CONSUMER_QR, "ALIPAY", "ch_a"), channel(Kind.CONSUMER_QR, "WECHAT_PAY", "ch_w"))
    world = World(channels=both, request=request(product=Product.SCAN, terminal=Terminal.POS))
    assert ids(find_candidates(world, "CONSUMER_QR")) == ["ch_a", "ch_w"]
    assert ids(find_candidates(world, "CONSUMER_QR", provider="WECHAT_PAY")) == ["ch_w"]
    assert ids(find_candidates(world, "CONSUMER_QR", provider="UNIONPAY")) == []


def test_in_a_split_payment_the_channel_carries_only_its_part() -> None:
    two = (channel(Kind.QUICK_PAY, "CMB", "ch_1"), channel(Kind.QUICK_PAY, "CMB", "ch_2", cost_bps=10))
    result = find_candidates(
        World(cards=(card(),), accounts=(account(4_000),), channels=two), "BALANCE:b_1+QUICK_PAY", "c_CMB"
    )
    assert ids(result) == ["ch_1", "ch_2"]
    assert result.routed_payment is not None
    assert (result.routed_payment.kind, result.routed_payment.amount) == (Kind.QUICK_PAY, cny(6_000))
    assert {leg.type: leg.amount.value for leg in result.quote.legs} == {
        LegType.BALANCE: 4_000,
        LegType.CHANNEL: 6_000,
    }


def test_a_channel_that_would_split_the_payment_otherwise_is_no_candidate() -> None:
    """Its minimum is above the rest, so the balance would have to pay less than the payer saw."""
    two = (channel(Kind.QUICK_PAY, "CMB", "ch_1", cost_bps=10), channel(Kind.QUICK_PAY, "CMB", "ch_2", least=8_000))
    result = find_candidates(World(cards=(card(),), accounts=(account(4_000),), channels=two), "BALANCE:b_1+QUICK_PAY")
    assert ids(result) == ["ch_1"]


def test_a_payment_that_needs_no_channel_has_no_candidates_and_no_refusal() -> None:
    paid_by_balance = find_candidates(World(accounts=(account(50_000),)), "BALANCE:b_1")
    discounted = World(channels=(ADYEN,), promotions=(promotion("p_1", 10_000, kinds=frozenset({Kind.CARD})),))
    nothing_left = find_candidates(discounted, "CARD")
    free = find_candidates(World(order=order(0), channels=(ADYEN,)), "FREE")
    for result in (paid_by_balance, nothing_left, free):
        assert (result.quote.refusal, result.channels, result.routed_payment) == (None, (), None)
    for result in (nothing_left, free):
        assert result.quote.amounts is not None
        assert result.quote.amounts.payable.value == 0


@pytest.mark.parametrize("way", sorted(WAYS.values()))
def test_where_nothing_is_to_pay_only_free_has_a_price(way: str) -> None:
    for free in (one_of_each(order=order(0)), one_of_each(promotions=(promotion("p_1", 10_000),))):
        assert (find_candidates(free, way).quote.refusal is None) is (way == "FREE")
    assert find_candidates(one_of_each(), "FREE").quote.refusal is not None


def test_a_method_whose_own_promotion_leaves_nothing_to_pay_needs_no_option() -> None:
    mine = promotion("p_1", 10_000, kinds=frozenset({Kind.NET_BANKING}))
    result = find_candidates(one_of_each(promotions=(mine,)), "NET_BANKING")
    assert (result.quote.refusal, result.channels) == (None, ())
    assert result.quote.amounts is not None
    assert result.quote.amounts.payable == cny(0)


def test_a_silent_source_leaves_no_candidates_and_is_named() -> None:
    for source in ("channel", "quota"):
        result = find_candidates(one_of_each(silent={source: MissingCause.TIMEOUT}), "WALLET:ALIPAY")
        assert result.quote.refusal is not None
        assert (result.quote.refusal.undetermined, result.quote.refusal.source, result.channels) == (True, source, ())


@pytest.mark.parametrize(
    ("source", "method_id"),
    [
        ("card", "QUICK_PAY:c_1"),
        ("card", "AGREEMENT:a_1"),
        ("card", "BALANCE:b_1+QUICK_PAY"),
        ("balance", "BALANCE:b_1"),
    ],
)
def test_a_method_that_a_silent_source_would_list_is_undetermined(source: str, method_id: str) -> None:
    result = find_candidates(one_of_each(silent={source: MissingCause.TIMEOUT}), method_id)
    assert result.quote.refusal is not None
    assert (result.quote.refusal.undetermined, result.quote.refusal.source) == (True, source)


def test_a_quota_on_one_channel_leaves_the_other() -> None:
    world = World(channels=(ADYEN, WORLDPAY), quotas=(quota(Kind.CARD, daily=(10_000, 5_000), bank="ADYEN"),))
    assert ids(find_candidates(world, "CARD")) == ["ch_worldpay"]


@pytest.mark.parametrize(
    "method_id",
    ["", "NONSENSE", "QUICK_PAY:c_9", "WALLET:NOBODY", "AGREEMENT:a_9", "BALANCE:b_9", "BALANCE:b_9+QUICK_PAY"],
)
def test_a_method_that_does_not_exist_is_refused(method_id: str) -> None:
    result = find_candidates(one_of_each(agreements=(agreement(),)), method_id)
    assert result.quote.refusal is not None
    assert (result.quote.refusal.code, result.channels) == (ReasonCode.NO_CHANNEL, ())


def test_a_method_with_options_needs_an_option() -> None:
    assert ids(find_candidates(one_of_each(), "NET_BANKING")) == []
    assert ids(find_candidates(one_of_each(), "NET_BANKING", "ICBC")) == ["NET_BANKING:ICBC"]
