"""The best legal set of discounts for one payment method.

A promotion applies if its currency is the order's, it has not expired, the order reaches its
threshold, and it allows the kind and the bank. At most one promotion per group is used; one that is
not stackable is used alone. Each is computed on the order's amount without other discounts, so
the value of a set does not depend on its order. Together they never exceed the order.

A channel that carries only multiples of a step gets discounts in multiples of it: each is rounded
down, one that becomes zero does not apply. One that covers the whole order stays whole, because the
channel then carries nothing.

The best set saves most, then uses the fewest promotions, then prefers higher values, earlier
expiries and smaller ids. The best of each group is that set, except near a channel's minimum: a
remainder below the minimum makes the method unusable. The set must then leave nothing or at least
the minimum, and finding the best one is a knapsack problem: see `knapsack`.

At a till a set must leave something: it is that which the payer shows or confirms. Without it the
promotions of a member would be used up by naming the member.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum

from msgspec import UNSET, Struct, UnsetType

from cashier.domain.facts import Promotion
from cashier.domain.knapsack import MAX_STEPS, KnapsackSearch
from cashier.domain.money import Money, in_steps_down, share_down
from cashier.domain.order import Order
from cashier.domain.pay_method import Amounts, Discount, Kind, OfferedPromotion

# Bounds the time. Beyond this number the least valuable are dropped; real users have far fewer.
MAX_APPLICABLE = 1_000
# A method lists no more than a request may choose, twice over: a payer cannot read more.
MAX_LISTED = 32
_NO_KINDS: frozenset[Kind] = frozenset()
_NO_NAMES: frozenset[str] = frozenset()
_NEVER = datetime.max.replace(tzinfo=UTC)


class ApplicablePromotion(Struct, frozen=True, gc=False):
    """A promotion that applies to this order, and its value: in minor units, and for display."""

    promotion: Promotion
    value: int
    discount: Discount


class Discounts(Struct, frozen=True, gc=False):
    """A legal set of discounts and their sum in minor units.

    `applying`: all promotions that apply, chosen or not, most valuable first. `offered`: them for
    the answer, with the best legal set marked; UNSET if there is none.
    """

    discounts: tuple[Discount, ...]
    total: int
    applying: Sequence[ApplicablePromotion] = ()
    offered: tuple[OfferedPromotion, ...] | UnsetType = UNSET


class DiscountedPrice(Struct, frozen=True, gc=False):
    """A price and its discounts. Holding the price keeps its identity its own."""

    amounts: Amounts
    discounts: Discounts


class SearchBudget:
    """The search steps that are left for an order."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps = MAX_STEPS


NO_DISCOUNTS = Discounts((), 0)


def applicable_promotions(promotions: Iterable[Promotion], order: Order, now: datetime) -> list[ApplicablePromotion]:
    """The promotions that apply to this order with some kind and bank, most valuable first."""
    amount = order.amount
    currency = amount.currency
    applicable = []
    for promotion in promotions:
        value = value_of(promotion, amount, now)
        if type(value) is int:
            discount = Discount(promotion.promotion_id, promotion.title, Money(currency, value))
            applicable.append(ApplicablePromotion(promotion, value, discount))
    applicable.sort(key=_most_valuable_first)
    return applicable[:MAX_APPLICABLE]


class Inapplicable(StrEnum):
    """Why a promotion does not apply to an order, whatever the kind and the bank."""

    OTHER_CURRENCY = "OTHER_CURRENCY"
    BELOW_THRESHOLD = "BELOW_THRESHOLD"
    EXPIRED = "EXPIRED"
    NO_VALUE = "NO_VALUE"


# Enum members for the hot path: see `refusal`.
_OTHER_CURRENCY, _BELOW_THRESHOLD = Inapplicable.OTHER_CURRENCY, Inapplicable.BELOW_THRESHOLD
_EXPIRED, _NO_VALUE = Inapplicable.EXPIRED, Inapplicable.NO_VALUE


def value_of(promotion: Promotion, amount: Money, now: datetime) -> int | Inapplicable:
    """What the promotion takes off an order of this amount, in minor units; at least 1."""
    threshold, currency, total = promotion.threshold, amount.currency, amount.value
    if threshold.currency != currency:
        return _OTHER_CURRENCY
    if threshold.value > total:
        return _BELOW_THRESHOLD
    if promotion.expires_at is not None and promotion.expires_at <= now:
        return _EXPIRED
    off, cap = promotion.amount_off, promotion.cap
    if off is not None:
        if off.currency != currency:
            return _OTHER_CURRENCY
        value = off.value
    elif promotion.percent_off_bps is None:
        return _NO_VALUE
    else:
        value = share_down(total, promotion.percent_off_bps)
        if cap is not None:
            if cap.currency != currency:
                return _OTHER_CURRENCY
            value = min(value, cap.value)
    return min(value, total) or _NO_VALUE


def _most_valuable_first(applicable: ApplicablePromotion) -> tuple[int, datetime, str]:
    promotion = applicable.promotion
    return (-applicable.value, promotion.expires_at or _NEVER, promotion.promotion_id)


class UsablePromotions:
    """The promotions for a payment of certain kinds, most valuable first.

    `banks`: those that the promotions name. Most methods have none of them and share one price, so
    results are cached. `prices`: `Amounts` by channel minimum, fee in basis points and step, and by
    bank if it is one of `banks`.
    """

    __slots__ = (
        "_amount",
        "_best",
        "_budget",
        "_has_bank_filters",
        "_must_leave",
        "banks",
        "prices",
        "promotions",
    )

    def __init__(
        self, promotions: list[ApplicablePromotion], amount: Money, budget: SearchBudget, must_leave: bool
    ) -> None:
        self.promotions = promotions
        self._amount = amount
        self._budget = budget
        self._must_leave = must_leave
        self._best: dict[tuple[str | None, int] | str | None, Discounts] = {}
        self._has_bank_filters = False
        self.banks = _NO_NAMES
        for applicable in promotions:
            if applicable.promotion.banks is not None:
                self._has_bank_filters, self.banks = True, self.banks | applicable.promotion.banks
        self.prices: dict[tuple[int, int, int] | tuple[str | None, tuple[int, int, int]], Amounts] = {}

    def best(self, bank: str | None, floor: int, step: int) -> Discounts:
        """The best legal set with this bank that leaves 0, or at least `floor` minor units.

        At a till it leaves something. Values are multiples of `step`.
        """
        if not self.promotions:
            return NO_DISCOUNTS
        if bank not in self.banks:
            bank = None
        # Most channels have no step, and a tuple is one more object per kind.
        key: tuple[str | None, int] | str | None = bank if step == 1 else (bank, step)
        discounts = self._best.get(key)
        if discounts is None:
            discounts = self._best[key] = _best_without_floor(self.usable(bank, step), self._amount)
        rest = self._amount.value - discounts.total
        if rest < floor if rest else self._must_leave:
            return _best_within(discounts.applying, self._amount.value - max(floor, 1), self._budget)
        return discounts

    def usable(self, bank: str | None, step: int) -> list[ApplicablePromotion]:
        """Those that allow this bank, with values in multiples of `step`."""
        usable = self.promotions
        if self._has_bank_filters:
            usable = [
                applicable
                for applicable in usable
                if applicable.promotion.banks is None or bank in applicable.promotion.banks
            ]
        return usable if step == 1 else _in_steps(usable, self._amount, step)


class ChosenPromotions(UsablePromotions):
    """Those of `usable` that the payer chose. They set the price; the answer offers all."""

    __slots__ = ("_all",)

    def __init__(
        self, chosen: list[ApplicablePromotion], amount: Money, budget: SearchBudget, usable: UsablePromotions
    ) -> None:
        super().__init__(chosen, amount, budget, usable._must_leave)
        self._all = usable
        # Prices are kept apart wherever the offered promotions differ.
        self.banks = usable.banks

    def best(self, bank: str | None, floor: int, step: int) -> Discounts:
        chosen, best = super().best(bank, floor, step), self._all.best(bank, floor, step)
        return Discounts(chosen.discounts, chosen.total, best.applying, best.offered)


class OrderPromotions:
    """The promotions that apply to one order, by the kinds that allow them.

    All methods of an order share one search budget, so no marketing answer can take long. When it
    is used up, a set is still legal, but perhaps not the best. `most_off`: no set takes off more.
    `at_till`: what covers the whole order does not apply, alone or in a set. `chosen_of`: all of
    the order's, if these are only the ones that the payer chose.
    """

    __slots__ = (
        "_amount",
        "_budget",
        "_chosen_of",
        "_must_leave",
        "_named_kinds",
        "_usable",
        "applicable",
        "most_off",
    )

    def __init__(
        self,
        promotions: Iterable[Promotion],
        order: Order,
        now: datetime,
        *,
        at_till: bool = False,
        chosen_of: OrderPromotions | None = None,
    ) -> None:
        self._amount = order.amount
        self.applicable = applicable_promotions(promotions, order, now)
        self._must_leave = at_till
        if at_till:
            self.applicable = [each for each in self.applicable if each.value < order.amount.value]
        self._budget = SearchBudget()
        self._chosen_of = chosen_of
        self._named_kinds: frozenset[str] = _NO_NAMES if chosen_of is None else chosen_of._named_kinds
        self.most_off = 0
        for applicable in self.applicable:
            self.most_off += applicable.value
            if applicable.promotion.kinds:
                self._named_kinds |= applicable.promotion.kinds
        self._usable: dict[frozenset[Kind], UsablePromotions] = {}

    def usable_with(self, kinds: frozenset[Kind]) -> UsablePromotions:
        """The promotions that allow all of `kinds`: a split payment has two."""
        key = _NO_KINDS if kinds.isdisjoint(self._named_kinds) else kinds
        usable = self._usable.get(key)
        if usable is None:
            usable = self._usable[key] = self._allowing(kinds)
        return usable

    def _allowing(self, kinds: frozenset[Kind]) -> UsablePromotions:
        allowed = [
            applicable
            for applicable in self.applicable
            if not applicable.promotion.kinds or kinds <= applicable.promotion.kinds
        ]
        if self._chosen_of is None:
            return UsablePromotions(allowed, self._amount, self._budget, self._must_leave)
        return ChosenPromotions(allowed, self._amount, self._budget, self._chosen_of.usable_with(kinds))

    @property
    def key(self) -> Hashable | None:
        """What the discounts at one amount and place follow from. None: more than is worth it.

        The promotions themselves, not their ids: another payer's may have the same.
        """
        if len(self.applicable) > MAX_LISTED:
            return None
        own = tuple([each.promotion for each in self.applicable])
        return (own, self.steps_left, None if self._chosen_of is None else self._chosen_of.key)

    @property
    def steps_left(self) -> int:
        return self._budget.steps

    def best(self, kinds: frozenset[Kind], bank: str | None, floor: int, step: int = 1) -> Discounts:
        return self.usable_with(kinds).best(bank, floor, step)


def _offering(discounts: tuple[Discount, ...], total: int, applying: Sequence[ApplicablePromotion]) -> Discounts:
    """`discounts`: the best legal set of those that apply."""
    in_best, listed = {discount.promotion_id for discount in discounts}, applying
    if len(applying) > MAX_LISTED:
        # A stable sort: the best set first, then the most valuable.
        listed = sorted(applying, key=lambda each: each.discount.promotion_id not in in_best)[:MAX_LISTED]
    offered = [
        OfferedPromotion(
            (discount := each.discount).promotion_id, discount.title, discount.amount, discount.promotion_id in in_best
        )
        for each in listed
    ]
    return Discounts(discounts, total, applying, tuple(offered))


def _in_steps(promotions: list[ApplicablePromotion], amount: Money, step: int) -> list[ApplicablePromotion]:
    """The same with multiples of `step`, most valuable first."""
    stepped = []
    for applicable in promotions:
        if applicable.value == amount.value or applicable.value % step == 0:
            stepped.append(applicable)
        elif applicable.value > step:
            value, discount = in_steps_down(applicable.value, step), applicable.discount
            rounded = Discount(discount.promotion_id, discount.title, Money(amount.currency, value))
            stepped.append(ApplicablePromotion(applicable.promotion, value, rounded))
    stepped.sort(key=_most_valuable_first)
    return stepped


def _best_without_floor(promotions: list[ApplicablePromotion], amount: Money) -> Discounts:
    """The best of each group, or the best one alone. Exact, because values are independent."""
    if not promotions:
        return NO_DISCOUNTS
    stack: list[Discount] = []
    groups: set[str] = set()
    total, order_value = 0, amount.value
    for applicable in promotions:
        promotion = applicable.promotion
        if promotion.stackable and promotion.group not in groups:
            groups.add(promotion.group)
            stack.append(applicable.discount)
            total += applicable.value
            if total >= order_value:
                stack[-1] = _reduced(applicable.discount, total - order_value)
                total = order_value
                break
    alone = promotions[0]
    if alone.value >= total:
        return _offering((alone.discount,), alone.value, promotions)
    return _offering(tuple(stack), total, promotions)


def _best_within(promotions: Sequence[ApplicablePromotion], limit: int, budget: SearchBudget) -> Discounts:
    """The best legal set worth at most `limit`."""
    if limit <= 0:
        return _offering((), 0, promotions)
    fitting = [applicable for applicable in promotions if applicable.value <= limit]
    stackable = [applicable for applicable in fitting if applicable.promotion.stackable]
    search = KnapsackSearch(
        [applicable.value for applicable in stackable],
        [applicable.promotion.group for applicable in stackable],
        limit,
        budget.steps,
    )
    budget.steps = max(0, search.steps)
    # At equal savings one promotion is better than several. `fitting` is sorted by value.
    if fitting and fitting[0].value >= search.value:
        return _offering((fitting[0].discount,), fitting[0].value, promotions)
    return _offering(tuple([stackable[index].discount for index in search.chosen]), search.value, promotions)


def _reduced(discount: Discount, by: int) -> Discount:
    """The last discount of a set, cut to what is left of the order."""
    if not by:
        return discount
    return Discount(discount.promotion_id, discount.title, Money(discount.amount.currency, discount.amount.value - by))
