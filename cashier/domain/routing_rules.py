"""Routing rules, the shape of `routing.toml`: their conditions and their faults.

`routing` applies them.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from cashier.domain.channel_record import ChannelOutcome, LearningSettings, SicknessSettings
from cashier.domain.money import BPS, DIGITS, Money
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind

Words = str | tuple[str, ...]
Amount = Annotated[int, Meta(ge=0)]


class RankBy(StrEnum):
    """The criterion among channels without a preference: cost, live success, or both."""

    COST = "cost"
    SUCCESS = "success"
    BALANCED = "balanced"


class RoutedPayment(Struct, frozen=True):
    """The payment that a channel has to carry.

    `amount`: the channel's part, less than the whole in a split payment. `bank`: the card's bank,
    or the chosen bank, chain or wallet; None if it becomes known only during the payment. `brand`:
    the card's, if known.
    """

    kind: Kind
    amount: Money
    country: str
    terminal: Terminal
    product: Product
    merchant_id: str
    bank: str | None = None
    brand: str | None = None


class RuleCondition(Struct, frozen=True, forbid_unknown_fields=True):
    """`when` of a rule. All given fields must match; of a list, one value.

    Amounts are in minor units, `amount_below` is exclusive.
    """

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

    def matches(self, payment: RoutedPayment) -> bool:
        amount_from, below, value = self.amount_from or 0, self.amount_below, payment.amount.value
        if value < amount_from or (below is not None and value >= below):
            return False
        return all(wanted is None or read(payment) in as_set(wanted) for wanted, read in self._terms())

    def covers(self, other: RuleCondition) -> bool:
        """True if this condition matches every payment that `other` matches."""
        if (self.amount_from or 0) > (other.amount_from or 0):
            return False
        if self.amount_below is not None and (other.amount_below is None or self.amount_below < other.amount_below):
            return False
        pairs = zip(self._terms(), other._terms(), strict=True)
        return all(
            own is None or (others is not None and as_set(own) >= as_set(others)) for (own, _), (others, _) in pairs
        )

    def _terms(self) -> Iterator[tuple[Words | None, Callable[[RoutedPayment], str | None]]]:
        """For each key: the wanted words, and the function that reads the payment's own."""
        yield from zip((getattr(self, key) for key in _READ), _READ.values(), strict=True)


_READ: dict[str, Callable[[RoutedPayment], str | None]] = {
    "kind": lambda payment: payment.kind,
    "brand": lambda payment: payment.brand,
    "bank": lambda payment: payment.bank,
    "merchant": lambda payment: payment.merchant_id,
    "currency": lambda payment: payment.amount.currency,
    "country": lambda payment: payment.country,
    "terminal": lambda payment: payment.terminal,
    "product": lambda payment: payment.product,
}
# Closed sets, so a misspelling can be found. Brands, banks and merchants are named by the
# upstreams.
_KNOWN: dict[str, tuple[str, ...]] = {
    "kind": tuple(Kind),
    "terminal": tuple(Terminal),
    "product": tuple(Product),
    "currency": tuple(DIGITS),
}


class RoutingRule(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[rule]]`. Channels in `prefer` and `avoid` are named by id or by provider.

    `prefer`: before all others and in this order, while not sick. `avoid`: only if no other is
    left. `by`: the order of the rest. The first has all traffic while no other's live success is
    better by more than `within_bps`, then gradually less, and none at twice that. The weights are
    for `balanced`: of one basis point of success and of cost.
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
        """The weights of success and of cost."""
        return (
            1 if self.success_weight is None else self.success_weight,
            1 if self.cost_weight is None else self.cost_weight,
        )

    def faults(self) -> Iterator[str]:
        weighed = self.success_weight is not None or self.cost_weight is not None
        if weighed and self.by is not RankBy.BALANCED:
            yield f'success_weight and cost_weight are for by = "balanced", but this rule has by = "{self.by}"'
        if self.by is RankBy.BALANCED and 0 in self.weights:
            yield 'a weight of 0 is not balanced; use by = "cost" or by = "success"'
        for name in sorted(set(self.prefer) & set(self.avoid)):
            yield f"{name} is both preferred and avoided"
        if self.when is not None:
            yield from _when_faults(self.when)


class FailureAttribution(Struct, frozen=True, forbid_unknown_fields=True):
    """`[blame]` in `routing.toml`: failure codes by cause.

    The cause is the channel, or others (payer, issuer's decision, ourselves). A code in
    neither list counts as half a failure. Counted whole, one new code for "the payer closed the
    page" would make every channel sick; ignored, a new code for an outage would never make one
    sick.
    """

    channel: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    def outcome(self, code: str) -> ChannelOutcome | None:
        """What a failure with this code says about its channel; None for nothing."""
        if code in self.others:
            return None
        return ChannelOutcome.FAILED if code in self.channel else ChannelOutcome.UNSURE

    def faults(self) -> list[str]:
        return [f"routing: [blame] {code} is in both channel and others" for code in sorted(self.channel & self.others)]


class Routing(Struct, frozen=True, forbid_unknown_fields=True):
    """The shape of `routing.toml`.

    The first matching rule applies; the last has no `when`, so one always matches. `codes`:
    prefixes of the codes that a payer shows to be scanned, by provider.
    """

    rule: Annotated[tuple[RoutingRule, ...], Meta(min_length=1)]
    learning: LearningSettings = LearningSettings()
    sick: SicknessSettings = SicknessSettings()
    blame: FailureAttribution = FailureAttribution()
    codes: dict[str, tuple[Annotated[str, Meta(pattern=r"^[0-9]{1,8}(?![\s\S])")], ...]] = {}

    def rule_for(self, payment: RoutedPayment) -> RoutingRule:
        return next(rule for rule in self.rule if rule.when is None or rule.when.matches(payment))

    def provider_of(self, auth_code: str) -> str | None:
        """The provider of a scanned code, by its longest known prefix; None if unknown."""
        matches = [
            (len(prefix), provider)
            for provider, prefixes in self.codes.items()
            for prefix in prefixes
            if auth_code.startswith(prefix)
        ]
        return max(matches)[1] if matches else None

    def faults(self) -> list[str]:
        """One sentence per fault, each beginning with `routing: `. Empty if there is none."""
        faults = [f'routing: [[rule]] "{rule.name}": {fault}' for rule in self.rule for fault in rule.faults()]
        faults += [f"routing: {fault}" for fault in _order_faults(self.rule)]
        prefixes = Counter(prefix for own_prefixes in self.codes.values() for prefix in set(own_prefixes))
        faults += [
            f"routing: [codes] {prefix} belongs to two providers" for prefix in sorted(prefixes) if prefixes[prefix] > 1
        ]
        return faults + self.blame.faults()


def as_set(words: Words) -> frozenset[str]:
    return frozenset((words,)) if isinstance(words, str) else frozenset(words)


def _order_faults(rules: tuple[RoutingRule, ...]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for number, rule in enumerate(rules, 1):
        if rule.name in seen:
            first = seen[rule.name]
            yield (
                f'[[rule]] number {number} is named "{rule.name}" like number {first};'
                " an answer names its rule, so use another name"
            )
        seen.setdefault(rule.name, number)
        for earlier in rules[: number - 1]:
            if earlier.when is None or (rule.when is not None and earlier.when.covers(rule.when)):
                yield f'[[rule]] "{rule.name}" can never match: "{earlier.name}" before it matches all of it'
                break
    if rules[-1].when is not None:
        yield (
            f'[[rule]] "{rules[-1].name}" is the last and has a `when`;'
            " end with a rule without one, for all other payments"
        )


def _when_faults(when: RuleCondition) -> Iterator[str]:
    for key in _READ:
        wanted: Words | None = getattr(when, key)
        if wanted is not None and not as_set(wanted):
            yield f"when.{key} is an empty list, so nothing matches"
        if wanted is not None and key in _KNOWN:
            yield from (_unknown(key, word, _KNOWN[key]) for word in sorted(as_set(wanted) - set(_KNOWN[key])))
    if when.amount_from is None and when.amount_below is None:
        return
    if when.amount_below is not None and (when.amount_from or 0) >= when.amount_below:
        yield (
            f"when.amount_from = {when.amount_from or 0} is not below amount_below = {when.amount_below},"
            " so nothing matches"
        )
    if when.currency is None or len(as_set(when.currency)) != 1:
        yield "amounts are in minor units, so they need one currency; name it in when.currency"


def _unknown(key: str, word: str, known: Iterable[str]) -> str:
    names = [str(name) for name in known]
    near = difflib.get_close_matches(word, names, 1)
    return f"when.{key} = {word!r} is unknown; " + (
        f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names[:12])}"
    )
