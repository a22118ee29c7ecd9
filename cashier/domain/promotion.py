"""The best legal set of discounts for one way to pay.

The law: a promotion counts when its currency is the order's, it has not expired, the order reaches its threshold, and the kind and
the bank are among those it names. Of a group one may be used. One that is not stackable is used alone. Each is computed on the order's
amount, not on what others left of it, so a set has one value whatever its sequence. Together they never exceed the order.

The best: saves most, then uses fewest promotions, then has the more valuable ones, those that expire first, the smaller ids. One thing
makes it more than taking the best of each group: a channel has a minimum. A set that leaves something, but less than that minimum, makes
the way unusable, so it must leave more (or bring the order to zero), and then the best set is a knapsack: `knapsack`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import Struct

from cashier.domain.facts import Promotion
from cashier.domain.knapsack import MAX_STEPS, Search
from cashier.domain.method import Discount, Kind
from cashier.domain.money import Money, share_down
from cashier.domain.order import Order

# Of more promotions than this the least valuable are not looked at: a bound on the time, far above what anybody is offered.
MAX_COUNTED = 1_000
_NO_KINDS: frozenset[Kind] = frozenset()
_NEVER = datetime.max.replace(tzinfo=UTC)


class Coupon(Struct, frozen=True, gc=False):
    """A promotion that this order reaches, and what it takes off, in minor units and as the payer sees it."""

    promotion: Promotion
    value: int
    discount: Discount


class Discounts(Struct, frozen=True, gc=False):
    """A legal set, and what it takes off in all."""

    discounts: tuple[Discount, ...]
    total: int


NONE = Discounts((), 0)


def reached(promotions: Iterable[Promotion], order: Order, now: datetime) -> list[Coupon]:
    """The promotions that count for this order, most valuable first."""
    amount = order.amount
    currency, total = amount.currency, amount.value
    coupons = []
    for promotion in promotions:
        threshold = promotion.threshold
        if threshold.currency != currency or threshold.value > total:
            continue
        if promotion.expires_at is not None and promotion.expires_at <= now:
            continue
        value = min(_value(promotion, amount), total)
        if value > 0:
            coupons.append(Coupon(promotion, value, Discount(promotion.promotion_id, promotion.title, Money(currency, value))))
    coupons.sort(key=_most_valuable_first)
    return coupons[:MAX_COUNTED]


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


class Coupons:
    """The promotions that count for one order. Remembers what it found: ways that differ only in a kind or a bank that no promotion
    names cost the same, and most ways do.

    One allowance of search steps serves all ways of an order, so that no answer of marketing's, however strange, takes long. Past it a
    set is still legal, only perhaps not the best.
    """

    __slots__ = ("_all", "_amount", "_unbounded", "banks", "kinds", "steps_left")

    def __init__(self, promotions: Iterable[Promotion], order: Order, now: datetime) -> None:
        self._amount = order.amount
        self._all = reached(promotions, order, now)
        self.steps_left = MAX_STEPS
        self._unbounded: dict[tuple[frozenset[Kind], str | None], Discounts] = {}
        self.kinds: frozenset[str] = frozenset().union(*[coupon.promotion.kinds for coupon in self._all])
        self.banks: frozenset[str] = frozenset().union(*[coupon.promotion.banks or () for coupon in self._all])

    def best(self, kinds: frozenset[Kind], bank: str | None, floor: int) -> Discounts:
        """The best legal set for a payment of these kinds (a combined payment has two, and needs both) with this bank that leaves
        nothing, or at least `floor`."""
        if not self._all:
            return NONE
        key = (_NO_KINDS if kinds.isdisjoint(self.kinds) else kinds, bank if bank in self.banks else None)
        discounts = self._unbounded.get(key)
        if discounts is None:
            discounts = self._unbounded[key] = _best_unbounded(usable(self._all, kinds, bank), self._amount)
        left = self._amount.value - discounts.total
        if 0 < left < floor:
            return self._best_within(usable(self._all, kinds, bank), self._amount.value - floor)
        return discounts

    def _best_within(self, coupons: list[Coupon], limit: int) -> Discounts:
        """The best legal set worth at most `limit`."""
        if limit <= 0:
            return NONE
        fitting = [coupon for coupon in coupons if coupon.value <= limit]
        stackable = [coupon for coupon in fitting if coupon.promotion.stackable]
        search = Search([coupon.value for coupon in stackable], [coupon.promotion.group for coupon in stackable], limit, self.steps_left)
        self.steps_left = max(0, search.steps)
        # One alone that saves as much is better than several, and `fitting` begins with the most valuable.
        if fitting and fitting[0].value >= search.value:
            return Discounts((fitting[0].discount,), fitting[0].value)
        return Discounts(tuple([stackable[index].discount for index in search.chosen]), search.value)


def usable(coupons: Iterable[Coupon], kinds: frozenset[Kind], bank: str | None) -> list[Coupon]:
    return [
        coupon
        for coupon in coupons
        if (not coupon.promotion.kinds or kinds <= coupon.promotion.kinds)
        and (coupon.promotion.banks is None or bank in coupon.promotion.banks)
    ]


def _best_unbounded(coupons: list[Coupon], amount: Money) -> Discounts:
    """With independent values this is exact: the best of each group, or the best one alone."""
    if not coupons:
        return NONE
    stack: list[Discount] = []
    groups: set[str] = set()
    total, most = 0, amount.value
    for coupon in coupons:
        promotion = coupon.promotion
        if promotion.stackable and promotion.group not in groups:
            groups.add(promotion.group)
            stack.append(coupon.discount)
            total += coupon.value
            if total >= most:
                stack[-1] = _reduced(coupon.discount, total - most)
                total = most
                break
    alone = coupons[0]
    return Discounts((alone.discount,), alone.value) if alone.value >= total else Discounts(tuple(stack), total)


def _reduced(discount: Discount, by: int) -> Discount:
    """What is left of the order is less than the last one promises."""
    if not by:
        return discount
    return Discount(discount.promotion_id, discount.title, Money(discount.amount.currency, discount.amount.value - by))
