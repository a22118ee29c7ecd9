"""Channel health of a worker: payments count once, probes are counted, memory is bounded."""

from __future__ import annotations

import pytest

from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind
from cashier.domain.routing_rules import FailureAttribution, RoutedPayment, Routing, RoutingRule
from cashier.payments import channel_health
from cashier.payments.channel_health import ChannelHealth
from tests.domain.builders import channel, cny

ROUTING = Routing(
    rule=(RoutingRule("cheapest_healthy"),),
    blame=FailureAttribution(channel=frozenset({"CHANNEL_ERROR"}), others=frozenset({"DECLINED"})),
)
PAYMENT = RoutedPayment(Kind.CARD, cny(10_000), "CN", Terminal.APP, Product.STANDARD_CASHIER, "m_1")
CHANNELS = (channel(Kind.CARD, "A", "a", cost_bps=10), channel(Kind.CARD, "B", "b"))


def with_a_sick_channel() -> ChannelHealth:
    health = ChannelHealth()
    for number in range(6):
        health.record_failure(ROUTING, f"pay_{number}", "a", "CHANNEL_ERROR", 100, 101)
    assert health.records["a"].sick
    return health


def test_a_payment_counts_once_although_it_is_reported_often() -> None:
    health = ChannelHealth()
    for _ in range(20):
        health.record_failure(ROUTING, "pay_1", "a", "CHANNEL_ERROR", 100, 101)
    assert (health.records["a"].failure_streak_halves, health.records["a"].sick) == (2, False)
    health.record_success(ROUTING, "pay_2", "a", 100, 101)
    assert health.records["a"].failure_streak_halves == 0


def test_a_declined_payer_does_not_count_against_the_channel() -> None:
    health = ChannelHealth()
    for number in range(50):
        health.record_failure(ROUTING, f"pay_{number}", "a", "DECLINED", 100, 101)
    assert health.records == {}


def test_with_little_traffic_at_most_every_eleventh_payment_probes_a_sick_channel() -> None:
    health = with_a_sick_channel()
    routed = [health.route(ROUTING, PAYMENT, CHANNELS, f"pay_{number}", 200 + 100 * number) for number in range(330)]
    probes = [number for number, decision in enumerate(routed) if decision.probe]
    assert 20 <= len(probes) <= 40
    assert all(decision.channel_id == "b" for decision in routed if not decision.probe)


def test_with_much_traffic_a_sick_channel_is_probed_at_most_once_a_second() -> None:
    health = with_a_sick_channel()
    probes = sum(
        health.route(ROUTING, PAYMENT, CHANNELS, f"pay_{number}", 200 + number / 500).probe for number in range(2_500)
    )
    assert 4 <= probes <= 6


def test_new_rules_apply_at_once_and_keep_what_was_learned() -> None:
    health = with_a_sick_channel()
    routing = Routing(rule=(RoutingRule("contract", prefer=("b",)),))
    assert health.route(routing, PAYMENT, CHANNELS, "pay_1", 102).rule == "contract"
    assert repr(health) == "<ChannelHealth channels=1 sick=a>"


def test_memory_is_bounded_and_drops_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_health, "MAX_CHANNELS", 2)
    monkeypatch.setattr(channel_health, "MAX_COUNTED", 3)
    health = ChannelHealth()
    for number, channel_id in enumerate("abac"):
        health.record_success(ROUTING, f"pay_{number}", channel_id, 0, 0)
    assert list(health.records) == ["a", "c"]
    assert len(health._counted) == 3
