"""The best legal set of discounts for one way to pay.

The law: a promotion counts when its currency is the order's, it has not expired, the order reaches its threshold, and the kind and
the bank are among those it names. Of a group one may be used. One that is not stackable is used alone. Each is computed on the order's
amount, not on what others left of it, so a set has one value whatever its sequence. Together they never exceed the order.

The best: saves most, then uses fewest promotions, then has the more valuable ones, those that expire first, the smaller ids. One thing
makes it more than taking the best of each group: a channel has a minimum. A set that leaves something, but less than that minimum, makes
the way unusable, so it must leave more (or bring the order to zero), and then the best set is a knapsack.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import Struct

from cashier.domain.facts import Promotion
from cashier.domain.method import Discount, Kind
from cashier.domain.money import Money, share_down
from cashier.domain.order import Order

# Bounds on the knapsack. Exact for a dozen stackable promotions and usually for far more; past a bound the best set seen so far stands,
# which is always legal, and the search begins with the likeliest.
MAX_STEPS = 4_000
MAX_SEARCHED = 64
_NEVER = datetime.max.replace(tzinfo=UTC)


class Coupon(Struct, frozen=True):
    """A promotion that this order reaches, and what it takes off, in minor units."""

    promotion: Promotion
    value: int


class Discounts(Struct, frozen=True):
    """A legal set, and what it takes off in all."""

    discounts: tuple[Discount, ...]
    total: int


NONE = Discounts((), 0)


def reached(promotions: Iterable[Promotion], order: Order, now: datetime) -> tuple[Coupon, ...]:
    """The promotions that count for this order, most valuable first."""
    coupons = []
    for promotion in promotions:
        if promotion.threshold.currency != order.amount.currency or promotion.threshold.value > order.amount.value:
            continue
        if promotion.expires_at is not None and promotion.expires_at <= now:
            continue
        value = min(_value(promotion, order.amount), order.amount.value)
        if value > 0:
            coupons.append(Coupon(promotion, value))
    coupons.sort(key=_most_valuable_first)
    return tuple(coupons)


def _value(promotion: Promotion, amount: Money) -> int:
    if promotion.amount_off is not None:
        return promotion.amount_off.value if promotion.amount_off.currency == amount.currency else 0
    if promotion.percent_off_bps is None:
        return 0
    value = share_down(amount.value, promotion.percent_off_bps)
    if promotion.cap is None:
        return value
    return min(value, promotion.cap.value) if promotion.cap.currency == amount.currency else 0


def _most_valuable_first(coupon: Coupon) -> tuple[int, datetime, str]:
    return (-coupon.value, coupon.promotion.expires_at or _NEVER, coupon.promotion.promotion_id)


def usable(coupons: Iterable[Coupon], kinds: frozenset[Kind], bank: str | None) -> list[Coupon]:
    """Those that may be used for a payment of these kinds (a combined payment has two, and needs both) with this bank."""
    return [
        coupon
        for coupon in coupons
        if (not coupon.promotion.kinds or kinds <= coupon.promotion.kinds)
        and (coupon.promotion.banks is None or bank in coupon.promotion.banks)
    ]


def best(coupons: list[Coupon], amount: Money, floor: int) -> Discounts:
    """The best legal set of `coupons` (as `usable` gives them) that leaves nothing of `amount`, or at least `floor`."""
    if not coupons:
        return NONE
    chosen = _best_unbounded(coupons, amount.value)
    left = amount.value - sum(coupon.value for coupon in chosen)
    if 0 < left < floor:
        chosen = _best_within(coupons, amount.value - floor)
    return _spread(chosen, amount)


def _best_unbounded(coupons: list[Coupon], amount: int) -> list[Coupon]:
    """With independent values this is exact: the best of each group, or the best one alone."""
    stack: list[Coupon] = []
    groups: set[str] = set()
    total = 0
    for coupon in coupons:
        promotion = coupon.promotion
        if total >= amount:
            break
        if promotion.stackable and promotion.group not in groups:
            groups.add(promotion.group)
            stack.append(coupon)
            total += coupon.value
    # A single one that saves as much is better than several: `coupons` begins with the most valuable.
    return [coupons[0]] if coupons[0].value >= total else stack


def _best_within(coupons: list[Coupon], limit: int) -> list[Coupon]:
    """The best legal set worth at most `limit`: branch and bound, most valuable first, at most MAX_STEPS steps."""
    if limit <= 0:
        return []
    alone = next(([coupon] for coupon in coupons if coupon.value <= limit), [])
    stackable = [coupon for coupon in coupons if coupon.promotion.stackable and coupon.value <= limit][:MAX_SEARCHED]
    search = _Search(stackable, limit)
    search.descend(0, 0, [], frozenset())
    return alone if alone and alone[0].value >= search.best_value else search.best_set


class _Search:
    """Depth first through the stackable coupons, with the sum of the rest of them as the bound."""

    def __init__(self, coupons: list[Coupon], limit: int) -> None:
        self.coupons = coupons
        self.limit = limit
        self.steps = MAX_STEPS
        self.best_value = 0
        self.best_set: list[Coupon] = []
        self.rest = [0] * (len(coupons) + 1)
        for index in range(len(coupons) - 1, -1, -1):
            self.rest[index] = self.rest[index + 1] + coupons[index].value

    def descend(self, index: int, value: int, taken: list[Coupon], groups: frozenset[str]) -> None:
        better = value > self.best_value or (value == self.best_value and len(taken) < len(self.best_set))
        if better:
            self.best_value, self.best_set = value, taken
        self.steps -= 1
        if index == len(self.coupons) or self.steps < 0 or value + self.rest[index] < self.best_value:
            return
        coupon = self.coupons[index]
        group = coupon.promotion.group
        if group not in groups and value + coupon.value <= self.limit:
            self.descend(index + 1, value + coupon.value, [*taken, coupon], groups | {group})
        self.descend(index + 1, value, taken, groups)


def _spread(chosen: list[Coupon], amount: Money) -> Discounts:
    """As discounts that add up exactly: the last one gives only what is left of the order."""
    left = amount.value
    discounts = []
    for coupon in chosen:
        value = min(coupon.value, left)
        left -= value
        promotion = coupon.promotion
        discounts.append(Discount(promotion.promotion_id, promotion.title, Money(amount.currency, value)))
    return Discounts(tuple(discounts), amount.value - left)
