"""The route of a payment: the rule's first channel unless its health is worse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.channel_record import ChannelRecord
from cashier.domain.facts import Channel
from cashier.domain.money import Money
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind
from cashier.domain.routing import RouteReason, RoutingDecision, draw, route
from cashier.domain.routing_rules import RankBy, RoutedPayment, Routing, RoutingRule, RuleCondition
from tests.domain.builders import channel, cny

NOW_S = 10_000
ROUTED_PAYMENT = RoutedPayment(Kind.CARD, cny(10_000), "CN", Terminal.APP, Product.STANDARD_CASHIER, "m_1")
PAYMENT_WEIGHT = 1_000_000


def card_channel(channel_id: str, cost_bps: int = 30, success_bps: int = 9_700, **changes: Any) -> Channel:
    return structs.replace(
        channel(Kind.CARD, channel_id.upper(), channel_id), cost_bps=cost_bps, success_bps=success_bps, **changes
    )


def record_with(good: int, bad: int, **changes: Any) -> ChannelRecord:
    return structs.replace(ChannelRecord(good * PAYMENT_WEIGHT, bad * PAYMENT_WEIGHT, NOW_S), **changes)


CHEAP, DEAR, SAFE = card_channel("cheap", 20), card_channel("dear", 40), card_channel("safe", 60, 9_900)
ALL = (CHEAP, DEAR, SAFE)
SICK = record_with(0, 30, sick=True, sick_count=1, state_since_s=NOW_S - 100, probed_at_s=NOW_S - 10)


def decide(
    channels: tuple[Channel, ...] = ALL,
    rule: RoutingRule | None = None,
    *,
    seed: str = "pay_1",
    payment: RoutedPayment = ROUTED_PAYMENT,
    tried: Set[str] = frozenset(),
    records: Mapping[str, ChannelRecord] | None = None,
    **more: ChannelRecord,
) -> RoutingDecision:
    return route(
        Routing(rule=(rule or RoutingRule("cheapest_healthy"),)), payment, channels, records or more, NOW_S, seed, tried
    )


def count_by_channel(count: int = 1_000, **more: Any) -> Counter[str]:
    """The number of payments per channel."""
    return Counter(decide(seed=f"pay_{number}", **more).channel_id for number in range(count))


def order_of(decision: RoutingDecision) -> list[str]:
    return [decision.channel_id, *decision.alternatives]


def test_the_cheapest_channel_carries_and_the_others_are_alternatives_in_order() -> None:
    decision = decide()
    assert order_of(decision) == ["cheap", "dear", "safe"]
    assert (decision.rule, decision.why, decision.probe) == ("cheapest_healthy", RouteReason.CHEAPEST, False)
    assert [(candidate.channel_id, candidate.share_bps) for candidate in decision.rated] == [
        ("cheap", 10_000),
        ("dear", 0),
        ("safe", 0),
    ]


def test_a_single_channel_carries_in_any_health() -> None:
    for record in (ChannelRecord(), SICK, record_with(0, 50)):
        decision = decide((CHEAP,), cheap=record)
        assert (decision.channel_id, decision.alternatives, decision.probe, decision.why) == (
            "cheap",
            (),
            False,
            RouteReason.ONLY,
        )


def test_a_payment_without_a_channel_raises() -> None:
    with pytest.raises(ValueError, match="without a channel"):
        decide(())


def test_a_fixed_cost_makes_a_channel_dear_for_small_amounts_only() -> None:
    fixed = (card_channel("flat", 5, fixed_cost=cny(30)), card_channel("share", 50))
    assert decide(fixed, payment=structs.replace(ROUTED_PAYMENT, amount=cny(500))).channel_id == "share"
    assert decide(fixed, payment=structs.replace(ROUTED_PAYMENT, amount=cny(500_000))).channel_id == "flat"


def test_by_success_the_likeliest_carries_and_balanced_weighs_both() -> None:
    assert decide(rule=RoutingRule("s", by=RankBy.SUCCESS)).channel_id == "safe"
    # 9,840 to 9,680 of the cheap one.
    assert decide(rule=RoutingRule("b", by=RankBy.BALANCED)).channel_id == "safe"
    # 9,580 to 9,540.
    assert decide(rule=RoutingRule("b", by=RankBy.BALANCED, cost_weight=6)).channel_id == "cheap"
    assert decide(rule=RoutingRule("b", by=RankBy.BALANCED, cost_weight=6)).why is RouteReason.BALANCED


def test_preferred_channels_come_first_in_their_order_and_avoided_ones_last() -> None:
    assert order_of(decide(rule=RoutingRule("p", prefer=("safe", "DEAR")))) == ["safe", "dear", "cheap"]
    assert decide(rule=RoutingRule("p", prefer=("safe",))).why is RouteReason.PREFERRED
    assert order_of(decide(rule=RoutingRule("a", avoid=("CHEAP",)))) == ["dear", "safe", "cheap"]
    assert decide((CHEAP,), rule=RoutingRule("a", avoid=("cheap",))).channel_id == "cheap"


def test_a_preferred_channel_keeps_its_traffic_while_not_sick() -> None:
    rule = RoutingRule("p", prefer=("dear",))
    assert count_by_channel(200, rule=rule, dear=record_with(300, 100)) == {"dear": 200}
    assert count_by_channel(rule=rule, dear=SICK)["dear"] < 40
    assert order_of(decide(rule=rule, dear=SICK)) == ["cheap", "safe", "dear"]


def test_a_difference_within_the_tolerance_costs_no_traffic() -> None:
    assert count_by_channel(200, channels=(CHEAP, DEAR), cheap=record_with(382, 18), dear=record_with(388, 12)) == {
        "cheap": 200
    }


def test_a_worse_channel_loses_its_traffic_gradually() -> None:
    shares = [
        count_by_channel(channels=(CHEAP, DEAR), cheap=record_with(400 - bad, bad), dear=record_with(388, 12))["cheap"]
        for bad in range(20, 40, 2)
    ]
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (1_000, 0)
    assert len(set(shares)) > 3


def test_a_clearly_worse_channel_is_a_later_alternative() -> None:
    decision = decide(cheap=record_with(300, 100))
    assert (order_of(decision), decision.why) == (["dear", "safe", "cheap"], RouteReason.SHARED)


def test_a_sick_channel_gets_probes_only_and_is_the_last_alternative() -> None:
    routes = [decide(seed=f"pay_{number}", cheap=SICK) for number in range(2_000)]
    probes = [decision for decision in routes if decision.probe]
    assert 20 <= len(probes) <= 60
    assert all(
        (decision.channel_id, decision.alternatives, decision.why) == ("cheap", ("dear", "safe"), RouteReason.PROBE)
        for decision in probes
    )
    assert {tuple(order_of(decision)) for decision in routes if not decision.probe} == {("dear", "safe", "cheap")}


def test_a_retried_payment_is_no_probe_and_goes_to_a_healthy_channel() -> None:
    for number in range(500):
        decision = decide(seed=f"pay_{number}", tried=frozenset({"dear"}), cheap=SICK)
        assert (order_of(decision), decision.probe) == (["safe", "dear", "cheap"], False)


def test_if_all_are_sick_the_best_carries() -> None:
    decision = decide((CHEAP, DEAR), cheap=SICK, dear=structs.replace(SICK, good=10 * PAYMENT_WEIGHT))
    assert (decision.channel_id, decision.why, decision.probe) == ("dear", RouteReason.ALL_SICK, False)


def test_if_all_are_sick_none_is_probed() -> None:
    better = structs.replace(SICK, good=10 * PAYMENT_WEIGHT)
    assert count_by_channel(300, channels=(CHEAP, DEAR), cheap=SICK, dear=better) == {"dear": 300}


def test_a_channel_that_just_recovered_gets_a_small_share() -> None:
    well = record_with(3, 0, sick_count=1, state_since_s=NOW_S)
    assert 25 <= count_by_channel(channels=(CHEAP, DEAR), cheap=well)["cheap"] <= 75
    assert (
        count_by_channel(channels=(CHEAP, DEAR), cheap=structs.replace(well, state_since_s=NOW_S - 90))["cheap"] > 350
    )


def test_the_matching_rule_is_named() -> None:
    rules = Routing(rule=(RoutingRule("dollars", RuleCondition(currency="USD"), prefer=("dear",)), RoutingRule("rest")))
    dollars = structs.replace(ROUTED_PAYMENT, amount=Money("USD", 100))
    assert [route(rules, payment, ALL, {}, 0, "pay_1").rule for payment in (dollars, ROUTED_PAYMENT)] == [
        "dollars",
        "rest",
    ]


def test_draws_are_uniform_and_reproducible() -> None:
    assert draw("pay_1", "share", 10_000) == 2_188
    fell = Counter(draw(f"pay_{number}", "share", 4) for number in range(4_000))
    assert all(900 < count < 1_100 for count in fell.values())


RECORDS = st.builds(
    ChannelRecord,
    good=st.integers(0, 400).map(PAYMENT_WEIGHT.__mul__),
    bad=st.integers(0, 400).map(PAYMENT_WEIGHT.__mul__),
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
SOME = st.lists(st.sampled_from(ALL), min_size=1, max_size=3, unique_by=lambda candidate: candidate.channel_id).map(
    tuple
)
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
    decision = decide(channels, rule, seed=f"pay_{number}", tried=tried, records=learned)
    assert sorted(order_of(decision)) == sorted(candidate.channel_id for candidate in channels)
    assert sum(candidate.share_bps for candidate in decision.rated) == 10_000
    assert {candidate.channel_id: candidate.share_bps for candidate in decision.rated}[
        decision.channel_id
    ] > 0 or decision.probe
    for shuffled in permutations(channels):
        assert decide(shuffled, rule, seed=f"pay_{number}", tried=tried, records=learned) == decision


@given(SOME, RULES, LEARNED, TRIED, st.integers(0, 10**6))
def test_only_a_probe_goes_to_a_sick_channel_while_another_is_healthy(
    channels: tuple[Channel, ...],
    rule: RoutingRule,
    learned: dict[str, ChannelRecord],
    tried: frozenset[str],
    number: int,
) -> None:
    decision = decide(channels, rule, seed=f"pay_{number}", tried=tried, records=learned)
    sick = {candidate.channel_id for candidate in decision.rated if candidate.sick}
    all_sick = len(sick) == len(channels)
    assert (decision.channel_id in sick) == (decision.probe or all_sick)
    assert not (decision.probe and (tried or all_sick))
