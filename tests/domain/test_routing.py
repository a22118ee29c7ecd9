"""Which channel a payment takes: the rule's first, unless what was learned speaks against it; the same for the same payment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.channel_health import ChannelRecord
from cashier.domain.facts import Channel
from cashier.domain.money import Money
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind
from cashier.domain.routing import RouteReason, RoutingDecision, draw, route
from cashier.domain.routing_rules import RankBy, RoutedPayment, Routing, RoutingRule, RuleCondition
from tests.domain.builders import channel, cny

NOW_S = 10_000
PASSAGE = RoutedPayment(Kind.CARD, cny(10_000), "CN", Terminal.APP, Product.STANDARD_CASHIER, "m_1")
PAYMENT = 1_000_000


def road(channel_id: str, cost_bps: int = 30, success_bps: int = 9_700, **changes: Any) -> Channel:
    return structs.replace(
        channel(Kind.CARD, channel_id.upper(), channel_id), cost_bps=cost_bps, success_bps=success_bps, **changes
    )


def seen(good: int, bad: int, **changes: Any) -> ChannelRecord:
    return structs.replace(ChannelRecord(good * PAYMENT, bad * PAYMENT, NOW_S), **changes)


CHEAP, DEAR, SAFE = road("cheap", 20), road("dear", 40), road("safe", 60, 9_900)
ALL = (CHEAP, DEAR, SAFE)
SICK = seen(0, 30, sick=True, sick_count=1, state_since_s=NOW_S - 100, probed_at_s=NOW_S - 10)


def routed(
    channels: tuple[Channel, ...] = ALL,
    rule: RoutingRule | None = None,
    *,
    seed: str = "pay_1",
    passage: RoutedPayment = PASSAGE,
    tried: Set[str] = frozenset(),
    records: Mapping[str, ChannelRecord] | None = None,
    **more: ChannelRecord,
) -> RoutingDecision:
    return route(
        Routing(rule=(rule or RoutingRule("cheapest_healthy"),)), passage, channels, records or more, NOW_S, seed, tried
    )


def spread(count: int = 1_000, **more: Any) -> Counter[str]:
    """Where so many payments go."""
    return Counter(routed(seed=f"pay_{number}", **more).channel_id for number in range(count))


def order_of(found: RoutingDecision) -> list[str]:
    return [found.channel_id, *found.alternatives]


def test_the_cheapest_channel_carries_and_the_others_are_alternatives_in_order() -> None:
    found = routed()
    assert order_of(found) == ["cheap", "dear", "safe"]
    assert (found.rule, found.why, found.probe) == ("cheapest_healthy", RouteReason.CHEAPEST, False)
    assert [(one.channel_id, one.share_bps) for one in found.rated] == [("cheap", 10_000), ("dear", 0), ("safe", 0)]


def test_a_single_channel_carries_in_any_health() -> None:
    for record in (ChannelRecord(), SICK, seen(0, 50)):
        found = routed((CHEAP,), cheap=record)
        assert (found.channel_id, found.alternatives, found.probe, found.why) == ("cheap", (), False, RouteReason.ONLY)


def test_a_payment_without_a_channel_raises() -> None:
    with pytest.raises(ValueError, match="without a channel"):
        routed(())


def test_a_fixed_cost_makes_a_channel_dear_for_small_amounts_only() -> None:
    fixed = (road("flat", 5, fixed_cost=cny(30)), road("share", 50))
    assert routed(fixed, passage=structs.replace(PASSAGE, amount=cny(500))).channel_id == "share"
    assert routed(fixed, passage=structs.replace(PASSAGE, amount=cny(500_000))).channel_id == "flat"


def test_by_success_the_likeliest_carries_and_balanced_weighs_both() -> None:
    assert routed(rule=RoutingRule("s", by=RankBy.SUCCESS)).channel_id == "safe"
    assert routed(rule=RoutingRule("b", by=RankBy.BALANCED)).channel_id == "safe"  # 9,840 to 9,680 of the cheap one
    assert routed(rule=RoutingRule("b", by=RankBy.BALANCED, cost_weight=6)).channel_id == "cheap"  # 9,580 to 9,540
    assert routed(rule=RoutingRule("b", by=RankBy.BALANCED, cost_weight=6)).why is RouteReason.BALANCED


def test_preferred_channels_come_first_in_their_order_and_avoided_ones_last() -> None:
    assert order_of(routed(rule=RoutingRule("p", prefer=("safe", "DEAR")))) == ["safe", "dear", "cheap"]
    assert routed(rule=RoutingRule("p", prefer=("safe",))).why is RouteReason.PREFERRED
    assert order_of(routed(rule=RoutingRule("a", avoid=("CHEAP",)))) == ["dear", "safe", "cheap"]
    assert routed((CHEAP,), rule=RoutingRule("a", avoid=("cheap",))).channel_id == "cheap"


def test_a_preferred_channel_keeps_its_traffic_while_not_sick() -> None:
    rule = RoutingRule("p", prefer=("dear",))
    assert spread(200, rule=rule, dear=seen(300, 100)) == {"dear": 200}
    assert spread(rule=rule, dear=SICK)["dear"] < 40
    assert order_of(routed(rule=rule, dear=SICK)) == ["cheap", "safe", "dear"]


def test_a_difference_within_the_tolerance_costs_no_traffic() -> None:
    assert spread(200, channels=(CHEAP, DEAR), cheap=seen(382, 18), dear=seen(388, 12)) == {"cheap": 200}


def test_a_worse_channel_loses_its_traffic_gradually() -> None:
    shares = [
        spread(channels=(CHEAP, DEAR), cheap=seen(400 - bad, bad), dear=seen(388, 12))["cheap"]
        for bad in range(20, 40, 2)
    ]
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (1_000, 0)
    assert len(set(shares)) > 3


def test_a_clearly_worse_channel_is_a_later_alternative() -> None:
    found = routed(cheap=seen(300, 100))
    assert (order_of(found), found.why) == (["dear", "safe", "cheap"], RouteReason.SHARED)


def test_a_sick_channel_gets_probes_only_and_is_the_last_alternative() -> None:
    routes = [routed(seed=f"pay_{number}", cheap=SICK) for number in range(2_000)]
    probes = [found for found in routes if found.probe]
    assert 20 <= len(probes) <= 60
    assert all(
        (found.channel_id, found.alternatives, found.why) == ("cheap", ("dear", "safe"), RouteReason.PROBE)
        for found in probes
    )
    assert {tuple(order_of(found)) for found in routes if not found.probe} == {("dear", "safe", "cheap")}


def test_a_retried_payment_is_no_probe_and_goes_to_a_healthy_channel() -> None:
    for number in range(500):
        found = routed(seed=f"pay_{number}", tried=frozenset({"dear"}), cheap=SICK)
        assert (order_of(found), found.probe) == (["safe", "dear", "cheap"], False)


def test_if_all_are_sick_the_best_carries() -> None:
    found = routed((CHEAP, DEAR), cheap=SICK, dear=structs.replace(SICK, good=10 * PAYMENT))
    assert (found.channel_id, found.why, found.probe) == ("dear", RouteReason.ALL_SICK, False)


def test_if_all_are_sick_none_is_probed() -> None:
    better = structs.replace(SICK, good=10 * PAYMENT)
    assert spread(300, channels=(CHEAP, DEAR), cheap=SICK, dear=better) == {"dear": 300}


def test_a_channel_that_just_recovered_gets_a_small_share() -> None:
    well = seen(3, 0, sick_count=1, state_since_s=NOW_S)
    assert 25 <= spread(channels=(CHEAP, DEAR), cheap=well)["cheap"] <= 75
    assert spread(channels=(CHEAP, DEAR), cheap=structs.replace(well, state_since_s=NOW_S - 90))["cheap"] > 350


def test_the_matching_rule_is_named() -> None:
    rules = Routing(rule=(RoutingRule("dollars", RuleCondition(currency="USD"), prefer=("dear",)), RoutingRule("rest")))
    dollars = structs.replace(PASSAGE, amount=Money("USD", 100))
    assert [route(rules, passage, ALL, {}, 0, "pay_1").rule for passage in (dollars, PASSAGE)] == ["dollars", "rest"]


def test_draws_are_uniform_and_reproducible() -> None:
    assert draw("pay_1", "share", 10_000) == 2_188
    fell = Counter(draw(f"pay_{number}", "share", 4) for number in range(4_000))
    assert all(900 < count < 1_100 for count in fell.values())


RECORDS = st.builds(
    ChannelRecord,
    good=st.integers(0, 400).map(PAYMENT.__mul__),
    bad=st.integers(0, 400).map(PAYMENT.__mul__),
    decayed_at_s=st.integers(NOW_S - 2_000, NOW_S),
    sick=st.booleans(),
    sick_count=st.integers(1, 6),
    state_since_s=st.integers(NOW_S - 3_000, NOW_S),
    skipped=st.integers(0, 20),
    probed_at_s=st.integers(NOW_S - 200, NOW_S),
)
RULES = st.builds(
    RoutingRule,
    name=st.just("any"),
    by=st.sampled_from(RankBy),
    within_bps=st.sampled_from([10, 50, 200, 1_000]),
    prefer=st.sampled_from([(), ("dear",), ("safe", "cheap")]),
    avoid=st.sampled_from([(), ("CHEAP",)]),
)
SOME = st.lists(st.sampled_from(ALL), min_size=1, max_size=3, unique_by=lambda one: one.channel_id).map(tuple)
LEARNED = st.dictionaries(st.sampled_from(["cheap", "dear", "safe"]), RECORDS)
TRIED = st.sampled_from([frozenset(), frozenset({"cheap"}), frozenset({"dear", "safe"})])


@given(SOME, RULES, LEARNED, TRIED, st.integers(0, 10**6))
def test_a_route_names_every_channel_once_and_does_not_depend_on_their_order(
    channels: tuple[Channel, ...],
    rule: RoutingRule,
    learned: dict[str, ChannelRecord],
    tried: frozenset[str],
    number: int,
) -> None:
    found = routed(channels, rule, seed=f"pay_{number}", tried=tried, records=learned)
    assert sorted(order_of(found)) == sorted(one.channel_id for one in channels)
    assert sum(one.share_bps for one in found.rated) == 10_000
    assert {one.channel_id: one.share_bps for one in found.rated}[found.channel_id] > 0 or found.probe
    for shuffled in permutations(channels):
        assert routed(shuffled, rule, seed=f"pay_{number}", tried=tried, records=learned) == found


@given(SOME, RULES, LEARNED, TRIED, st.integers(0, 10**6))
def test_only_a_probe_goes_to_a_sick_channel_while_another_is_healthy(
    channels: tuple[Channel, ...],
    rule: RoutingRule,
    learned: dict[str, ChannelRecord],
    tried: frozenset[str],
    number: int,
) -> None:
    found = routed(channels, rule, seed=f"pay_{number}", tried=tried, records=learned)
    sick = {one.channel_id for one in found.rated if one.sick}
    all_sick = len(sick) == len(channels)
    assert (found.channel_id in sick) == (found.probe or all_sick)
    assert not (found.probe and (tried or all_sick))
