"""Limits: what an instrument may carry, tested on what it will really pay. Of all that apply the tightest wins."""

from __future__ import annotations

from msgspec import Struct

from cashier.domain.facts import Channel, Period, Quota
from cashier.domain.method import Limits, ReasonCode, Remedy, RemedyType
from cashier.domain.money import BPS, Money, share_half_up
from cashier.domain.refusal import Refusal


class Bound(Struct, frozen=True, gc=False):
    """A limit on a single payment, and who set it."""

    amount: Money
    source: str


class Room(Struct, frozen=True, gc=False):
    """How much may still pass, by each of the three clocks. None where nobody set a limit."""

    single: Bound | None = None
    daily: Money | None = None
    monthly: Money | None = None

    def within(self, bound: Bound) -> Room:
        """The same room with one more bound on a single payment."""
        if self.single is not None and self.single.amount.value <= bound.amount.value:
            return self
        return Room(bound, self.daily, self.monthly)

    def shown(self) -> Limits:
        return Limits(None if self.single is None else self.single.amount, self.daily, self.monthly)


UNLIMITED = Room()


def room(quotas: tuple[Quota, ...], bank: str | None, channel_id: str | None, card_id: str | None) -> Room:
    """The tightest of the quotas whose scope covers this bank, channel and card. A scope covers whatever it does not narrow."""
    single: Money | None = None
    daily: Money | None = None
    monthly: Money | None = None
    for quota in quotas:
        scope = quota.scope
        if (
            (scope.bank is None or scope.bank == bank)
            and (scope.card_id is None or scope.card_id == card_id)
            and (scope.channel_id is None or scope.channel_id == channel_id)
        ):
            single = _tighter(single, quota.single)
            daily = _tighter(daily, _remaining(quota.daily))
            monthly = _tighter(monthly, _remaining(quota.monthly))
    return Room(None if single is None else Bound(single, "quota"), daily, monthly)


def _remaining(period: Period | None) -> Money | None:
    return None if period is None else Money(period.limit.currency, max(0, period.limit.value - period.used.value))


def _tighter(left: Money | None, right: Money | None) -> Money | None:
    if left is None or right is None:
        return left or right
    return right if right.value < left.value else left


def beyond(room: Room, payable: int) -> Refusal | None:
    """More than may pass? Single first, then the day, then the month."""
    if room.single is not None and payable > room.single.amount.value:
        return _too_much(ReasonCode.ABOVE_SINGLE_LIMIT, room.single.source, room.single.amount)
    if room.daily is not None and payable > room.daily.value:
        return _too_much(ReasonCode.DAILY_LIMIT_EXCEEDED, "quota", room.daily)
    if room.monthly is not None and payable > room.monthly.value:
        return _too_much(ReasonCode.MONTHLY_LIMIT_EXCEEDED, "quota", room.monthly)
    return None


def _too_much(code: ReasonCode, source: str, limit: Money) -> Refusal:
    return Refusal(code, source, Remedy(RemedyType.REDUCE_AMOUNT, limit) if limit.value else None, limit)


def below_min(channel: Channel, payable: int) -> Refusal | None:
    """Less than the channel carries? Nothing at all is no payment through it, and never too little."""
    return too_little(channel) if 0 < payable < channel.min.value else None


def too_little(channel: Channel) -> Refusal:
    return Refusal(ReasonCode.BELOW_MIN, "channel", None, channel.min)


def smallest_carried(channel_min: int, fee_bps: int) -> int:
    """The smallest amount before the fee that, with it, reaches the channel's minimum."""
    if not fee_bps:
        return channel_min
    amount = max(0, channel_min * BPS // (BPS + fee_bps) - 2)
    while amount + share_half_up(amount, fee_bps) < channel_min:
        amount += 1
    return amount
