"""The engine's rules for refusing a payment, checked in order; the first failure counts.

A rule returns a code and a text, or None. Rules read and never change an order or a payment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from cashier.sandbox.acquirer import SimulatedAcquirer
from cashier.sandbox.audit import fee_on
from cashier.sandbox.payer_holdings import PayerHoldings
from cashier.sandbox.records import Json
from cashier.sandbox.risk import Amount, Identity, SimulatedRisk
from cashier.sandbox.seed_data import Population
from cashier.sandbox.weather import BPS
from cashier.sandbox.world_clock import Clock


class SubmittedLeg(Struct, frozen=True, kw_only=True):
    type: Literal["PROMOTION", "BALANCE", "CHANNEL"]
    id: Identity
    amount: Amount
    channel_id: str | None = None
    instrument_id: str | None = None
    term_id: str | None = None


class SubmitBody(Struct, frozen=True, kw_only=True):
    """The body of `POST /payments`.

    `alternatives`: channel ids, tried in order if the channel of the leg is not open. `return_url`:
    a web address, since browsers are sent there and nowhere else. `expires_at`: the end of the
    payer's time to act. `amount`: the payer's part. `legs`: none for an order of 0. `user_id`:
    absent for a walk-in.
    """

    payment_id: Identity
    order_id: Identity
    user_id: Identity | None = None
    merchant_id: Identity
    fingerprint: str
    amount: Amount | None = None
    legs: tuple[SubmittedLeg, ...]
    decision_id: str
    alternatives: tuple[str, ...] = ()
    method_id: str | None = None
    option_id: str | None = None
    auth_code: str | None = None
    return_url: Annotated[str, Meta(pattern=r"^https?://[^\s\x00-\x1f]+$", max_length=2048)] | None = None
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class ReverseBody(Struct, frozen=True):
    """The body of `POST /payments/{payment_id}/reverse`, which may be empty."""

    reason: str | None = None


# Kinds of channels that charge what the payer left with us.
_CHARGED_BY_NAME = frozenset({"QUICK_PAY", "AGREEMENT", "CARD"})


class PaymentFailure(NamedTuple):
    """`promotion_id`: the promotion that is refused."""

    code: str
    text: str
    promotion_id: str | None = None

    def as_json(self) -> Json:
        return {name: value for name, value in self._asdict().items() if value is not None}


class RuleInputs(Struct, frozen=True):
    """What the rules may read. `used_codes`: payers' codes that were scanned before."""

    population: Population
    acquirer: SimulatedAcquirer
    risk: SimulatedRisk
    clock: Clock
    holdings: PayerHoldings
    used_codes: set[str]


def find_failure(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    """The first failure that forbids this submission, or None. Its order must exist."""
    return next((failure for rule in _RULES if (failure := rule(inputs, submission))), None)


def holdings_failure(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    """Why the payer's promotions or balance do not suffice, or None."""
    return _promotion_is_gone(inputs, submission) or _balance_is_short(inputs, submission)


def open_channel(population: Population, submission: SubmitBody) -> Json | None:
    """The leg's channel, or the first open alternative. None without a channel leg or open channel.

    Alternatives with another fee are skipped, since the payer agreed to a sum, and those that
    cannot carry it; by instalments those without the term, too.
    """
    leg = channel_leg(submission)
    if leg is None:
        return None
    quoted = population.channel(leg.channel_id or leg.id)
    tariff = _tariff(quoted, leg.term_id) if quoted else None
    channels = (quoted, *(population.channel(channel_id) for channel_id in submission.alternatives))
    return next(
        (
            channel
            for channel in channels
            if channel
            and channel["status"] == "OPEN"
            and _tariff(channel, leg.term_id) == tariff
            and not leg.amount.value % channel.get("step", 1)
        ),
        None,
    )


def _tariff(channel: Json, term_id: str | None) -> tuple[int, int] | None:
    """Fee in basis points, and the step to which it is rounded. Without a fee no step matters.

    By instalments the fee is the term's. None if the channel has no such term.
    """
    fee_bps: int | None = None if "terms" in channel else channel.get("fee_bps", 0)
    if term_id is not None:
        terms = channel.get("terms", ())
        fee_bps = next((term["fee_bps"] for term in terms if term["term_id"] == term_id), None)
    return None if fee_bps is None else (fee_bps, channel.get("step", 1) if fee_bps else 1)


def channel_leg(submission: SubmitBody) -> SubmittedLeg | None:
    return next((leg for leg in submission.legs if leg.type == "CHANNEL"), None)


def _order_is_over(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    code = inputs.acquirer.refusal(submission.order_id)
    return PaymentFailure(code, "The order cannot be paid any more.") if code else None


def _parties_differ(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    order = inputs.acquirer.order(submission.order_id) or {}
    same = (
        order["merchant_id"] == submission.merchant_id
        and order.get("user_id", submission.user_id) == submission.user_id
    )
    return None if same else PaymentFailure("PARTIES_MISMATCH", "The order belongs to another merchant or user.")


def _payer_is_only_named(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    """A till's order is paid by what the payer shows or confirms elsewhere; others have a user."""
    order = inputs.acquirer.order(submission.order_id) or {}
    if order["product"] != "SCAN":
        named = submission.user_id is None
    else:
        channel = open_channel(inputs.population, submission)
        named = any(leg.type == "BALANCE" for leg in submission.legs) or (
            channel is not None and channel["kind"] in _CHARGED_BY_NAME
        )
    return PaymentFailure("PAYER_NOT_PROVEN", "A till's word does not prove who pays.") if named else None


def _term_is_unknown(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    """By instalments the leg names a term of its channel, otherwise none."""
    leg = channel_leg(submission)
    quoted = inputs.population.channel(leg.channel_id or leg.id) if leg else None
    unknown = leg and quoted and _tariff(quoted, leg.term_id) is None
    return PaymentFailure("TERM_UNKNOWN", "The channel has no such instalment term.") if unknown else None


def _amounts_differ(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    """The legs must add up to the order amount plus the fee of the named channel on its part."""
    amount = (inputs.acquirer.order(submission.order_id) or {})["amount"]
    same_currency = all(leg.amount.currency == amount["currency"] for leg in submission.legs)
    own = sum(leg.amount.value for leg in submission.legs if leg.type != "PROMOTION")
    fee = sum(leg.amount.value for leg in submission.legs) - amount["value"]
    leg = channel_leg(submission)
    quoted = inputs.population.channel(leg.channel_id or leg.id) if leg else None
    tariff = _tariff(quoted, leg.term_id) if leg and quoted else None
    agreed = fee_on(leg.amount.value - fee, *tariff) if leg and tariff else 0
    return (
        None
        if same_currency and fee == agreed and submission.amount in (None, Amount(amount["currency"], own))
        else PaymentFailure("AMOUNT_MISMATCH", "The legs do not add up to the order amount and fee.")
    )


def _several_channels(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    legs = [leg for leg in submission.legs if leg.type == "CHANNEL"]
    return PaymentFailure("TOO_MANY_CHANNELS", "Only one channel can take the money.") if len(legs) > 1 else None


def _risk_has_not_cleared(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    cleared = inputs.risk.cleared(submission.decision_id, submission.payment_id)
    return None if cleared else PaymentFailure("RISK_NOT_CLEARED", "The risk service has not cleared this payment.")


def _promotion_is_gone(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    """Each promotion must be the payer's, valid and unused, and occur once in the payment."""
    promotion_ids = [leg.id for leg in submission.legs if leg.type == "PROMOTION"]
    held = {promotion["promotion_id"] for promotion in _valid_promotions(inputs, submission)}
    for index, promotion_id in enumerate(promotion_ids):
        if promotion_id not in held or promotion_id in promotion_ids[:index]:
            return PaymentFailure("PROMOTION_GONE", "A promotion is missing, expired or used.", promotion_id)
    return None


def _promotion_gives_less(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    """Each promotion must fit the order amount and the kind, and give no more than its discount."""
    order: int = (inputs.acquirer.order(submission.order_id) or {})["amount"]["value"]
    kind = _paying_kind(inputs, submission)
    held = {promotion["promotion_id"]: promotion for promotion in _valid_promotions(inputs, submission)}
    for leg in (leg for leg in submission.legs if leg.type == "PROMOTION"):
        promotion = held[leg.id]
        kind_fits = kind is None or not promotion["kinds"] or kind in promotion["kinds"]
        if (
            not kind_fits
            or order < promotion["threshold"]["value"]
            or leg.amount.value > _max_discount(promotion, order)
        ):
            return PaymentFailure(
                "PROMOTION_MISMATCH", "A promotion does not give this discount on this payment.", leg.id
            )
    return None


def _paying_kind(inputs: RuleInputs, submission: SubmitBody) -> str | None:
    """None if promotions pay the whole order: then there is no kind."""
    channel = open_channel(inputs.population, submission)
    if channel:
        return str(channel["kind"])
    return "BALANCE" if any(leg.type == "BALANCE" for leg in submission.legs) else None


def _valid_promotions(inputs: RuleInputs, submission: SubmitBody) -> list[Json]:
    now, currency = inputs.clock(), _currency(inputs, submission)
    held = inputs.holdings.promotions(submission.user_id) or []
    return [
        promotion
        for promotion in held
        if promotion["threshold"]["currency"] == currency
        and ("expires_at" not in promotion or now < datetime.fromisoformat(promotion["expires_at"]))
    ]


def _currency(inputs: RuleInputs, submission: SubmitBody) -> str:
    """The order's; `_amounts_differ` has compared it with that of every leg."""
    currency: str = (inputs.acquirer.order(submission.order_id) or {})["amount"]["currency"]
    return currency


def _max_discount(promotion: Json, order: int) -> int:
    """Minor units. A percentage rounds up here, since the rounding is the seller's choice."""
    if "amount_off" in promotion:
        return int(promotion["amount_off"]["value"])
    share: int = -(-order * promotion["percent_off_bps"] // BPS)
    return min(share, int(promotion["cap"]["value"])) if "cap" in promotion else share


def _balance_is_short(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    currency = _currency(inputs, submission)
    held = inputs.holdings.accounts(submission.user_id) or []
    accounts = {account["account_id"]: account for account in held if account["available"]["currency"] == currency}
    wanted: Counter[str] = Counter()
    for leg in (leg for leg in submission.legs if leg.type == "BALANCE"):
        wanted[leg.id] += leg.amount.value
    for account_id, value in wanted.items():
        account = accounts.get(account_id)
        if account is None or account["status"] != "ACTIVE" or account["available"]["value"] < value:
            return PaymentFailure("BALANCE_INSUFFICIENT", "The balance is too low.")
    return None


def _not_carriable(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    """The rail of the named channel carries only multiples of its step."""
    leg = channel_leg(submission)
    quoted = inputs.population.channel(leg.channel_id or leg.id) if leg else None
    odd = leg and quoted and leg.amount.value % quoted.get("step", 1)
    return PaymentFailure("AMOUNT_NOT_CARRIABLE", "The channel does not carry this amount.") if odd else None


def _no_open_channel(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    missing = channel_leg(submission) is not None and open_channel(inputs.population, submission) is None
    return PaymentFailure("CHANNEL_UNAVAILABLE", "No channel is open for this payment.") if missing else None


def _instrument_is_invalid(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    """Quick pay needs a usable card, a direct debit an active agreement with the merchant."""
    leg, channel = channel_leg(submission), open_channel(inputs.population, submission)
    user = inputs.population.user(submission.user_id)
    match channel["kind"] if leg and channel else None:
        case "QUICK_PAY":
            this_month = inputs.clock().strftime("%Y-%m")
            cards = (user.cards if user else None) or []
            usable = {card["card_id"] for card in cards if card["status"] == "ACTIVE" and card["expiry"] >= this_month}
        case "AGREEMENT":
            agreements = user.agreements if user else ()
            usable = {
                agreement["agreement_id"]
                for agreement in agreements
                if agreement["status"] == "ACTIVE" and agreement["merchant_id"] == submission.merchant_id
            }
        case _:
            return None
    return (
        None
        if leg and leg.instrument_id in usable
        else PaymentFailure("INSTRUMENT_DECLINED", "The card or agreement cannot be used.")
    )


def _auth_code_is_invalid(inputs: RuleInputs, submission: SubmitBody) -> PaymentFailure | None:
    channel = open_channel(inputs.population, submission)
    if channel is None or channel["kind"] != "CONSUMER_QR":
        return None
    if not submission.auth_code:
        return PaymentFailure("AUTH_CODE_REQUIRED", "The payer's code is required.")
    return (
        PaymentFailure("AUTH_CODE_USED", "The payer's code was used before.")
        if submission.auth_code in inputs.used_codes
        else None
    )


_RULES: tuple[Callable[[RuleInputs, SubmitBody], PaymentFailure | None], ...] = (
    _order_is_over,
    _parties_differ,
    _payer_is_only_named,
    _several_channels,
    _term_is_unknown,
    _amounts_differ,
    _risk_has_not_cleared,
    _promotion_is_gone,
    _promotion_gives_less,
    _balance_is_short,
    _not_carriable,
    _no_open_channel,
    _instrument_is_invalid,
    _auth_code_is_invalid,
)
