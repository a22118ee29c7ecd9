"""Limits on one payment, tested on the amount that the instrument really pays.

The tightest limit wins.
"""

from __future__ import annotations

from collections.abc import Sequence

from cashier.domain.facts import Channel, Quota
from cashier.domain.money import BPS, Currency, Money, in_steps_down, in_steps_up, stepped_fee
from cashier.domain.pay_method import Kind, Limits, ReasonCode, Remedy, RemedyType
from cashier.domain.refusal import Refusal, unclear_refusal

_KINDS = frozenset(Kind)
_UNCLEAR = unclear_refusal("quota")


def tightest_limits(
    quotas: Sequence[Quota], channel_id: str | None, card_id: str | None, single: Money | None, limit_source: str
) -> tuple[Limits, str]:
    """Combine quotas in scope with `single`, the limit of `limit_source` on a single payment.

    Returns the limits and the source of the single one. A scope covers every channel or card that
    it does not narrow.
    """
    daily: Money | None = None
    monthly: Money | None = None
    for quota in quotas:
        scope, quota_single, day, month = quota.scope, quota.single, quota.daily, quota.monthly
        if (scope.card_id is None or scope.card_id == card_id) and (
            scope.channel_id is None or scope.channel_id == channel_id
        ):
            if quota_single is not None and (single is None or quota_single.value <= single.value):
                single, limit_source = quota_single, "quota"
            if day is not None:
                rest = day.limit.value - day.used.value
                if daily is None or rest < daily.value:
                    daily = Money(day.limit.currency, rest if rest > 0 else 0)
            if month is not None:
                rest = month.limit.value - month.used.value
                if monthly is None or rest < monthly.value:
                    monthly = Money(month.limit.currency, rest if rest > 0 else 0)
    return Limits(single, daily, monthly), limit_source


def unclear_limit(
    unclear: Sequence[Quota], kind: str, bank: str | None, channel_id: str | None, card_id: str | None
) -> Refusal | None:
    """An undetermined refusal if a quota that cannot be understood could concern this payment.

    One of an unknown kind could concern every kind.
    """
    for quota in unclear:
        scope = quota.scope
        if (
            (scope.kind == kind or scope.kind not in _KINDS)
            and (scope.bank is None or scope.bank == bank)
            and (scope.channel_id is None or scope.channel_id == channel_id)
            and (scope.card_id is None or scope.card_id == card_id)
        ):
            return _UNCLEAR
    return None


def over_limit(
    limits: Limits,
    payable: int,
    limit_source: str = "quota",
    *,
    least: int = 1,
    most: int | None = None,
    step: int = 1,
) -> Refusal | None:
    """Test the single limit, then the day's, then the month's.

    `limit_source`: of the single limit. `least`, `most`, `step`: what the instrument can pay at
    all, beside its limits.
    """
    single, daily, monthly = limits.single, limits.daily_remaining, limits.monthly_remaining
    if single is not None and payable > single.value:
        code, limit = ReasonCode.ABOVE_SINGLE_LIMIT, single
    elif daily is not None and payable > daily.value:
        code, limit, limit_source = ReasonCode.DAILY_LIMIT_EXCEEDED, daily, "quota"
    elif monthly is not None and payable > monthly.value:
        code, limit, limit_source = ReasonCode.MONTHLY_LIMIT_EXCEEDED, monthly, "quota"
    else:
        return None
    most = payable if most is None else most
    return Refusal(code, limit_source, _reduction(limits, limit.currency, least, most, step), limit)


def not_carriable(channel: Channel, payable: int, limits: Limits) -> Refusal:
    """The refusal of an amount that is no multiple of the channel's step, which the text names."""
    currency = channel.min.currency
    remedy = _reduction(limits, currency, channel.min.value, payable, channel.step)
    return Refusal(ReasonCode.AMOUNT_NOT_CARRIABLE, "channel", remedy, Money(currency, channel.step))


def _reduction(limits: Limits, currency: Currency, least: int, most: int, step: int) -> Remedy | None:
    """To the highest amount up to `most` that passes every test; None if there is none."""
    for limit in (limits.single, limits.daily_remaining, limits.monthly_remaining):
        if limit is not None:
            most = min(most, limit.value)
    possible = in_steps_down(most, step)
    return Remedy(RemedyType.REDUCE_AMOUNT, Money(currency, possible)) if possible >= max(1, least) else None


def below_minimum(channel: Channel) -> Refusal:
    least = Money(channel.min.currency, in_steps_up(channel.min.value, channel.step))
    return Refusal(ReasonCode.BELOW_MIN, "channel", None, least)


def smallest_carried(channel_min: int, fee_bps: int, step: int) -> int:
    """The smallest amount before the fee that, with it, reaches the channel's minimum.

    It need not be a multiple of `step`; only the fee is.
    """
    if not fee_bps:
        return channel_min
    # Exact, because the sum of an integer and its share rounded half up is at least the minimum if
    # the sum before rounding is at most half a unit below it.
    smallest = max(0, -((BPS // 2 - channel_min * BPS) // (BPS + fee_bps)))
    if step == 1:
        return smallest
    # The fee is now lower by less than a step. Either a larger amount makes up for it, or it causes
    # a fee of one step more.
    fee = stepped_fee(smallest, fee_bps, step)
    return min(
        max(channel_min - fee, _first_with_fee(fee, fee_bps)),
        max(channel_min - fee - step, _first_with_fee(fee + step, fee_bps)),
    )


def _first_with_fee(fee: int, fee_bps: int) -> int:
    """The smallest amount whose share, rounded half up, reaches `fee`."""
    return max(0, -((BPS // 2 - fee * BPS) // fee_bps))
