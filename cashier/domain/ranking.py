"""Ranking: the order of payment methods, explained and deterministic.

A score is a sum of shares in basis points, each times its weight, in integers, so that the same
facts give the same order on every machine. `rank_reasons` names what counted. Usable methods come
before undetermined ones, and those before unusable ones. Ties: payable amount, the kind's position,
id.
"""

from __future__ import annotations

from operator import attrgetter

from msgspec import UNSET, Struct, UnsetType, structs

from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.facts import Channel, ChannelStatus, UnratedChannel
from cashier.domain.kinds import KINDS
from cashier.domain.money import BPS
from cashier.domain.offer import Offer
from cashier.domain.pay_method import Amounts, Health, NextAction, OfferedPromotion, PayMethod
from cashier.domain.promotion import DiscountedPrice
from cashier.domain.quote import cost_bps
from cashier.domain.reason_text import reason
from cashier.domain.refusal import AVAILABILITIES, RANK_BY_CODE
from cashier.source_errors import Missing

# Enum members for the hot path: see `refusal`.
_UP, _DOWN, _FLUCTUATING, _UNKNOWN = Health.UP, Health.DOWN, Health.FLUCTUATING, Health.UNKNOWN
_OPEN, _NO_ACTION = ChannelStatus.OPEN.value, NextAction.NONE
_WITHOUT_CHANNEL = frozenset(kind for kind, row in KINDS.items() if not row.needs_channel)


class Weights(Struct, frozen=True, forbid_unknown_fields=True):
    """`ranking.toml`: the weight of a full share (10,000 bps) of each term.

    The last two fields are thresholds of channel health. Habit: `last_used` (the instrument of the
    last payment), `last_kind` (another instrument of its kind), `usage` (the kind's share of all
    payments). `saving`: of the order's amount. `fee` (the payer's)
    and `cost` (ours): of the payable amount, subtracted. `boost`: requested by marketing.
    `failure`: the channel's share of lost payments, subtracted.
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
    """The part of the score that methods of a kind, or of a kind at one price, have in common.

    `promotions`: those that apply at the price, for the answer.
    """

    score: int
    reasons: tuple[str, ...]
    payable: int = 0
    promotions: tuple[OfferedPromotion, ...] | UnsetType = UNSET


class UsageHabit(Struct, frozen=True):
    """The habit score of one kind.

    `last_id`: the instrument of the last payment, if it was of this kind. `by_price`: the share
    with a price added, by the identity of its `Amounts`. Comparing the figures would cost more than
    the cache saves.
    """

    share: ScoreShare
    is_last: bool
    last_id: str | None
    by_price: dict[int, ScoreShare]


_NO_SHARE = ScoreShare(0, ())
# Sort key: availability rank, negative score, payable amount, the kind's position, method id,
# index. The index is unique, so the rest (offer, share, reasons, health) is never compared.
RankingRow = tuple[int, int, int, int, str, int, Offer, ScoreShare, tuple[str, ...], Health]


def rank_offers(case: ConsultationCase, offers: list[Offer], weights: Weights) -> tuple[PayMethod, ...]:
    """The offers as methods, best first."""
    methods = []
    preferred, left_s = True, case.left_s
    for rank, (availability_rank, _, payable, _, method_id, _, offer, share, reasons, health) in enumerate(
        sorted(_rows(case, offers, weights)), 1
    ):
        offered, quote = offer.offered, offer.quote
        terms, amounts = offered.terms, quote.amounts
        lifetime_s = terms.expires_in_s
        methods.append(
            # By position: 0.1 µs per method. Eighteen keywords cost 0.7 µs or more (msgspec 0.23).
            PayMethod(
                method_id,
                offered.kind,
                offer.title,
                offer.icon,
                offer.instrument,
                AVAILABILITIES[availability_rank],
                None if quote.refusal is None else reason(case, quote.refusal),
                amounts,
                quote.limits,
                offer.options,
                health,
                preferred and not availability_rank,
                rank,
                reasons,
                offered.next_action if payable or amounts is None else _NO_ACTION,
                terms.required_fields,
                left_s if lifetime_s is not None and lifetime_s > left_s else lifetime_s,
                quote.legs,
                share.promotions,
            )
        )
        preferred = False
    return tuple(methods)


class ScorePart(Struct, frozen=True):
    """One term of a score: `value_bps` times `weight`, negative where it is subtracted."""

    term: str
    value_bps: int
    weight: int
    score: int


# The weights of `Weights` that are of a term; the others are thresholds.
SCORE_TERMS = ("last_used", "last_kind", "usage", "boost", "saving", "fee", "cost", "failure")
_NO_WEIGHTS = dict.fromkeys(SCORE_TERMS, 0)


def score_parts(case: ConsultationCase, offers: list[Offer], weights: Weights) -> dict[str, tuple[ScorePart, ...]]:
    """The terms of each score, by method id.

    A score is linear in each weight, so a term is the score under its weight alone.
    """
    parts: dict[str, tuple[ScorePart, ...]] = {offer.method_id: () for offer in offers}
    for term in SCORE_TERMS:
        weight = getattr(weights, term)
        for _, negative, _, _, method_id, *_ in _rows(
            case, offers, structs.replace(weights, **_NO_WEIGHTS | {term: 1})
        ):
            parts[method_id] += (ScorePart(term, -negative, weight, -negative * weight),)
    return parts


def _rows(case: ConsultationCase, offers: list[Offer], weights: Weights) -> list[RankingRow]:
    """Offers of one kind are adjacent, mostly at one price: look up what they share on a change."""
    habits, no_habit, order_value = _habits(case, weights), UsageHabit(_NO_SHARE, False, None, {}), case.amount.value
    failure, cost, steady_bps = (
        weights.failure,
        weights.cost,
        max(weights.fluctuating_below_bps, weights.down_below_bps),
    )
    rows: list[RankingRow] = []
    offered, habit, amounts, share = None, no_habit, None, _NO_SHARE
    for index, offer in enumerate(offers):
        quote = offer.quote
        if offer.offered is not offered or quote.amounts is not amounts:
            offered, amounts = offer.offered, quote.amounts
            habit = habits.get(offered.kind, no_habit)
            price_id = id(amounts)
            if price_id not in habit.by_price:
                discounted = case.discounted.get(price_id)
                habit.by_price[price_id] = _at_price(habit, amounts, discounted, order_value, weights)
            share = habit.by_price[price_id]
            position, last_id = offered.terms.position, habit.last_id
        score, reasons, health = share.score, share.reasons, _UP
        if last_id is not None and offer.instrument is not None and offer.instrument.id == last_id:
            score += (weights.last_used - weights.last_kind) * BPS
            reasons = ("LAST_USED", *reasons[1:])
        channel = quote.channel
        if channel is not None:
            # Our cost counts, but is confidential: it gives no reason.
            success_bps, our_cost_bps = (
                channel.success_bps,
                channel.cost_bps if channel.fixed_cost is None else _cost(channel, amounts),
            )
            score -= failure * (BPS - success_bps) + cost * our_cost_bps
            if success_bps < steady_bps or channel.status != _OPEN:
                health, reasons = _unsteady(channel, reasons, weights)
        elif amounts is None or offered.kind not in _WITHOUT_CHANNEL:
            # The method needs a channel, and none is known.
            health = _UNKNOWN
        availability_rank = 0 if quote.refusal is None else RANK_BY_CODE[quote.refusal.code]
        rows.append(
            (
                availability_rank,
                -score,
                share.payable,
                position,
                offer.method_id,
                index,
                offer,
                share,
                reasons,
                health,
            )
        )
    return rows


def _habits(case: ConsultationCase, weights: Weights) -> dict[str, UsageHabit]:
    """By kind: share of the member's payments, marketing's boosts, and the last use."""
    member, marketing = case.facts.member, case.facts.marketing
    counts: dict[str, int] = {}
    total = 0
    for used in () if member is None else member.usage:
        counts[used.kind] = counts.get(used.kind, 0) + used.count
        total += used.count
    shares: dict[str, ScoreShare] = {}
    for kind, count in counts.items():
        if count:
            shares[kind] = ScoreShare(weights.usage * (count * BPS // total), (f"USED:{count}",))
    if not isinstance(marketing, Missing):
        for boost in sorted(marketing.boosts, key=_label):
            share = shares.get(boost.kind, _NO_SHARE)
            shares[boost.kind] = ScoreShare(
                share.score + weights.boost * boost.weight_bps, (*share.reasons, f"BOOST:{boost.label}")
            )
    habits: dict[str, UsageHabit] = {}
    for kind, share in shares.items():
        habits[kind] = UsageHabit(share, False, None, {})
    last = None if member is None else member.last_used
    if last is not None:
        habits[last.kind] = UsageHabit(shares.get(last.kind, _NO_SHARE), True, last.instrument_id, {})
    return habits


_label = attrgetter("label")


def _at_price(
    habit: UsageHabit, amounts: Amounts | None, discounted: DiscountedPrice | None, order_value: int, weights: Weights
) -> ScoreShare:
    """Add saving, fee and `LAST_KIND` to the habit.

    `_rows` replaces `LAST_KIND` for the very instrument.
    """
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
    return ScoreShare(score, reasons, payable, UNSET if discounted is None else discounted.discounts.offered)


def _cost(channel: Channel, amounts: Amounts | None) -> int:
    return channel.cost_bps if amounts is None else cost_bps(channel, amounts.payable.value)


def _unsteady(channel: Channel, reasons: tuple[str, ...], weights: Weights) -> tuple[Health, tuple[str, ...]]:
    """Health of a channel that is not simply UP, and `reasons` with its share of lost payments."""
    if isinstance(channel, UnratedChannel):
        return _UP if channel.status == _OPEN else _DOWN, reasons
    success_bps = channel.success_bps
    if success_bps < weights.fluctuating_below_bps:
        reasons = (*reasons, f"FAILS:{BPS - success_bps}")
    if channel.status != _OPEN or success_bps < weights.down_below_bps:
        return _DOWN, reasons
    return _UP if success_bps >= weights.fluctuating_below_bps else _FLUCTUATING, reasons
