"""Ranking: which way first, and why. Integers only, so that the same facts give the same order on every machine.

A score is a sum of shares in basis points, each times its weight; what counted is named in `rank_reasons`. Usable ways come before
undetermined ones and those before unusable ones, whatever their score. Equal scores fall back on what the payer pays, the kind's position,
the id.
"""

from __future__ import annotations

from operator import attrgetter

from msgspec import Struct

from cashier.answer import Missing
from cashier.domain.case import Case
from cashier.domain.facts import ChannelStatus
from cashier.domain.method import Amounts, Availability, Health, Kind, NextAction, PayMethod
from cashier.domain.money import BPS
from cashier.domain.offer import Offer
from cashier.domain.quote import cost_bps
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


class Share(Struct, frozen=True, gc=False):
    """What counts for several ways alike: every one of a kind, or every one of a kind at one price."""

    score: int
    reasons: tuple[str, ...]


_NOTHING = Share(0, ())


def ranked(case: Case, offers: list[Offer], weights: Weights) -> tuple[PayMethod, ...]:
    """The offers as methods, best first."""
    habits, total = _habits(case, weights), case.amount.value
    # By the identity of the price: most ways have theirs in common, and comparing figures costs more than it saves.
    shares: dict[tuple[Kind, int], Share] = {}
    rows = []
    for index, offer in enumerate(offers):
        line, quote = offer.line, offer.quote
        amounts = quote.amounts
        key = (line.kind, id(amounts))
        share = shares.get(key)
        if share is None:
            share = shares[key] = _priced(habits.get(line.kind, _NOTHING), amounts, weights)
        score, reasons = _score(case, offer, weights, share)
        standing = AVAILABLE if quote.refusal is None else availability(quote.refusal)
        payable = total if amounts is None else amounts.payable.value
        rows.append((STANDING[standing], -score, payable, line.terms.position, offer.method_id, index, offer, standing, reasons))
    rows.sort()
    return tuple([_method(case, rank, row[6], row[7], row[8], weights) for rank, row in enumerate(rows, 1)])


def _habits(case: Case, weights: Weights) -> dict[str, Share]:
    """By kind, its share of what the member paid with, and marketing's wish."""
    counts: dict[str, int] = {}
    for used in case.facts.member.usage:
        counts[used.kind] = counts.get(used.kind, 0) + used.count
    total = sum(counts.values())
    found = {kind: Share(weights.usage * (count * BPS // total), (f"USED:{count}",)) for kind, count in counts.items() if count}
    marketing = case.facts.marketing
    if not isinstance(marketing, Missing):
        for boost in sorted(marketing.boosts, key=_label):
            so_far = found.get(boost.kind, _NOTHING)
            found[boost.kind] = Share(so_far.score + weights.boost * boost.weight_bps, (*so_far.reasons, f"BOOST:{boost.label}"))
    return found


_label = attrgetter("label")


def _priced(habit: Share, amounts: Amounts | None, weights: Weights) -> Share:
    """Habit, with what is saved and what the fee is."""
    if amounts is None:
        return habit
    score, reasons = habit.score, habit.reasons
    order, payable, fee = amounts.order.value, amounts.payable.value, amounts.fee.value
    saving = order + fee - payable
    if saving:
        score += weights.saving * (saving * BPS // order)
        reasons = (f"SAVES:{saving}", *reasons)
    if fee:
        score -= weights.fee * (fee * BPS // payable)
        reasons = (*reasons, f"FEE:{fee}")
    return Share(score, reasons)


def _score(case: Case, offer: Offer, weights: Weights, share: Share) -> tuple[int, tuple[str, ...]]:
    """The score, and what counted in it. What a channel costs us counts but is not named: it is nobody's business outside."""
    score, reasons = share.score, share.reasons
    channel, last = offer.quote.channel, case.facts.member.last_used
    if last is not None and last.kind == offer.line.kind:
        same = offer.instrument is not None and last.instrument_id == offer.instrument.id
        score += (weights.last_used if same else weights.last_kind) * BPS
        reasons = ("LAST_USED" if same else "LAST_KIND", *reasons)
    if channel is not None:
        amounts, success_bps = offer.quote.amounts, channel.success_bps
        cost = channel.cost_bps if channel.fixed_cost is None or amounts is None else cost_bps(channel, amounts.payable.value)
        score -= weights.failure * (BPS - success_bps) + weights.cost * cost
        if success_bps < weights.fluctuating_below_bps:
            reasons = (*reasons, f"FAILS:{BPS - success_bps}")
    return score, reasons


def health(offer: Offer, weights: Weights) -> Health:
    """UP where no channel is in it; UNKNOWN where there should be one and nobody told."""
    channel = offer.quote.channel
    if channel is None:
        return _UP if offer.line.kind is _BALANCE and offer.quote.amounts is not None else _UNKNOWN
    if channel.status is not _OPEN or channel.success_bps < weights.down_below_bps:
        return _DOWN
    return _UP if channel.success_bps >= weights.fluctuating_below_bps else _FLUCTUATING


def _method(case: Case, rank: int, offer: Offer, standing: Availability, reasons: tuple[str, ...], weights: Weights) -> PayMethod:
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
