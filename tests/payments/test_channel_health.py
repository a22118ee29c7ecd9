"""What one worker keeps of its channels: each payment counts once, probes are counted, and nothing grows without a bound."""

from __future__ import annotations

import pytest

from cashier.domain.failure_attribution import FailureAttribution
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind
from cashier.domain.routing_rules import RoutedPayment, Routing, RoutingRule
from cashier.payments import channel_health
from cashier.payments.channel_health import ChannelHealth
from tests.domain.facts import channel, cny

ROUTING = Routing(
    rule=(RoutingRule("cheapest_healthy"),),
    blame=FailureAttribution(channel=frozenset({"CHANNEL_ERROR"}), others=frozenset({"DECLINED"})),
)
PASSAGE = RoutedPayment(Kind.CARD, cny(10_000), "CN", Terminal.APP, Product.STANDARD_CASHIER, "m_1")
CHANNELS = (channel(Kind.CARD, "A", "a", cost_bps=10), channel(Kind.CARD, "B", "b"))


def with_a_sick() -> ChannelHealth:
    found = ChannelHealth(ROUTING)
    for number in range(6):
        found.record_failure(f"pay_{number}", "a", "CHANNEL_ERROR", 100, 101)
    assert found.records["a"].sick
    return found


def test_a_payment_counts_once_however_often_it_is_heard_of() -> None:
    found = ChannelHealth(ROUTING)
    for _ in range(20):
        found.record_failure("pay_1", "a", "CHANNEL_ERROR", 100, 101)
    assert (found.records["a"].failure_streak_halves, found.records["a"].sick) == (2, False)
    found.record_success("pay_2", "a", 100, 101)
    assert found.records["a"].failure_streak_halves == 0


def test_a_payer_without_money_says_nothing_of_the_channel() -> None:
    found = ChannelHealth(ROUTING)
    for number in range(50):
        found.record_failure(f"pay_{number}", "a", "DECLINED", 100, 101)
    assert found.records == {}


def test_with_little_traffic_a_sick_channel_is_probed_by_every_eleventh_payment_at_most() -> None:
    found = with_a_sick()
    routed = [found.route(PASSAGE, CHANNELS, f"pay_{number}", 200 + 100 * number) for number in range(330)]
    probes = [number for number, one in enumerate(routed) if one.probe]
    assert 20 <= len(probes) <= 40
    assert all(one.channel_id == "b" for one in routed if not one.probe)


def test_with_much_traffic_a_sick_channel_is_probed_once_a_second_at_most() -> None:
    found = with_a_sick()
    probes = sum(found.route(PASSAGE, CHANNELS, f"pay_{number}", 200 + number / 500).probe for number in range(2_500))
    assert 4 <= probes <= 6


def test_other_rules_hold_at_once_and_nothing_learned_is_lost() -> None:
    found = with_a_sick()
    found.reconfigure(Routing(rule=(RoutingRule("contract", prefer=("b",)),)))
    assert found.route(PASSAGE, CHANNELS, "pay_1", 102).rule == "contract"
    assert repr(found) == "<ChannelHealth channels=1 sick=a>"


def test_what_is_kept_is_bounded_and_what_was_heard_of_longest_ago_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_health, "MAX_CHANNELS", 2)
    monkeypatch.setattr(channel_health, "MAX_COUNTED", 3)
    found = ChannelHealth(ROUTING)
    for number, channel_id in enumerate("abac"):
        found.record_success(f"pay_{number}", channel_id, 0, 0)
    assert list(found.records) == ["a", "c"]
    assert len(found._counted) == 3
