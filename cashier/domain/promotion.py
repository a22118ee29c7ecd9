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
from cashier.domain.knapsack import MAX_STEPS, KnapsackSearch
from cashier.domain.money import Money, share_down
from cashier.domain.order import Order
from cashier.domain.pay_method import Amounts, Discount, Kind

# Of more promotions than this the least valuable are not looked at: a bound on the time, far above what anybody is offered.
MAX_COUNTED = 1_000
_NO_KINDS: frozenset[Kind] = frozenset()
_NOTHING: frozenset[str] = frozenset()
_NEVER = datetime.max.replace(tzinfo=UTC)


class ApplicablePromotion(Struct, frozen=True, gc=False):
    """A promotion that this order reaches, and what it takes off, in minor units and as the payer sees it."""

    promotion: Promotion
    value: int
    discount: Discount


class Discounts(Struct, frozen=True, gc=False):
    """A legal set, and what it takes off in all."""

    discounts: tuple[Discount, ...]
    total: int


class SearchBudget:
    """How many steps of search are left for an order."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps = MAX_STEPS


NO_DISCOUNTS = Discounts((), 0)


def applicable_promotions(promotions: Iterable[Promotion], order: Order, now: datetime) -> list[ApplicablePromotion]:
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
            coupons.append(
                ApplicablePromotion(promotion, value, Discount(promotion.promotion_id, promotion.title, Money(currency, value)))
            )
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


def _most_valuable_first(coupon: ApplicablePromotion) -> tuple[int, datetime, str]:
    return (-coupon.value, coupon.promotion.expires_at or _NEVER, coupon.promotion.promotion_id)


class UsablePromotions:
    """The promotions that a payment of certain kinds could use, most valuable first, and `banks`, those that they name. Remembers what
    it found, and by `prices` what that comes to: ways that differ only in a bank that none of them names cost the same, and most do."""

    __slots__ = ("_allowance", "_amount", "_coupons", "_narrowed", "_unbounded", "banks", "prices")

    def __init__(self, coupons: list[ApplicablePromotion], amount: Money, allowance: SearchBudget) -> None:
        self._coupons = coupons
        self._amount = amount
        self._allowance = allowance
        self._unbounded: dict[str | None, Discounts] = {}
        self._narrowed = False
        self.banks = _NOTHING
        for coupon in coupons:
            if coupon.promotion.banks is not None:
                self._narrowed, self.banks = True, self.banks | coupon.promotion.banks
        # By bank, what the channel carries at least, and the fee in basis points.
        self.prices: dict[tuple[str | None, int, int], Amounts] = {}

    def best(self, bank: str | None, floor: int) -> Discounts:
        """The best legal set for a payment with this bank that leaves nothing, or at least `floor`."""
        if not self._coupons:
            return NO_DISCOUNTS
        if bank not in self.banks:
            bank = None
        discounts = self._unbounded.get(bank)
        if discounts is None:
            discounts = self._unbounded[bank] = _best_unbounded(self._with(bank), self._amount)
        left = self._amount.value - discounts.total
        if 0 < left < floor:
            return _best_within(self._with(bank), self._amount.value - floor, self._allowance)
        return discounts

    def _with(self, bank: str | None) -> list[ApplicablePromotion]:
        if not self._narrowed:
            return self._coupons
        return [coupon for coupon in self._coupons if coupon.promotion.banks is None or bank in coupon.promotion.banks]


class OrderPromotions:
    """The promotions that count for one order, by the kinds that they may be used with. Most kinds are named by none.

    One allowance of search steps serves all ways of an order, so that no answer of marketing's, however strange, takes long. Past it a
    set is still legal, only perhaps not the best.
    """

    __slots__ = ("_all", "_allowance", "_amount", "_kinds", "_usable")

    def __init__(self, promotions: Iterable[Promotion], order: Order, now: datetime) -> None:
        self._amount = order.amount
        self._all = applicable_promotions(promotions, order, now)
        self._allowance = SearchBudget()
        self._kinds = _NOTHING
        for coupon in self._all:
            if coupon.promotion.kinds:
                self._kinds |= coupon.promotion.kinds
        self._usable: dict[frozenset[Kind], UsablePromotions] = {}

    def of(self, kinds: frozenset[Kind]) -> UsablePromotions:
        """Those for a payment of these kinds: a combined payment has two, and needs both."""
        key = _NO_KINDS if kinds.isdisjoint(self._kinds) else kinds
        found = self._usable.get(key)
        if found is None:
            its = [coupon for coupon in self._all if not coupon.promotion.kinds or kinds <= coupon.promotion.kinds]
            found = self._usable[key] = UsablePromotions(its, self._amount, self._allowance)
        return found

    @property
    def steps_left(self) -> int:
        return self._allowance.steps

    def best(self, kinds: frozenset[Kind], bank: str | None, floor: int) -> Discounts:
        return self.of(kinds).best(bank, floor)


def _best_unbounded(coupons: list[ApplicablePromotion], amount: Money) -> Discounts:
    """With independent values this is exact: the best of each group, or the best one alone."""
    if not coupons:
        return NO_DISCOUNTS
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


def _best_within(coupons: list[ApplicablePromotion], limit: int, allowance: SearchBudget) -> Discounts:
    """The best legal set worth at most `limit`."""
    if limit <= 0:
        return NO_DISCOUNTS
    fitting = [coupon for coupon in coupons if coupon.value <= limit]
    stackable = [coupon for coupon in fitting if coupon.promotion.stackable]
    search = KnapsackSearch(
        [coupon.value for coupon in stackable], [coupon.promotion.group for coupon in stackable], limit, allowance.steps
    )
    allowance.steps = max(0, search.steps)
    # One alone that saves as much is better than several, and `fitting` begins with the most valuable.
    if fitting and fitting[0].value >= search.value:
        return Discounts((fitting[0].discount,), fitting[0].value)
    return Discounts(tuple([stackable[index].discount for index in search.chosen]), search.value)


def _reduced(discount: Discount, by: int) -> Discount:
    """What is left of the order is less than the last one promises."""
    if not by:
        return discount
    return Discount(discount.promotion_id, discount.title, Money(discount.amount.currency, discount.amount.value - by))
