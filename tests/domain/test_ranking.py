"""The order of methods and its reasons."""

from __future__ import annotations

from typing import Any

import pytest

from cashier.domain.facts import Boost, CardStatus, ChannelStatus
from cashier.domain.money import Money
from cashier.domain.pay_method import Health, Kind
from cashier.source_errors import MissingCause
from tests.domain.builders import World, account, agreement, card, channel, cny, member, one_of_each, order, promotion


def two_wallets(first: dict[str, Any], second: dict[str, Any], **changes: Any) -> World:
    return World(channels=(channel(Kind.WALLET, "ONE", **first), channel(Kind.WALLET, "OTHER", **second))).but(
        **changes
    )


def reasons(world: World, method_id: str) -> tuple[str, ...]:
    return world.method(method_id).rank_reasons


def test_usable_methods_come_first_then_undetermined_ones_for_any_score() -> None:
    world = World(
        cards=(card("CMB", status=CardStatus.FROZEN),),
        accounts=(account(50_000),),
        channels=(channel(Kind.QUICK_PAY, "CMB"),),
        member=member((Kind.QUICK_PAY, 100), last_used=(Kind.QUICK_PAY, "c_CMB")),
        silent={"marketing": MissingCause.TIMEOUT},
    )
    assert world.ids() == ["BALANCE:b_1", "QUICK_PAY:c_CMB"]
    silent = one_of_each(
        cards=(card("CMB", status=CardStatus.FROZEN),), silent={"channel": MissingCause.TIMEOUT}
    ).methods()
    assert silent[0].method_id == "BALANCE:b_1"
    assert silent[-1].method_id == "QUICK_PAY:c_CMB"


def test_ranks_count_from_one_and_the_first_is_preferred_if_usable() -> None:
    methods = one_of_each().methods()
    assert [method.rank for method in methods] == list(range(1, 12))
    assert [method.preferred for method in methods] == [True] + [False] * 10
    assert not any(method.preferred for method in one_of_each(silent={"quota": MissingCause.TIMEOUT}).methods())


def test_without_other_reasons_kinds_come_in_the_order_of_the_catalog() -> None:
    positions = [
        method.kind
        for method in one_of_each(
            channels=(), silent={"quota": MissingCause.TIMEOUT, "channel": MissingCause.TIMEOUT}
        ).methods()
    ]
    undetermined = [kind for kind in positions if kind not in (Kind.QUICK_PAY, Kind.BALANCE)]
    assert undetermined == [
        Kind.WALLET,
        Kind.AGREEMENT,
        Kind.CARD,
        Kind.NET_BANKING,
        Kind.VA,
        Kind.OTC,
        Kind.CONSUMER_QR,
        Kind.MERCHANT_QR,
        Kind.INSTALMENT,
    ]


def test_the_instrument_used_last_comes_first_and_its_kind_before_others() -> None:
    world = World(
        cards=(card("CMB", "c_1"), card("CMB", "c_2")),
        channels=(channel(Kind.QUICK_PAY, "CMB"), channel(Kind.WALLET, "A")),
        member=member(last_used=(Kind.QUICK_PAY, "c_2")),
    )
    assert world.ids() == ["QUICK_PAY:c_2", "QUICK_PAY:c_1", "WALLET:A"]
    assert reasons(world, "QUICK_PAY:c_2") == ("LAST_USED",)
    assert reasons(world, "QUICK_PAY:c_1") == ("LAST_KIND",)
    assert reasons(world, "WALLET:A") == ()


def test_a_kind_that_is_used_more_comes_first() -> None:
    world = World(
        cards=(card("CMB"),),
        channels=(channel(Kind.QUICK_PAY, "CMB"), channel(Kind.WALLET, "A")),
        member=member((Kind.QUICK_PAY, 1), (Kind.WALLET, 2), (Kind.WALLET, 1), (Kind.OTC, 0)),
    )
    assert world.ids() == ["WALLET:A", "QUICK_PAY:c_CMB"]
    assert reasons(world, "WALLET:A") == ("USED:3",)


def test_a_method_that_saves_more_comes_first() -> None:
    world = World(
        cards=(card("CMB"), card("ICBC")),
        channels=(channel(Kind.QUICK_PAY, "CMB"), channel(Kind.QUICK_PAY, "ICBC")),
        promotions=(promotion("p", 100, banks=frozenset({"ICBC"})),),
    )
    assert world.ids() == ["QUICK_PAY:c_ICBC", "QUICK_PAY:c_CMB"]
    assert reasons(world, "QUICK_PAY:c_ICBC") == ("SAVES:100",)


def test_a_fee_counts_against_a_method_and_is_a_reason() -> None:
    world = two_wallets({"fee_bps": 10}, {})
    assert world.ids() == ["WALLET:OTHER", "WALLET:ONE"]
    assert reasons(world, "WALLET:ONE") == ("FEE:10",)


def test_at_equal_scores_the_lower_price_comes_first() -> None:
    hardly = World(
        order=order(1_000_000),
        cards=(card("CMB"),),
        accounts=(account(2_000_000),),
        channels=(channel(Kind.QUICK_PAY, "CMB", cost_bps=0, success_bps=10_000),),
        promotions=(promotion("p", 10, kinds=[Kind.BALANCE]),),
    )
    assert hardly.ids() == ["BALANCE:b_1", "QUICK_PAY:c_CMB"], "ten of a million is no share, but it is money"


def test_at_equal_prices_the_lower_cost_comes_first_without_a_reason() -> None:
    world = two_wallets({"cost_bps": 60}, {"cost_bps": 20})
    assert world.ids() == ["WALLET:OTHER", "WALLET:ONE"]
    assert reasons(world, "WALLET:ONE") == reasons(world, "WALLET:OTHER") == ()


def test_a_fixed_cost_is_a_share_of_the_payable_amount_and_at_most_all_of_it() -> None:
    cheap = two_wallets({"cost_bps": 0, "fixed_cost": cny(50)}, {"cost_bps": 40})
    assert cheap.ids() == ["WALLET:OTHER", "WALLET:ONE"]
    assert cheap.but(order=order(1_000_000)).ids() == ["WALLET:ONE", "WALLET:OTHER"]
    tiny = two_wallets({"fixed_cost": cny(50)}, {}, order=order(1), member=member(last_used=(Kind.WALLET, "ONE")))
    assert tiny.ids() == ["WALLET:ONE", "WALLET:OTHER"], "habit outweighs what a cent costs us"


def test_a_fixed_cost_in_another_currency_is_not_counted() -> None:
    assert two_wallets({"fixed_cost": Money("JPY", 10**6)}, {}).ids() == ["WALLET:ONE", "WALLET:OTHER"]


def test_a_failing_channel_comes_later_with_a_reason_below_the_threshold() -> None:
    world = two_wallets({"success_bps": 8_999}, {"success_bps": 9_000})
    assert world.ids() == ["WALLET:OTHER", "WALLET:ONE"]
    assert reasons(world, "WALLET:ONE") == ("FAILS:1001",)
    assert reasons(world, "WALLET:OTHER") == ()


def test_marketing_can_boost_a_kind_and_boosts_are_named_in_a_fixed_order() -> None:
    boosts = (Boost(Kind.WALLET, 100, "spring"), Boost(Kind.WALLET, 50, "autumn"), Boost(Kind.VA, 900, "other"))
    world = World(accounts=(account(50_000),), channels=(channel(Kind.WALLET, "A", cost_bps=0, success_bps=10_000),))
    assert world.ids() == ["BALANCE:b_1", "WALLET:A"]
    boosted = world.but(boosts=boosts)
    assert boosted.ids() == ["WALLET:A", "BALANCE:b_1"]
    assert reasons(boosted, "WALLET:A") == ("BOOST:autumn", "BOOST:spring")
    assert boosted.but(boosts=boosts[::-1]).methods() == boosted.methods()
    assert boosted.but(silent={"marketing": MissingCause.TIMEOUT}).ids() == world.ids()


def test_reasons_have_a_fixed_order() -> None:
    world = World(
        channels=(channel(Kind.WALLET, "A", fee_bps=100, success_bps=5_000),),
        member=member((Kind.WALLET, 4), last_used=(Kind.WALLET, "A")),
        promotions=(promotion("p", 1_000),),
        boosts=(Boost(Kind.WALLET, 100, "x"),),
    )
    assert reasons(world, "WALLET:A") == ("LAST_USED", "SAVES:1000", "USED:4", "BOOST:x", "FEE:90", "FAILS:5000")


def test_similar_methods_do_not_share_a_price() -> None:
    world = two_wallets({"fee_bps": 100}, {"fee_bps": 100}).but(
        agreements=(agreement("AGREEMENT:U"),),
        channels=(channel(Kind.WALLET, "A", fee_bps=100), channel(Kind.WALLET, "B"), channel(Kind.AGREEMENT, "U")),
        member=member((Kind.WALLET, 1)),
    )
    assert reasons(world, "WALLET:A") == ("USED:1", "FEE:100")
    assert reasons(world, "WALLET:B") == ("USED:1",)
    assert reasons(world, "AGREEMENT:a_1") == ()


@pytest.mark.parametrize(
    ("changes", "health"),
    [
        ({"success_bps": 9_000}, Health.UP),
        ({"success_bps": 8_999}, Health.FLUCTUATING),
        ({"success_bps": 3_500}, Health.FLUCTUATING),
        ({"success_bps": 3_499}, Health.DOWN),
        ({"status": ChannelStatus.CLOSED}, Health.DOWN),
        ({"status": ChannelStatus.MAINTENANCE}, Health.DOWN),
    ],
)
def test_a_methods_health_is_its_channels(changes: dict[str, Any], health: Health) -> None:
    [method] = World(channels=(channel(Kind.WALLET, "A", **changes),)).methods()
    assert method.health is health


def test_a_card_without_a_channel_is_of_unknown_health() -> None:
    assert World(cards=(card("CMB"),)).method("QUICK_PAY:c_CMB").health is Health.UNKNOWN
