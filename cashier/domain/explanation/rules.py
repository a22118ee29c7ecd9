"""The rules about a payment method, by name and in order, and which one a refusal came from.

The order is that of the decision: kind, instrument, channel, amount, then what is unknown. What a
rule tests is in the modules that decide; here it only has a name and a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.kinds import KINDS, SHOWN_OR_CONFIRMED, Listing, complete
from cashier.domain.order import at_till
from cashier.domain.pay_method import Kind, ReasonCode
from cashier.domain.quote import Quote
from cashier.domain.refusal import Refusal
from cashier.domain.split_payment import ID_SUFFIX
from cashier.source_errors import Missing


class Rule(StrEnum):
    """In the order of the decision."""

    SOMETHING_TO_PAY = "SOMETHING_TO_PAY"
    KIND_OFFERED = "KIND_OFFERED"
    MERCHANT_CONTRACT = "MERCHANT_CONTRACT"
    NOT_AT_TILL = "NOT_AT_TILL"
    KIND_PRODUCT = "KIND_PRODUCT"
    KIND_TERMINAL = "KIND_TERMINAL"
    KIND_COUNTRY = "KIND_COUNTRY"
    KIND_CURRENCY = "KIND_CURRENCY"
    KYC_LEVEL = "KYC_LEVEL"
    TIME_LEFT = "TIME_LEFT"
    INSTRUMENTS_KNOWN = "INSTRUMENTS_KNOWN"
    INSTRUMENT_HELD = "INSTRUMENT_HELD"
    CARD_STATUS = "CARD_STATUS"
    CARD_EXPIRY = "CARD_EXPIRY"
    AGREEMENT_STATUS = "AGREEMENT_STATUS"
    AGREEMENT_CURRENCY = "AGREEMENT_CURRENCY"
    ACCOUNT_STATUS = "ACCOUNT_STATUS"
    ACCOUNT_CURRENCY = "ACCOUNT_CURRENCY"
    CHANNELS_KNOWN = "CHANNELS_KNOWN"
    CHANNEL_EXISTS = "CHANNEL_EXISTS"
    CHANNEL_PRODUCT = "CHANNEL_PRODUCT"
    CHANNEL_TERMINAL = "CHANNEL_TERMINAL"
    CHANNEL_CURRENCY = "CHANNEL_CURRENCY"
    CHANNEL_OPEN = "CHANNEL_OPEN"
    AMOUNT_STEP = "AMOUNT_STEP"
    AMOUNT_MINIMUM = "AMOUNT_MINIMUM"
    SINGLE_LIMIT = "SINGLE_LIMIT"
    DAILY_LIMIT = "DAILY_LIMIT"
    MONTHLY_LIMIT = "MONTHLY_LIMIT"
    BALANCE_SUFFICIENT = "BALANCE_SUFFICIENT"
    QUOTAS_KNOWN = "QUOTAS_KNOWN"
    QUOTAS_CLEAR = "QUOTAS_CLEAR"
    INSTALMENT_SIZE = "INSTALMENT_SIZE"


_ALL = frozenset(Listing) - {Listing.NOTHING_TO_PAY}
_EVERYWHERE = frozenset(Listing)
_CARD, _AGREEMENT, _ACCOUNT = (
    frozenset((listing,)) for listing in (Listing.PER_CARD, Listing.PER_AGREEMENT, Listing.PER_ACCOUNT)
)
_CARRIED = _ALL - _ACCOUNT


class RuleRow(Struct, frozen=True):
    """`demand`: what the rule demands. `listings`: the kinds of method that it is applied to."""

    demand: str
    listings: frozenset[Listing]


ROWS: Mapping[Rule, RuleRow] = complete(
    "domain.explanation.rules",
    {
        Rule.SOMETHING_TO_PAY: RuleRow("the order must leave something to pay, or for FREE nothing", _EVERYWHERE),
        Rule.KIND_OFFERED: RuleRow("methods.toml must offer the kind", _EVERYWHERE),
        Rule.MERCHANT_CONTRACT: RuleRow("the merchant's record must name the kind", _ALL),
        Rule.NOT_AT_TILL: RuleRow(
            "at a till (SCAN, or POS) no method may charge the user that the till names",
            frozenset((*_CARD, *_AGREEMENT, *_ACCOUNT, Listing.WHOLE_KIND)),
        ),
        Rule.KIND_PRODUCT: RuleRow("methods.toml must allow the kind for the product", _EVERYWHERE),
        Rule.KIND_TERMINAL: RuleRow("methods.toml must allow the kind on the terminal", _EVERYWHERE),
        Rule.KIND_COUNTRY: RuleRow("methods.toml must allow the kind in the order's country", _EVERYWHERE),
        Rule.KIND_CURRENCY: RuleRow("methods.toml must allow the kind in the order's currency", _EVERYWHERE),
        Rule.KYC_LEVEL: RuleRow("the payer's KYC level must reach that of the kind", _EVERYWHERE),
        Rule.TIME_LEFT: RuleRow("the order must last as long as a payer of this kind needs", _EVERYWHERE),
        Rule.INSTRUMENTS_KNOWN: RuleRow(
            "the source that lists the payer's instruments must have answered", _CARD | _AGREEMENT | _ACCOUNT
        ),
        Rule.INSTRUMENT_HELD: RuleRow("the payer must hold an instrument of the kind", _CARD | _AGREEMENT | _ACCOUNT),
        Rule.CARD_STATUS: RuleRow("the card must be active", _CARD),
        Rule.CARD_EXPIRY: RuleRow("the card must not have expired", _CARD),
        Rule.AGREEMENT_STATUS: RuleRow("the agreement must be active", _AGREEMENT),
        Rule.AGREEMENT_CURRENCY: RuleRow("the agreement's limit must be in the order's currency", _AGREEMENT),
        Rule.ACCOUNT_STATUS: RuleRow("the account must be active", _ACCOUNT),
        Rule.ACCOUNT_CURRENCY: RuleRow("the account must be in the order's currency", _ACCOUNT),
        Rule.CHANNELS_KNOWN: RuleRow("the channel gateway must have answered", _CARRIED),
        Rule.CHANNEL_EXISTS: RuleRow("a channel of the kind must accept the instrument", _CARRIED),
        Rule.CHANNEL_PRODUCT: RuleRow("the channel must allow the product", _CARRIED),
        Rule.CHANNEL_TERMINAL: RuleRow("the channel must allow the terminal", _CARRIED),
        Rule.CHANNEL_CURRENCY: RuleRow("the channel and its limits must be in the order's currency", _CARRIED),
        Rule.CHANNEL_OPEN: RuleRow("the channel must be open", _CARRIED),
        Rule.AMOUNT_STEP: RuleRow("the payable amount must be a multiple of the channel's step", _CARRIED),
        Rule.AMOUNT_MINIMUM: RuleRow("the payable amount must reach the channel's minimum", _CARRIED),
        Rule.SINGLE_LIMIT: RuleRow("the payable amount must be within the limit on a single payment", _ALL),
        Rule.DAILY_LIMIT: RuleRow("the payable amount must be within what is left of the day's quota", _ALL),
        Rule.MONTHLY_LIMIT: RuleRow("the payable amount must be within what is left of the month's quota", _ALL),
        Rule.BALANCE_SUFFICIENT: RuleRow("the account must hold the payable amount", _ACCOUNT),
        Rule.QUOTAS_KNOWN: RuleRow("the quota service must have answered", _ALL),
        Rule.QUOTAS_CLEAR: RuleRow("each quota that could concern the payment must be understood", _ALL),
        Rule.INSTALMENT_SIZE: RuleRow("no instalment may be zero", frozenset((Listing.TERM_PER_PROVIDER,))),
    },
    Rule,
)
_OF_KIND = tuple(Rule)[: tuple(Rule).index(Rule.INSTRUMENTS_KNOWN)]
_BY_CODE: Mapping[tuple[ReasonCode, str | None], Rule] = {
    (ReasonCode.CARD_UNBOUND, "card"): Rule.CARD_STATUS,
    (ReasonCode.CARD_FROZEN, "card"): Rule.CARD_STATUS,
    (ReasonCode.CARD_EXPIRED, "card"): Rule.CARD_EXPIRY,
    (ReasonCode.AGREEMENT_TERMINATED, "card"): Rule.AGREEMENT_STATUS,
    (ReasonCode.CURRENCY_NOT_SUPPORTED, "card"): Rule.AGREEMENT_CURRENCY,
    (ReasonCode.ACCOUNT_FROZEN, "balance"): Rule.ACCOUNT_STATUS,
    (ReasonCode.CURRENCY_NOT_SUPPORTED, "balance"): Rule.ACCOUNT_CURRENCY,
    (ReasonCode.NO_CHANNEL, "channel"): Rule.CHANNEL_EXISTS,
    (ReasonCode.PRODUCT_NOT_SUPPORTED, "channel"): Rule.CHANNEL_PRODUCT,
    (ReasonCode.TERMINAL_NOT_SUPPORTED, "channel"): Rule.CHANNEL_TERMINAL,
    (ReasonCode.CURRENCY_NOT_SUPPORTED, None): Rule.CHANNEL_CURRENCY,
    (ReasonCode.CHANNEL_CLOSED, "channel"): Rule.CHANNEL_OPEN,
    (ReasonCode.CHANNEL_MAINTENANCE, "channel"): Rule.CHANNEL_OPEN,
    (ReasonCode.AMOUNT_NOT_CARRIABLE, "channel"): Rule.AMOUNT_STEP,
    (ReasonCode.DAILY_LIMIT_EXCEEDED, "quota"): Rule.DAILY_LIMIT,
    (ReasonCode.MONTHLY_LIMIT_EXCEEDED, "quota"): Rule.MONTHLY_LIMIT,
    (ReasonCode.BALANCE_INSUFFICIENT, "balance"): Rule.BALANCE_SUFFICIENT,
}
_OF_KIND_BY_CODE: Mapping[ReasonCode, Rule] = {
    ReasonCode.NOT_OFFERED: Rule.KIND_OFFERED,
    ReasonCode.MERCHANT_NOT_PERMITTED: Rule.MERCHANT_CONTRACT,
    ReasonCode.PRODUCT_NOT_SUPPORTED: Rule.KIND_PRODUCT,
    ReasonCode.TERMINAL_NOT_SUPPORTED: Rule.KIND_TERMINAL,
    ReasonCode.COUNTRY_NOT_SUPPORTED: Rule.KIND_COUNTRY,
    ReasonCode.CURRENCY_NOT_SUPPORTED: Rule.KIND_CURRENCY,
    ReasonCode.KYC_REQUIRED: Rule.KYC_LEVEL,
    ReasonCode.ORDER_EXPIRES_SOON: Rule.TIME_LEFT,
}
_SILENT_BY_SOURCE = {"channel": Rule.CHANNELS_KNOWN, "quota": Rule.QUOTAS_KNOWN}
_UNCLEAR_BY_SOURCE = {"channel": Rule.CHANNEL_OPEN, "quota": Rule.QUOTAS_CLEAR, "balance": Rule.ACCOUNT_STATUS}


def charges_the_named(kind: Kind) -> bool:
    """Whether naming the payer is enough to charge it, so that a till must not offer the kind."""
    return not SHOWN_OR_CONFIRMED[KINDS[kind].instrument_source]


def rules_of_kind(kind: Kind) -> tuple[Rule, ...]:
    """The rules about the kind as a whole."""
    return tuple(rule for rule in _OF_KIND if _applies(rule, kind, KINDS[kind].listing))


def rules_of_method(kind: Kind, method_id: str) -> tuple[Rule, ...]:
    """All rules that a method of the kind has to pass. A split payment has those of a card too."""
    listings = {KINDS[kind].listing}
    if method_id.endswith(ID_SUFFIX):
        listings.add(Listing.PER_CARD)
    return tuple(rule for rule in Rule if any(_applies(rule, kind, listing) for listing in listings))


def _applies(rule: Rule, kind: Kind, listing: Listing) -> bool:
    if rule is Rule.NOT_AT_TILL and not charges_the_named(kind):
        return False
    return listing in ROWS[rule].listings


def rule_of_kind(case: ConsultationCase, kind: Kind, refusal: Refusal) -> Rule:
    """The rule behind the refusal of the kind as a whole."""
    rule = _OF_KIND_BY_CODE[refusal.code]
    if rule in (Rule.KIND_PRODUCT, Rule.KIND_TERMINAL) and charges_the_named(kind):
        return Rule.NOT_AT_TILL if at_till(case.request.product, case.request.terminal) else rule
    return rule


def rule_of_method(case: ConsultationCase, kind: Kind, method_id: str, quote: Quote, refusal: Refusal) -> Rule:
    """The rule behind the refusal of a method. Raises LookupError for an unknown one: our bug."""
    if KindAssessment(case, kind).refusal == refusal:
        return rule_of_kind(case, kind, refusal)
    if refusal.undetermined:
        return _rule_of_silence(case, kind, refusal.source or "")
    if refusal.code is ReasonCode.CARD_UNBOUND and method_id == kind:
        return Rule.INSTRUMENT_HELD
    if refusal.code is ReasonCode.ABOVE_SINGLE_LIMIT:
        return Rule.SINGLE_LIMIT
    if refusal.code is ReasonCode.BELOW_MIN:
        channel, amounts = quote.channel, quote.amounts
        by_term = quote.term is not None and channel is not None and amounts is not None
        enough = by_term and amounts is not None and channel is not None and amounts.payable.value >= channel.min.value
        return Rule.INSTALMENT_SIZE if enough else Rule.AMOUNT_MINIMUM
    return _BY_CODE[refusal.code, refusal.source]


def _rule_of_silence(case: ConsultationCase, kind: Kind, source: str) -> Rule:
    """A source gave no answer, or gave a row that cannot be understood."""
    if isinstance(getattr(case.facts, source), Missing):
        return _SILENT_BY_SOURCE.get(source, Rule.INSTRUMENTS_KNOWN)
    of_card = Rule.AGREEMENT_STATUS if KINDS[kind].listing is Listing.PER_AGREEMENT else Rule.CARD_STATUS
    return _UNCLEAR_BY_SOURCE.get(source, of_card)
