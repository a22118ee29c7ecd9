"""The facts that a rule compares, with their source: what an operator has to look at.

They describe a decision and take no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.explanation.evidence import CLOCK, CONFIGURATION, REQUEST, Evidence
from cashier.domain.explanation.rules import Rule
from cashier.domain.explanation.schema import Fact
from cashier.domain.facts import Account, Agreement, Card, Channel, Channels
from cashier.domain.kinds import complete
from cashier.domain.money import MAX_VALUE, Money
from cashier.domain.pay_method import Kind, LegType, Limits
from cashier.domain.quote import Quote
from cashier.domain.split_payment import ID_SUFFIX
from cashier.source_errors import Missing

# Name, value and source.
NamedFact: TypeAlias = tuple[str, Any, str]


class Subject(Struct, frozen=True):
    """The method that a rule was applied to, and its quote there."""

    evidence: Evidence
    case: ConsultationCase
    kind: Kind
    method_id: str
    quote: Quote

    @property
    def instrument_id(self) -> str:
        return self.method_id.partition(":")[2].removesuffix(ID_SUFFIX)

    @property
    def card(self) -> Card | None:
        """Of a split payment, the card that completes the balance."""
        held = self.case.facts.card
        ids = {leg.id for leg in self.quote.legs if leg.type is LegType.CHANNEL} or {self.instrument_id}
        return None if isinstance(held, Missing) else next((card for card in held.cards if card.card_id in ids), None)

    @property
    def agreement(self) -> Agreement | None:
        held = self.case.facts.card
        found = () if isinstance(held, Missing) else held.agreements
        return next((each for each in found if each.agreement_id == self.instrument_id), None)

    @property
    def account(self) -> Account | None:
        held = self.case.facts.balance
        found = () if isinstance(held, Missing) else held.accounts
        return next((each for each in found if each.account_id == self.instrument_id), None)

    @property
    def carried(self) -> Any:
        """What the instrument that is tested pays: of a split payment, the card's part."""
        part = next((leg.amount for leg in self.quote.legs if leg.type is LegType.CHANNEL), None)
        return part or (self.quote.amounts and self.quote.amounts.payable)


def facts_of(
    evidence: Evidence, rule: Rule, case: ConsultationCase, kind: Kind, method_id: str, quote: Quote
) -> tuple[Fact, ...]:
    named = _FACTS[rule](Subject(evidence, case, kind, method_id, quote))
    return tuple(evidence.fact(name, _plain(value), source) for name, value, source in named)


def _plain(value: Any) -> Any:
    """Text for amounts and times; sorted lists for sets."""
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    return value if value is None or isinstance(value, (str, int, list)) else str(value)


def _terms(key: str) -> Callable[[Subject], NamedFact]:
    """A key of the kind's terms."""

    def fact(subject: Subject) -> NamedFact:
        terms = subject.case.catalog.methods[subject.kind]
        return (f"methods.{subject.kind}.{key}", getattr(terms, key), CONFIGURATION)

    return fact


def _filter(key: str, name: str, value: Callable[[ConsultationCase], Any], source: str) -> Callable[..., Any]:
    def facts(subject: Subject) -> Iterator[NamedFact]:
        yield (name, value(subject.case), source)
        yield _terms(key)(subject)

    return facts


def _channel(key: str, *more: Callable[[Subject], NamedFact]) -> Callable[[Subject], Iterator[NamedFact]]:
    """A field of the channel, and what it is compared with."""

    def facts(subject: Subject) -> Iterator[NamedFact]:
        channel = subject.quote.channel
        if isinstance(channel, Channel):
            yield (f"channel {channel.channel_id} {key}", getattr(channel, key), "channel")
        for each in more:
            yield each(subject)

    return facts


def _payable(subject: Subject) -> NamedFact:
    return ("payable amount", subject.carried, "order")


def _product(subject: Subject) -> NamedFact:
    return ("product", subject.case.request.product, REQUEST)


def _terminal(subject: Subject) -> NamedFact:
    return ("terminal", subject.case.request.terminal, REQUEST)


def _currency(subject: Subject) -> NamedFact:
    return ("order currency", subject.case.currency, "order")


def _offered(subject: Subject) -> Iterator[NamedFact]:
    yield _terms("offered")(subject)


def _contract(subject: Subject) -> Iterator[NamedFact]:
    yield ("merchant kinds", subject.case.facts.merchant.kinds, "merchant")


def _till(subject: Subject) -> Iterator[NamedFact]:
    yield _product(subject)
    yield _terminal(subject)


def _kyc(subject: Subject) -> Iterator[NamedFact]:
    yield ("member kyc_level", subject.case.kyc_level, "member")
    yield _terms("kyc_level")(subject)


def _time(subject: Subject) -> Iterator[NamedFact]:
    yield ("order expires_at", subject.case.facts.order.expires_at, "order")
    yield ("now", subject.case.now, CLOCK)
    yield _terms("needs_s")(subject)


def _instruments(subject: Subject) -> Iterator[NamedFact]:
    source = "balance" if subject.kind is Kind.BALANCE else "card"
    yield _answer(subject, source)


def _held(subject: Subject) -> Iterator[NamedFact]:
    case = subject.case
    if subject.kind is Kind.BALANCE:
        yield ("accounts held", 0, "balance")
    elif subject.kind is Kind.AGREEMENT:
        yield (f"agreements with the merchant {case.facts.order.merchant_id}", 0, "card")
    else:
        yield ("cards held", 0, "card")


def _card_status(subject: Subject) -> Iterator[NamedFact]:
    if subject.card is not None:
        yield (f"card {subject.card.card_id} status", subject.card.status, "card")


def _card_expiry(subject: Subject) -> Iterator[NamedFact]:
    if subject.card is not None:
        yield (f"card {subject.card.card_id} expiry", subject.card.expiry, "card")
    yield ("now", subject.case.now, CLOCK)


def _agreement_status(subject: Subject) -> Iterator[NamedFact]:
    if subject.agreement is not None:
        yield (f"agreement {subject.agreement.agreement_id} status", subject.agreement.status, "card")


def _agreement_currency(subject: Subject) -> Iterator[NamedFact]:
    if subject.agreement is not None:
        yield (f"agreement {subject.agreement.agreement_id} single_max", subject.agreement.single_max, "card")
    yield _currency(subject)


def _account_status(subject: Subject) -> Iterator[NamedFact]:
    if subject.account is not None:
        yield (f"account {subject.account.account_id} status", subject.account.status, "balance")


def _account_currency(subject: Subject) -> Iterator[NamedFact]:
    if subject.account is not None:
        yield (f"account {subject.account.account_id} currency", subject.account.available.currency, "balance")
    yield _currency(subject)


def _balance(subject: Subject) -> Iterator[NamedFact]:
    if subject.account is not None:
        yield (f"account {subject.account.account_id} available", subject.account.available, "balance")
    yield _payable(subject)


def _answer(subject: Subject, source: str) -> NamedFact:
    answer = getattr(subject.case.facts, source)
    return (f"answer of {source}", f"missing ({answer.cause})" if isinstance(answer, Missing) else "there", source)


def _channels_known(subject: Subject) -> Iterator[NamedFact]:
    yield _answer(subject, "channel")


def _quotas_known(subject: Subject) -> Iterator[NamedFact]:
    yield _answer(subject, "quota")


def _channel_exists(subject: Subject) -> Iterator[NamedFact]:
    case, card, agreement = subject.case, subject.card, subject.agreement
    # All that there are: the case may have those of the method only.
    gateway = subject.evidence.answers.get("channel")
    channels = gateway.by_id.values() if isinstance(gateway, Channels) else ()
    offered = [channel.channel_id for channel in channels if channel.kind == subject.kind]
    where = f"{subject.kind} in {case.currency}/{case.facts.order.country}"
    if card is not None:
        yield (f"card {card.card_id} bank, brand and type", [card.bank, card.brand, card.type], "card")
    if agreement is not None:
        yield (f"agreement {agreement.agreement_id} channel_id", agreement.channel_id, "card")
    yield (f"channels of {where}", offered, "channel")


def _limit(period: str) -> Callable[[Subject], Iterator[NamedFact]]:
    def facts(subject: Subject) -> Iterator[NamedFact]:
        limits, refusal = subject.quote.limits, subject.quote.refusal
        if limits is not None or refusal is not None:
            named = refusal.amount if refusal is not None and refusal.amount is not None else _of(limits, period)
            source = "quota" if refusal is None or refusal.source is None else refusal.source
            yield (f"{period} limit, what remains", named, source)
        yield _payable(subject)

    return facts


def _of(limits: Limits | None, period: str) -> Any:
    key = "single" if period == "single" else f"{period}_remaining"
    return None if limits is None else getattr(limits, key)


def _unclear(subject: Subject) -> Iterator[NamedFact]:
    for quota in subject.case.unclear_quotas:
        scope = quota.scope
        narrower = [scope.bank, scope.channel_id, scope.card_id]
        yield ("quota that is not understood", [scope.kind, *[each for each in narrower if each]], "quota")


def _to_pay(subject: Subject) -> Iterator[NamedFact]:
    yield ("order amount", subject.case.amount, "order")
    if subject.case.promotions.most_off:
        most_off = Money(subject.case.currency, min(subject.case.promotions.most_off, MAX_VALUE))
        yield ("promotions, all together", most_off, "marketing")


def _term(subject: Subject) -> Iterator[NamedFact]:
    if subject.quote.term is not None:
        yield (f"term {subject.quote.term.term_id} count", subject.quote.term.count, "channel")
    yield _payable(subject)


_FACTS: Mapping[Rule, Callable[[Subject], Iterator[NamedFact]]] = complete(
    "domain.explanation.facts",
    {
        Rule.SOMETHING_TO_PAY: _to_pay,
        Rule.KIND_OFFERED: _offered,
        Rule.MERCHANT_CONTRACT: _contract,
        Rule.NOT_AT_TILL: _till,
        Rule.KIND_PRODUCT: _filter("products", "product", lambda case: case.request.product, REQUEST),
        Rule.KIND_TERMINAL: _filter("terminals", "terminal", lambda case: case.request.terminal, REQUEST),
        Rule.KIND_COUNTRY: _filter("countries", "order country", lambda case: case.facts.order.country, "order"),
        Rule.KIND_CURRENCY: _filter("currencies", "order currency", lambda case: case.currency, "order"),
        Rule.KYC_LEVEL: _kyc,
        Rule.TIME_LEFT: _time,
        Rule.INSTRUMENTS_KNOWN: _instruments,
        Rule.INSTRUMENT_HELD: _held,
        Rule.CARD_STATUS: _card_status,
        Rule.CARD_EXPIRY: _card_expiry,
        Rule.AGREEMENT_STATUS: _agreement_status,
        Rule.AGREEMENT_CURRENCY: _agreement_currency,
        Rule.ACCOUNT_STATUS: _account_status,
        Rule.ACCOUNT_CURRENCY: _account_currency,
        Rule.CHANNELS_KNOWN: _channels_known,
        Rule.CHANNEL_EXISTS: _channel_exists,
        Rule.CHANNEL_PRODUCT: _channel("products", _product),
        Rule.CHANNEL_TERMINAL: _channel("terminals", _terminal),
        Rule.CHANNEL_CURRENCY: _channel("currencies", _currency),
        Rule.CHANNEL_OPEN: _channel("status"),
        Rule.AMOUNT_STEP: _channel("step", _payable),
        Rule.AMOUNT_MINIMUM: _channel("min", _payable),
        Rule.SINGLE_LIMIT: _limit("single"),
        Rule.DAILY_LIMIT: _limit("daily"),
        Rule.MONTHLY_LIMIT: _limit("monthly"),
        Rule.BALANCE_SUFFICIENT: _balance,
        Rule.QUOTAS_KNOWN: _quotas_known,
        Rule.QUOTAS_CLEAR: _unclear,
        Rule.INSTALMENT_SIZE: _term,
    },
    Rule,
)
