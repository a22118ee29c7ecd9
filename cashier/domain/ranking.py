"""Ranking: which way first, and why. Integers only, so that the same facts give the same order on every machine.

A score is a sum of shares in basis points, each times its weight; what counted is named in `rank_reasons`. Usable ways come before
undetermined ones and those before unusable ones, whatever their score. Equal scores fall back on what the payer pays, the kind's position,
the id.
"""

from __future__ import annotations

from operator import attrgetter

from msgspec import Struct

from cashier.domain.case import ConsultationCase
from cashier.domain.facts import Channel, ChannelStatus
from cashier.domain.money import BPS
from cashier.domain.offer import Offer
from cashier.domain.pay_method import Amounts, Health, Kind, NextAction, PayMethod
from cashier.domain.quote import cost_bps
from cashier.domain.reason_text import reason
from cashier.domain.refusal import AVAILABILITIES, STANDING, availability
from cashier.source_errors import Missing

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


class ScoreShare(Struct, frozen=True, gc=False):
    """What counts for several ways alike: every one of a kind, or every one of a kind at one price. `payable`: that price."""

    score: int
    reasons: tuple[str, ...]
    payable: int = 0


class UsageHabit(Struct, frozen=True):
    """What counts for every way of a kind, and with it `priced`, for those at one price, by the identity of the price: comparing figures
    would cost more than it saves. `last_id`: of the kind that was used last, the instrument."""

    share: ScoreShare
    is_last: bool
    last_id: str | None
    priced: dict[int, ScoreShare]


_NOTHING = ScoreShare(0, ())
# A way's place: standing, score (the highest first), what the payer pays, the kind's position, the id, and which of the offers it is.
# What follows comes along and is never compared: the offer, its reasons and its health.
RankingRow = tuple[int, int, int, int, str, int, Offer, tuple[str, ...], Health]


def rank_offers(case: ConsultationCase, offers: list[Offer], weights: Weights) -> tuple[PayMethod, ...]:
    """The offers as methods, best first."""
    methods = []
    preferred = True
    for rank, (standing, _, payable, _, method_id, _, offer, reasons, health) in enumerate(
        sorted(_rows(case, offers, weights)), 1
    ):
        line, quote = offer.line, offer.quote
        methods.append(
            PayMethod(
                method_id,
                line.kind,
                offer.title,
                offer.icon,
                offer.instrument,
                AVAILABILITIES[standing],
                None if quote.refusal is None else reason(case, quote.refusal),
                quote.amounts,
                quote.limits,
                offer.options,
                health,
                preferred and not standing,
                rank,
                reasons,
                line.next_action if payable or quote.amounts is None else _NO_ACTION,
                line.terms.required_fields,
                line.terms.expires_in_s,
                quote.legs,
            )
        )
        preferred = False
    return tuple(methods)


def _rows(case: ConsultationCase, offers: list[Offer], weights: Weights) -> list[RankingRow]:
    """Ways of one kind come one after the other and mostly at one price, so what they share is looked up when it changes."""
    habits, nothing, order_value = _habits(case, weights), UsageHabit(_NOTHING, False, None, {}), case.amount.value
    failure, cost, steady_bps = (
        weights.failure,
        weights.cost,
        max(weights.fluctuating_below_bps, weights.down_below_bps),
    )
    rows: list[RankingRow] = []
    line, habit, price, share = None, nothing, None, _NOTHING
    for index, offer in enumerate(offers):
        quote = offer.quote
        if offer.line is not line or quote.amounts is not price:
            line, price = offer.line, quote.amounts
            habit = habits.get(line.kind, nothing)
            share = habit.priced.get(id(price)) or _priced(habit, price, order_value, weights)
            position, last_id = line.terms.position, habit.last_id
        score, reasons, health = share.score, share.reasons, _UP
        if last_id is not None and offer.instrument is not None and offer.instrument.id == last_id:
            score += (weights.last_used - weights.last_kind) * BPS
            reasons = ("LAST_USED", *reasons[1:])
        channel = quote.channel
        if channel is not None:
            # What it costs us counts but is not named: it is nobody's business outside.
            success_bps, its_cost_bps = (
                channel.success_bps,
                channel.cost_bps if channel.fixed_cost is None else _cost(channel, price),
            )
            score -= failure * (BPS - success_bps) + cost * its_cost_bps
            if success_bps < steady_bps or channel.status is not _OPEN:
                health, reasons = _unsteady(channel, reasons, weights)
        elif price is None or line.kind is not _BALANCE:
            health = _UNKNOWN  # there should be a channel, and nobody told
        standing = 0 if quote.refusal is None else STANDING[availability(quote.refusal)]
        rows.append((standing, -score, share.payable, position, offer.method_id, index, offer, reasons, health))
    return rows


def _habits(case: ConsultationCase, weights: Weights) -> dict[str, UsageHabit]:
    """By kind, its share of what the member paid with, marketing's wish, and whether it was the last."""
    member, marketing = case.facts.member, case.facts.marketing
    counts: dict[str, int] = {}
    total = 0
    for used in member.usage:
        counts[used.kind] = counts.get(used.kind, 0) + used.count
        total += used.count
    shares: dict[str, ScoreShare] = {}
    for kind, count in counts.items():
        if count:
            shares[kind] = ScoreShare(weights.usage * (count * BPS // total), (f"USED:{count}",))
    if not isinstance(marketing, Missing):
        for boost in sorted(marketing.boosts, key=_label):
            so_far = shares.get(boost.kind, _NOTHING)
            shares[boost.kind] = ScoreShare(
                so_far.score + weights.boost * boost.weight_bps, (*so_far.reasons, f"BOOST:{boost.label}")
            )
    habits: dict[str, UsageHabit] = {}
    for kind, share in shares.items():
        habits[kind] = UsageHabit(share, False, None, {})
    last = member.last_used
    if last is not None:
        habits[last.kind] = UsageHabit(shares.get(last.kind, _NOTHING), True, last.instrument_id, {})
    return habits


_label = attrgetter("label")


def _priced(habit: UsageHabit, amounts: Amounts | None, order_value: int, weights: Weights) -> ScoreShare:
    """Habit, with what is saved and what the fee is. Of the kind that was used last, another than the very same is taken to be meant."""
    score, reasons, payable = habit.share.score, habit.share.reasons, order_value
    if amounts is not None:
        payable, fee = amounts.payable.value, amounts.fee.value
        saving = order_value + fee - payable
        if saving:
            score += weights.saving * (saving * BPS // order_value)
            reasons = (f"SAVES:{saving}", *reasons)
        if fee:
            score -= weights.fee * (fee * BPS // payable)
            reasons = (*reasons, f"FEE:{fee}")
    if habit.is_last:
        score += weights.last_kind * BPS
        reasons = ("LAST_KIND", *reasons)
    found = habit.priced[id(amounts)] = ScoreShare(score, reasons, payable)
    return found


def _cost(channel: Channel, amounts: Amounts | None) -> int:
    return channel.cost_bps if amounts is None else cost_bps(channel, amounts.payable.value)


def _unsteady(channel: Channel, reasons: tuple[str, ...], weights: Weights) -> tuple[Health, tuple[str, ...]]:
    """A channel that is not simply UP, and `reasons` with what it loses."""
    success_bps = channel.success_bps
    if success_bps < weights.fluctuating_below_bps:
        reasons = (*reasons, f"FAILS:{BPS - success_bps}")
    if channel.status is not _OPEN or success_bps < weights.down_below_bps:
        return _DOWN, reasons
    return _UP if success_bps >= weights.fluctuating_below_bps else _FLUCTUATING, reasons
