"""Routing: which channel carries a payment, and the order of the alternatives.

Pure and deterministic: random draws come from the payment's own seed, so the same payment and the
same figures give the same route without coordination between workers. `channel_health` holds what
is learned about a channel, `channel_candidates` finds the channels to choose from.

Why traffic does not oscillate: a choice that flips when a figure crosses a threshold flips back.
The channel under load gets worse, the idle one is forgotten and looks good again. Here shares
follow the figures on a slope. The first channel in the rule's static order has all traffic while no
other is better by more than a tolerance and the statistical noise; beyond that its share falls
gradually. A channel that cannot stand the whole load keeps the share that it can stand, and a worse
one keeps the trickle that shows a change. Only sickness acts at once, and its entry and exit
thresholds are far apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from enum import StrEnum
from hashlib import blake2b

from msgspec import Struct

from cashier.domain.channel_record import ChannelRecord, probe_due, share_ceiling_bps, success_rate
from cashier.domain.facts import Channel
from cashier.domain.money import BPS
from cashier.domain.quote import cost_bps
from cashier.domain.routing_rules import RankBy, RoutedPayment, Routing, RoutingRule

_NO_RECORD = ChannelRecord()


class RouteReason(StrEnum):
    """Why this channel. `SHARED`: the rule's first channel has only a part of the traffic now."""

    ONLY = "ONLY"
    PREFERRED = "PREFERRED"
    CHEAPEST = "CHEAPEST"
    LIKELIEST = "LIKELIEST"
    BALANCED = "BALANCED"
    SHARED = "SHARED"
    PROBE = "PROBE"
    ALL_SICK = "ALL_SICK"


class RatedChannel(Struct, frozen=True):
    """One candidate with its figures.

    `share_bps`: its share of such payments now, without probes.
    """

    channel_id: str
    success_bps: int
    cost_bps: int
    share_bps: int
    sick: bool


class RoutingDecision(Struct, frozen=True):
    """`alternatives`: channel ids, best first, all at the same price for the payer.

    `rated`: for operators, in the rule's order.
    """

    channel_id: str
    rule: str
    alternatives: tuple[str, ...]
    probe: bool
    why: RouteReason
    rated: tuple[RatedChannel, ...]


class _Candidate(Struct, frozen=True):
    """One channel under a rule.

    `group`: sick, tried, avoided; the lowest group carries. `static_order`: the rule's order, free
    of learned figures. `score` is live, `noise` its standard deviation; both in basis points times
    the weight of success.
    """

    channel: Channel
    group: tuple[bool, bool, bool]
    static_order: tuple[int, int, int, str]
    preferred: bool
    success_bps: int
    cost_bps: int
    score: int
    noise: int
    share_ceiling_bps: int


def route(
    routing: Routing,
    payment: RoutedPayment,
    channels: Sequence[Channel],
    records: Mapping[str, ChannelRecord],
    now_s: int,
    seed: str,
    tried: Set[str] = frozenset(),
) -> RoutingDecision:
    """Choose one of `channels`. ValueError if there is none.

    `seed`: the payment's id. `tried`: channels on which this payment has failed; they come after
    all healthy ones, and such a payment is no probe. `now_s`: of the clock of `records`.
    """
    if not channels:
        raise ValueError("cannot route a payment without a channel: its method should not have been available")
    rule = routing.rule_for(payment)
    candidates = sorted(
        (_candidate(routing, rule, payment, channel, records, now_s, tried) for channel in channels),
        key=_static_order,
    )
    group = min(candidate.group for candidate in candidates)
    leading = [candidate for candidate in candidates if candidate.group == group]
    best_score = max(candidate.score for candidate in leading)
    shares = _shares(leading, best_score, rule)
    ordered = sorted(candidates, key=lambda candidate: (candidate.group, *_live_order(candidate, best_score, rule)))
    probe = None if tried else _probe(routing, ordered, records, now_s, seed)
    chosen = probe or _drawn(leading, shares, seed)
    return RoutingDecision(
        channel_id=chosen.channel.channel_id,
        rule=rule.name,
        alternatives=tuple(candidate.channel.channel_id for candidate in ordered if candidate is not chosen),
        probe=probe is not None,
        why=RouteReason.PROBE if probe else _reason(chosen, candidates, leading, rule),
        rated=tuple(_rated(candidate, shares) for candidate in candidates),
    )


def draw(seed: str, purpose: str, sides: int) -> int:
    """0 to `sides` - 1, the same for the same seed and purpose on every machine."""
    return int.from_bytes(blake2b(f"{purpose}\n{seed}".encode(), digest_size=8).digest()) % sides


def _candidate(
    routing: Routing,
    rule: RoutingRule,
    payment: RoutedPayment,
    channel: Channel,
    records: Mapping[str, ChannelRecord],
    now_s: int,
    tried: Set[str],
) -> _Candidate:
    record, names = records.get(channel.channel_id, _NO_RECORD), (channel.channel_id, channel.provider)
    live, cost = (
        success_rate(record, channel.success_bps, now_s, routing.learning),
        cost_bps(channel, payment.amount.value),
    )
    success_weight, cost_weight = rule.weights if rule.by is RankBy.BALANCED else (1, 0)
    stated_score = success_weight * channel.success_bps - cost_weight * cost
    preferences = [index for index, name in enumerate(rule.prefer) if name in names]
    order = (cost, -channel.success_bps) if rule.by is RankBy.COST else (-stated_score, cost)
    return _Candidate(
        channel=channel,
        group=(record.sick, channel.channel_id in tried, any(name in rule.avoid for name in names)),
        static_order=(preferences[0] if preferences else len(rule.prefer), *order, channel.channel_id),
        preferred=bool(preferences),
        success_bps=live.bps,
        cost_bps=cost,
        score=success_weight * live.bps - cost_weight * cost,
        noise=success_weight * live.noise_bps,
        share_ceiling_bps=share_ceiling_bps(record, now_s, routing.sick),
    )


def _static_order(candidate: _Candidate) -> tuple[int, int, int, str]:
    return candidate.static_order


def _deficit(candidate: _Candidate, best_score: int, rule: RoutingRule) -> int:
    """How far it is behind the best, less the noise and the rule's tolerance; at least 0."""
    return max(0, best_score - candidate.score - candidate.noise - rule.within_bps * _scale(rule))


def _scale(rule: RoutingRule) -> int:
    return rule.weights[0] if rule.by is RankBy.BALANCED else 1


def _shares(leading: list[_Candidate], best_score: int, rule: RoutingRule) -> dict[str, int]:
    """In basis points, with the sum `BPS`.

    In the rule's order each takes its part of what is left.
    """
    shares, left, slope = {}, BPS, rule.within_bps * _scale(rule)
    for candidate in leading:
        fitness_bps = BPS if candidate.preferred else max(0, BPS - _deficit(candidate, best_score, rule) * BPS // slope)
        share = left * (fitness_bps * candidate.share_ceiling_bps // BPS) // BPS
        shares[candidate.channel.channel_id] = share
        left -= share
    # The rest goes to a channel that is not in recovery; of those, to the best.
    steadiest = max(leading, key=lambda candidate: (candidate.share_ceiling_bps, candidate.score))
    shares[steadiest.channel.channel_id] += left
    return shares


def _live_order(
    candidate: _Candidate, best_score: int, rule: RoutingRule
) -> tuple[bool, int, tuple[int, int, int, str]]:
    """The rule's order, except that clearly worse channels come later."""
    deficit = 0 if candidate.preferred else _deficit(candidate, best_score, rule)
    return (not candidate.preferred, deficit, candidate.static_order)


def _drawn(leading: list[_Candidate], shares: dict[str, int], seed: str) -> _Candidate:
    rest = draw(seed, "share", BPS)
    for candidate in leading:
        rest -= shares[candidate.channel.channel_id]
        if rest < 0:
            return candidate
    raise AssertionError("the shares do not add up to BPS")


def _probe(
    routing: Routing, ordered: list[_Candidate], records: Mapping[str, ChannelRecord], now_s: int, seed: str
) -> _Candidate | None:
    """The sick channel that this payment probes.

    None if all are sick: no healthy channel could then take over.
    """
    if ordered[0].group[0]:
        return None
    for candidate in ordered:
        channel_id, sick = candidate.channel.channel_id, candidate.group[0]
        if sick and probe_due(records[channel_id], draw(seed, f"probe {channel_id}", 1 << 32), now_s, routing.sick):
            return candidate
    return None


def _reason(
    chosen: _Candidate, candidates: list[_Candidate], leading: list[_Candidate], rule: RoutingRule
) -> RouteReason:
    if len(candidates) == 1:
        return RouteReason.ONLY
    if chosen.group[0]:
        return RouteReason.ALL_SICK
    if chosen is not leading[0]:
        return RouteReason.SHARED
    if chosen.preferred:
        return RouteReason.PREFERRED
    return {
        RankBy.COST: RouteReason.CHEAPEST,
        RankBy.SUCCESS: RouteReason.LIKELIEST,
        RankBy.BALANCED: RouteReason.BALANCED,
    }[rule.by]


def _rated(candidate: _Candidate, shares: dict[str, int]) -> RatedChannel:
    channel_id = candidate.channel.channel_id
    share_bps = shares.get(channel_id, 0)
    return RatedChannel(
        channel_id=channel_id,
        success_bps=candidate.success_bps,
        cost_bps=candidate.cost_bps,
        share_bps=share_bps,
        sick=candidate.group[0],
    )
