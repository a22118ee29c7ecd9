"""Ranking: which way first, and why. Integers only, so that the same facts give the same order on every machine.

A score is a sum of shares in basis points, each times its weight; each share that counted is named in `rank_reasons`. Usable ways come
before undetermined ones and those before unusable ones, whatever their score. Equal scores fall back on the kind's position, then the id.
"""

from __future__ import annotations

from msgspec import Struct

from cashier.answer import Missing
from cashier.domain.case import Case
from cashier.domain.facts import ChannelStatus
from cashier.domain.method import Availability, Health, Kind, NextAction, PayMethod
from cashier.domain.money import BPS
from cashier.domain.offer import Offer, cost_bps
from cashier.domain.refusal import AVAILABLE, STANDING, availability
from cashier.domain.words import reason

# See `refusal`: named once.
_UP, _DOWN, _FLUCTUATING, _UNKNOWN = Health.UP, Health.DOWN, Health.FLUCTUATING, Health.UNKNOWN
_OPEN, _BALANCE, _NO_ACTION = ChannelStatus.OPEN, Kind.BALANCE, NextAction.NONE


class Weights(Struct, frozen=True, forbid_unknown_fields=True):
    """`ranking.toml`. How much a full share (10,000 bps) of each is worth, and from which success rate on a channel counts as well.

    Habit: `last_used` (the same instrument as last time), `last_kind` (another of the same kind), `usage` (the kind's share of all
    payments). `saving`: of the order's amount. `fee`: what the payer adds, `cost`: what we pay, both of the payable amount and counted
    against. `boost`: marketing's wish. `failure`: the share of payments that the channel loses, counted against.
    """

    last_used: int = 3_000
    last_kind: int = 500
    usage: int = 1_500
    saving: int = 10_000
    fee: int = 20_000
    cost: int = 2_000
    boost: int = 2_000
    failure: int = 4_000
    fluctuating_below_bps: int = 9_000
    down_below_bps: int = 3_500


class Habit(Struct, frozen=True):
    """What counts for a whole kind: its share of what the member paid with, and marketing's wish."""

    score: int
    reasons: tuple[str, ...]


def ranked(case: Case, offers: list[Offer], weights: Weights) -> tuple[PayMethod, ...]:
    """The offers as methods, best first."""
    habits: dict[Kind, Habit] = {}
    rows = []
    for offer in offers:
        line = offer.line
        habit = habits.get(line.kind)
        if habit is None:
            habit = habits[line.kind] = _habit(case, line.kind, weights)
        standing = availability(offer.quote.refusal)
        score, reasons = _score(case, offer, weights, habit)
        rows.append(((STANDING[standing], -score, line.terms.position, offer.method_id), offer, standing, reasons))
    rows.sort(key=_first)
    return tuple([_method(case, row[1], row[2], row[3], rank, weights) for rank, row in enumerate(rows, 1)])


def _first(row: tuple[tuple[int, int, int, str], Offer, Availability, tuple[str, ...]]) -> tuple[int, int, int, str]:
    return row[0]


def _habit(case: Case, kind: Kind, weights: Weights) -> Habit:
    score, reasons = 0, []
    usage = case.facts.member.usage
    count = sum(used.count for used in usage if used.kind is kind)
    if count:
        score += weights.usage * (count * BPS // sum(used.count for used in usage))
        reasons.append(f"USED:{count}")
    marketing = case.facts.marketing
    for boost in () if isinstance(marketing, Missing) else marketing.boosts:
        if boost.kind is kind:
            score += weights.boost * boost.weight_bps
            reasons.append(f"BOOST:{boost.label}")
    return Habit(score, tuple(reasons))


def _score(case: Case, offer: Offer, weights: Weights, habit: Habit) -> tuple[int, tuple[str, ...]]:
    score, reasons = habit.score, habit.reasons
    quote, last = offer.quote, case.facts.member.last_used
    amounts, channel = quote.amounts, quote.channel
    payable = 0
    if amounts is not None:
        order, payable, fee = amounts.order.value, amounts.payable.value, amounts.fee.value
        saving = order + fee - payable
        if saving:
            score += weights.saving * (saving * BPS // order)
            reasons = (f"SAVES:{saving}", *reasons)
        if fee:
            score -= weights.fee * (fee * BPS // payable)
            reasons = (*reasons, f"FEE:{fee}")
    if last is not None and last.kind is offer.line.kind:
        same = offer.instrument is not None and last.instrument_id == offer.instrument.id
        score += (weights.last_used if same else weights.last_kind) * BPS
        reasons = ("LAST_USED" if same else "LAST_KIND", *reasons)
    if channel is not None:
        score -= weights.failure * (BPS - channel.success_bps) + weights.cost * cost_bps(channel, payable)
        if channel.success_bps < weights.fluctuating_below_bps:
            reasons = (*reasons, f"FAILS:{BPS - channel.success_bps}")
    return score, reasons


def health(offer: Offer, weights: Weights) -> Health:
    """UP where no channel is in it; UNKNOWN where there should be one and nobody told."""
    channel = offer.quote.channel
    if channel is None:
        return _UP if offer.line.kind is _BALANCE and offer.quote.amounts is not None else _UNKNOWN
    if channel.status is not _OPEN or channel.success_bps < weights.down_below_bps:
        return _DOWN
    return _UP if channel.success_bps >= weights.fluctuating_below_bps else _FLUCTUATING


def _method(case: Case, offer: Offer, standing: Availability, reasons: tuple[str, ...], rank: int, weights: Weights) -> PayMethod:
    line, quote = offer.line, offer.quote
    return PayMethod(
        offer.method_id,
        line.kind,
        offer.title,
        offer.icon,
        offer.instrument,
        standing,
        None if quote.refusal is None else reason(case, quote.refusal),
        quote.amounts,
        quote.limits,
        offer.options,
        health(offer, weights),
        rank == 1 and standing is AVAILABLE,
        rank,
        reasons,
        _NO_ACTION if quote.amounts is not None and not quote.amounts.payable.value else line.next_action,
        line.terms.required_fields,
        line.terms.expires_in_s,
        quote.legs,
    )
