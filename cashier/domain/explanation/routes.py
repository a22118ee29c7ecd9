"""The route that a payment by a method would take now: rules in order, channels, figures."""

from __future__ import annotations

from cashier.domain.channel_candidates import ChosenMethod, candidates
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.explanation.evidence import Judgement
from cashier.domain.explanation.schema import RouteExplanation, RouteRule
from cashier.domain.money import BPS
from cashier.domain.routing import RatedChannel, RouteReason, route
from cashier.domain.routing_rules import RoutedPayment, Routing

_WHY = {
    RouteReason.ONLY: "it is the only channel at this price",
    RouteReason.PREFERRED: "the rule prefers it",
    RouteReason.CHEAPEST: "it costs us least",
    RouteReason.LIKELIEST: "it loses the fewest payments",
    RouteReason.BALANCED: "it has the best balance of cost and success",
    RouteReason.SHARED: "the rule's first channel has only a part of the traffic now",
    RouteReason.PROBE: "the channel is sick, and this payment would test it",
    RouteReason.ALL_SICK: "all channels are sick, and it comes first",
}


def route_of(
    case: ConsultationCase, routing: Routing, judgement: Judgement, method_id: str, option_id: str | None
) -> RouteExplanation | None:
    """None if nothing would be routed: it is refused, needs no channel, or an option is missing."""
    found = candidates(case, ChosenMethod(method_id, option_id))
    payment = found.routed_payment
    if payment is None:
        return None
    # Another payment of the same order may draw another channel: each has its own seed.
    seed = f"why {case.request.order_id}"
    decision = route(routing, payment, found.channels, judgement.records, judgement.now_s, seed)
    return RouteExplanation(
        rules=tuple(_rules(routing, payment)),
        channel_id=decision.channel_id,
        why=decision.why,
        alternatives=decision.alternatives,
        channels=decision.rated,
        sentence=_sentence(decision.channel_id, decision.rule, decision.why, decision.rated),
    )


def _rules(routing: Routing, payment: RoutedPayment) -> list[RouteRule]:
    """Up to the one that applies."""
    applies, rules = routing.rule_for(payment), list[RouteRule]()
    for rule in routing.rule:
        rules.append(RouteRule(rule.name, rule is applies))
        if rule is applies:
            break
    return rules


def _sentence(channel_id: str, rule: str, why: RouteReason, rated: tuple[RatedChannel, ...]) -> str:
    figures = ", ".join(
        f"{each.channel_id} succeeds at {_percent(each.success_bps)}, costs {_percent(each.cost_bps)}"
        f" and has {_percent(each.share_bps)} of the traffic{' (sick)' if each.sick else ''}"
        for each in rated
    )
    return f"By rule {rule} to {channel_id}, because {_WHY[why]}: {figures}."


def _percent(bps: int) -> str:
    whole, part = divmod(bps * 100 // (BPS // 100), 100)
    return f"{whole}.{part:02d} %"
