"""Routing: which of several channels carries a payment, and in which order the others stand by.

Pure and deterministic: the dice are drawn from the payment's own seed, so that the same payment and the same figures give the same route,
and no worker has to know what another one did. What is learned of a channel is in `track_record`; which channels come into question at
all, in `candidates`.

Why traffic does not swing. A choice that jumps from one channel to another as a figure crosses a mark will cross it back: the channel that
got the load gets worse, the one that lost it is forgotten and looks good again. Here a share follows from the figures on a slope that has
no edge. The first channel in the rule's order, which does not depend on anything learned, has it all while no other is better by more than
a tolerance and what chance explains; then less and less of it. So a channel that cannot stand the whole load keeps the share at which it
can, and one that is worse keeps the trickle that shows whether it still is. Only sickness acts at once, and there the ways in and out are
far apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from enum import StrEnum
from hashlib import blake2b

from msgspec import Struct

from cashier.domain.channel_health import ChannelRecord, ceiling_bps, probe_due, success_rate
from cashier.domain.facts import Channel
from cashier.domain.money import BPS
from cashier.domain.quote import cost_bps
from cashier.domain.routing_rules import RankBy, RoutedPayment, Routing, RoutingRule

_UNHEARD = ChannelRecord()


class RouteReason(StrEnum):
    """Why this channel. `SHARED`: it is not the rule's first, but that one has only a part of the traffic now."""

    ONLY = "ONLY"
    PREFERRED = "PREFERRED"
    CHEAPEST = "CHEAPEST"
    LIKELIEST = "LIKELIEST"
    BALANCED = "BALANCED"
    SHARED = "SHARED"
    PROBE = "PROBE"
    ALL_SICK = "ALL_SICK"


class RatedChannel(Struct, frozen=True):
    """One candidate as it was seen. `share_bps`: how much of such payments it gets now, probes apart."""

    channel_id: str
    success_bps: int
    cost_bps: int
    share_bps: int
    sick: bool


class RoutingDecision(Struct, frozen=True):
    """`alternatives` by id, the best first; none of them costs the payer anything else. `rated`: for operators, in the rule's order."""

    channel_id: str
    rule: str
    alternatives: tuple[str, ...]
    probe: bool
    why: RouteReason
    rated: tuple[RatedChannel, ...]


class _Runner(Struct, frozen=True):
    """One candidate under a rule. `group`: sick, tried, avoided; the lowest group carries. `place`: the rule's order, which nothing that
    is learned changes. `score` is live, `noise` what chance may make of it; both in basis points, times the weight of success."""

    channel: Channel
    group: tuple[bool, bool, bool]
    place: tuple[int, int, int, str]
    preferred: bool
    success_bps: int
    cost_bps: int
    score: int
    noise: int
    ceiling_bps: int


def route(
    routing: Routing,
    passage: RoutedPayment,
    channels: Sequence[Channel],
    records: Mapping[str, ChannelRecord],
    now_s: int,
    seed: str,
    tried: Set[str] = frozenset(),
) -> RoutingDecision:
    """Which of `channels` takes it; there must be one. `seed`: the payment's id. `tried`: channels on which this payment has failed: they
    come after all that are well, and such a payment is no probe. `now_s` is of the clock that `records` were kept by."""
    if not channels:
        raise ValueError("a payment cannot be routed without a channel: its method should not have been available")
    rule = routing.rule_for(passage)
    runners = sorted(
        (_runner(routing, rule, passage, channel, records, now_s, tried) for channel in channels), key=_place
    )
    group = min(runner.group for runner in runners)
    leading = [runner for runner in runners if runner.group == group]
    best_score = max(runner.score for runner in leading)
    shares = _shares(leading, best_score, rule)
    ordered = sorted(runners, key=lambda runner: (runner.group, *_standing(runner, best_score, rule)))
    probe = None if tried else _probe(routing, ordered, records, now_s, seed)
    chosen = probe or _drawn(leading, shares, seed)
    return RoutingDecision(
        chosen.channel.channel_id,
        rule.name,
        tuple(runner.channel.channel_id for runner in ordered if runner is not chosen),
        probe is not None,
        RouteReason.PROBE if probe else _why(chosen, runners, leading, rule),
        tuple(_rated(runner, shares) for runner in runners),
    )


def draw(seed: str, purpose: str, sides: int) -> int:
    """0 to `sides` - 1, the same for the same seed and purpose on every machine."""
    return int.from_bytes(blake2b(f"{purpose}\n{seed}".encode(), digest_size=8).digest()) % sides


def _runner(
    routing: Routing,
    rule: RoutingRule,
    passage: RoutedPayment,
    channel: Channel,
    records: Mapping[str, ChannelRecord],
    now_s: int,
    tried: Set[str],
) -> _Runner:
    record, ids = records.get(channel.channel_id, _UNHEARD), (channel.channel_id, channel.provider)
    live, cost = (
        success_rate(record, channel.success_bps, now_s, routing.learning),
        cost_bps(channel, passage.amount.value),
    )
    weight, against = rule.weights if rule.by is RankBy.BALANCED else (1, 0)
    stated = weight * channel.success_bps - against * cost
    listed = [index for index, name in enumerate(rule.prefer) if name in ids]
    order = (cost, -channel.success_bps) if rule.by is RankBy.COST else (-stated, cost)
    return _Runner(
        channel,
        (record.sick, channel.channel_id in tried, any(name in rule.avoid for name in ids)),
        (listed[0] if listed else len(rule.prefer), *order, channel.channel_id),
        bool(listed),
        live.bps,
        cost,
        weight * live.bps - against * cost,
        weight * live.noise_bps,
        ceiling_bps(record, now_s, routing.sick),
    )


def _place(runner: _Runner) -> tuple[int, int, int, str]:
    return runner.place


def _behind(runner: _Runner, best_score: int, rule: RoutingRule) -> int:
    """By how much more than chance explains it is behind the best, beyond what the rule tolerates; 0 for one that is as good as any."""
    return max(0, best_score - runner.score - runner.noise - rule.within_bps * _scale(rule))


def _scale(rule: RoutingRule) -> int:
    return rule.weights[0] if rule.by is RankBy.BALANCED else 1


def _shares(leading: list[_Runner], best_score: int, rule: RoutingRule) -> dict[str, int]:
    """In basis points, which add up to all. Each in the rule's order takes what it is fit for of what those before it left."""
    shares, left, slope = {}, BPS, rule.within_bps * _scale(rule)
    for runner in leading:
        fit = BPS if runner.preferred else max(0, BPS - _behind(runner, best_score, rule) * BPS // slope)
        shares[runner.channel.channel_id] = taken = left * (fit * runner.ceiling_bps // BPS) // BPS
        left -= taken
    # What is left over is that of the steadiest: one that is not only just well again, and of those the best.
    last = max(leading, key=lambda runner: (runner.ceiling_bps, runner.score))
    shares[last.channel.channel_id] += left
    return shares


def _standing(runner: _Runner, best_score: int, rule: RoutingRule) -> tuple[bool, int, tuple[int, int, int, str]]:
    """The order of those that stand by: as the rule has it, but for what is clearly worse now."""
    return (not runner.preferred, 0 if runner.preferred else _behind(runner, best_score, rule), runner.place)


def _drawn(leading: list[_Runner], shares: dict[str, int], seed: str) -> _Runner:
    fell = draw(seed, "share", BPS)
    for runner in leading:
        fell -= shares[runner.channel.channel_id]
        if fell < 0:
            return runner
    raise AssertionError("the shares do not add up to all")


def _probe(
    routing: Routing, ordered: list[_Runner], records: Mapping[str, ChannelRecord], now_s: int, seed: str
) -> _Runner | None:
    """The sick channel that this payment tries, if any. Where all are sick there is nobody to stand by, and every payment is a trial."""
    if ordered[0].group[0]:
        return None
    for runner in ordered:
        channel_id, sick = runner.channel.channel_id, runner.group[0]
        if sick and probe_due(records[channel_id], draw(seed, f"probe {channel_id}", 1 << 32), now_s, routing.sick):
            return runner
    return None


def _why(chosen: _Runner, runners: list[_Runner], leading: list[_Runner], rule: RoutingRule) -> RouteReason:
    if len(runners) == 1:
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


def _rated(runner: _Runner, shares: dict[str, int]) -> RatedChannel:
    channel_id = runner.channel.channel_id
    return RatedChannel(channel_id, runner.success_bps, runner.cost_bps, shares.get(channel_id, 0), runner.group[0])
