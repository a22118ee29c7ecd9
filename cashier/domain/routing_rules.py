"""Route rules: which rule holds for a payment that several channels could carry. The shape of `routing.toml`.

Here is what a rule says and what can be wrong with it; how it is followed is in `routing`.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from cashier.domain.channel_health import LearningSettings, SicknessSettings
from cashier.domain.failure_attribution import FailureAttribution
from cashier.domain.money import BPS, DIGITS, Money
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind

Words = str | tuple[str, ...]
Amount = Annotated[int, Meta(ge=0)]


class RankBy(StrEnum):
    """What is looked at among channels that a rule does not order itself: cost, live success, or both."""

    COST = "cost"
    SUCCESS = "success"
    BALANCED = "balanced"


class RoutedPayment(Struct, frozen=True):
    """What is to be carried. `amount` is what the channel will carry, which is not the whole where a balance gives a part. `bank`: the
    card's bank, or the bank, chain or wallet that was chosen; None where it shows only in paying. `brand`: of a card, where it is known."""

    kind: Kind
    amount: Money
    country: str
    terminal: Terminal
    product: Product
    merchant_id: str
    bank: str | None = None
    brand: str | None = None


class RuleCondition(Struct, frozen=True, forbid_unknown_fields=True):
    """`when`. All that is named must hold; of a list any. `amount_from` is in it, `amount_below` is not; both in minor units."""

    kind: Words | None = None
    brand: Words | None = None
    bank: Words | None = None
    merchant: Words | None = None
    currency: Words | None = None
    country: Words | None = None
    terminal: Words | None = None
    product: Words | None = None
    amount_from: Amount | None = None
    amount_below: Amount | None = None

    def holds(self, passage: RoutedPayment) -> bool:
        least, below, value = self.amount_from or 0, self.amount_below, passage.amount.value
        if value < least or (below is not None and value >= below):
            return False
        return all(wanted is None or found(passage) in as_set(wanted) for wanted, found in self._narrowed())

    def covers(self, other: RuleCondition) -> bool:
        """Whether it holds wherever the other does."""
        if (self.amount_from or 0) > (other.amount_from or 0):
            return False
        if self.amount_below is not None and (other.amount_below is None or self.amount_below < other.amount_below):
            return False
        pairs = zip(self._narrowed(), other._narrowed(), strict=True)
        return all(
            its is None or (theirs is not None and as_set(its) >= as_set(theirs)) for (its, _), (theirs, _) in pairs
        )

    def _narrowed(self) -> Iterator[tuple[Words | None, Callable[[RoutedPayment], str | None]]]:
        yield from zip((getattr(self, key) for key in _FOUND), _FOUND.values(), strict=True)


_FOUND: dict[str, Callable[[RoutedPayment], str | None]] = {
    "kind": lambda passage: passage.kind,
    "brand": lambda passage: passage.brand,
    "bank": lambda passage: passage.bank,
    "merchant": lambda passage: passage.merchant_id,
    "currency": lambda passage: passage.amount.currency,
    "country": lambda passage: passage.country,
    "terminal": lambda passage: passage.terminal,
    "product": lambda passage: passage.product,
}
# Words that can be misspelt. Brands, banks, merchants and countries are whatever the upstreams call them.
_KNOWN: dict[str, tuple[str, ...]] = {
    "kind": tuple(Kind),
    "terminal": tuple(Terminal),
    "product": tuple(Product),
    "currency": tuple(DIGITS),
}


class RoutingRule(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[rule]]`. `prefer`: channels, or all those of a provider, before any other and in this order, while they are not sick. `avoid`:
    only where there is no other. The rest go `by` what is named: the first in its order takes the traffic while the live success of
    none is better by more than `within_bps`, loses it bit by bit as one is, and has none left at twice that.

    The weights are for `balanced`: what one basis point of success and one of cost are worth.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}(?![\s\S])")]
    when: RuleCondition | None = None
    prefer: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    by: RankBy = RankBy.COST
    within_bps: Annotated[int, Meta(ge=10, le=BPS)] = 200
    success_weight: Annotated[int, Meta(ge=0, le=1_000)] | None = None
    cost_weight: Annotated[int, Meta(ge=0, le=1_000)] | None = None

    @property
    def weights(self) -> tuple[int, int]:
        """Of success and of cost."""
        return (
            1 if self.success_weight is None else self.success_weight,
            1 if self.cost_weight is None else self.cost_weight,
        )

    def faults(self) -> Iterator[str]:
        weighed = self.success_weight is not None or self.cost_weight is not None
        if weighed and self.by is not RankBy.BALANCED:
            yield f'success_weight and cost_weight are for by = "balanced", but this rule has by = "{self.by}"'
        if self.by is RankBy.BALANCED and 0 in self.weights:
            yield 'a weight of 0 is not balanced; by = "cost" or by = "success" says the same'
        for doubled in sorted(set(self.prefer) & set(self.avoid)):
            yield f"{doubled} is preferred and avoided"
        if self.when is not None:
            yield from _when_faults(self.when)


class Routing(Struct, frozen=True, forbid_unknown_fields=True):
    """`routing.toml`. The first rule that matches holds; the last has no `when`, so one always does. `codes`: how the codes begin that
    a payer shows to be scanned, by provider."""

    rule: Annotated[tuple[RoutingRule, ...], Meta(min_length=1)]
    learning: LearningSettings = LearningSettings()
    sick: SicknessSettings = SicknessSettings()
    blame: FailureAttribution = FailureAttribution()
    codes: dict[str, tuple[Annotated[str, Meta(pattern=r"^[0-9]{1,8}(?![\s\S])")], ...]] = {}

    def rule_for(self, passage: RoutedPayment) -> RoutingRule:
        return next(rule for rule in self.rule if rule.when is None or rule.when.holds(passage))

    def provider_of(self, auth_code: str) -> str | None:
        """Whose code a payer shows: the longest beginning decides. None for one that is nobody's we know."""
        begins = [
            (len(prefix), provider)
            for provider, prefixes in self.codes.items()
            for prefix in prefixes
            if auth_code.startswith(prefix)
        ]
        return max(begins)[1] if begins else None

    def faults(self) -> list[str]:
        """What is wrong, one sentence each, beginning with `routing: `. Empty when all is well."""
        found = [f'routing: [[rule]] "{rule.name}": {fault}' for rule in self.rule for fault in rule.faults()]
        found += [f"routing: {fault}" for fault in _order_faults(self.rule)]
        prefixes = Counter(prefix for its in self.codes.values() for prefix in set(its))
        found += [
            f"routing: [codes] {prefix} is of two providers" for prefix in sorted(prefixes) if prefixes[prefix] > 1
        ]
        return found + self.blame.faults()


def as_set(words: Words) -> frozenset[str]:
    return frozenset((words,)) if isinstance(words, str) else frozenset(words)


def _order_faults(rules: tuple[RoutingRule, ...]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for number, rule in enumerate(rules, 1):
        if rule.name in seen:
            first = seen[rule.name]
            yield f'[[rule]] number {number} is called "{rule.name}" like number {first}; an answer names its rule, so names differ'
        seen.setdefault(rule.name, number)
        for earlier in rules[: number - 1]:
            if earlier.when is None or (rule.when is not None and earlier.when.covers(rule.when)):
                yield f'[[rule]] "{rule.name}" can never match: "{earlier.name}" before it matches all of it'
                break
    if rules[-1].when is not None:
        yield f'[[rule]] "{rules[-1].name}" is the last and has a `when`; end with a rule without one, for all other payments'


def _when_faults(when: RuleCondition) -> Iterator[str]:
    for key in _FOUND:
        wanted: Words | None = getattr(when, key)
        if wanted is not None and not as_set(wanted):
            yield f"when.{key} is an empty list, which nothing matches"
        if wanted is not None and key in _KNOWN:
            yield from (_unknown(key, word, _KNOWN[key]) for word in sorted(as_set(wanted) - set(_KNOWN[key])))
    if when.amount_from is None and when.amount_below is None:
        return
    if when.amount_below is not None and (when.amount_from or 0) >= when.amount_below:
        yield f"when.amount_from = {when.amount_from or 0} is not below amount_below = {when.amount_below}, so nothing matches"
    if when.currency is None or len(as_set(when.currency)) != 1:
        yield "amounts are in minor units, which mean something in one currency only; name it in when.currency"


def _unknown(key: str, word: str, known: Iterable[str]) -> str:
    names = [str(name) for name in known]
    near = difflib.get_close_matches(word, names, 1)
    return f"when.{key} = {word!r} is unknown; " + (
        f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names[:12])}"
    )
