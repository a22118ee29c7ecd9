"""Why the payment engine takes no money. A rule is a function that returns a code and a text, or nothing; the first that speaks counts.

Rules only look. Nothing here changes an order or a payment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from cashier.sandbox.acquirer import Acquirer, Clock
from cashier.sandbox.cast import Cast
from cashier.sandbox.risk import Amount, Identity, Risk
from cashier.sandbox.shapes import Json


class Leg(Struct, frozen=True, kw_only=True):
    type: Literal["PROMOTION", "BALANCE", "CHANNEL"]
    id: Identity
    amount: Amount
    channel_id: str | None = None
    instrument_id: str | None = None


class Submission(Struct, frozen=True, kw_only=True):
    """The body of `POST /payments`. `alternatives` are channel ids, tried in that order where a channel leg's own is not open."""

    payment_id: Identity
    order_id: Identity
    user_id: Identity
    merchant_id: Identity
    fingerprint: str
    legs: Annotated[tuple[Leg, ...], Meta(min_length=1)]
    decision_id: str
    alternatives: tuple[str, ...] = ()
    auth_code: str | None = None
    return_url: str | None = None


class Failure(NamedTuple):
    code: str
    text: str


class Desk(Struct, frozen=True):
    """Whom the rules may ask. `used_codes` are the payers' codes that were scanned before."""

    cast: Cast
    acquirer: Acquirer
    risk: Risk
    clock: Clock
    used_codes: set[str]


def refuse(desk: Desk, submission: Submission) -> Failure | None:
    """Why nothing is taken for this submission, or nothing. Its order must exist."""
    return next((failure for rule in _RULES if (failure := rule(desk, submission))), None)


def open_channel(cast: Cast, submission: Submission) -> Json | None:
    """The channel that takes the money: the leg's, or the first alternative that is open. None without a channel leg or an open one."""
    leg = channel_leg(submission)
    if leg is None:
        return None
    channels = (cast.channel(channel_id) for channel_id in (leg.channel_id or leg.id, *submission.alternatives))
    return next((channel for channel in channels if channel and channel["status"] == "OPEN"), None)


def channel_leg(submission: Submission) -> Leg | None:
    return next((leg for leg in submission.legs if leg.type == "CHANNEL"), None)


def _order_is_over(desk: Desk, submission: Submission) -> Failure | None:
    code = desk.acquirer.refusal(submission.order_id)
    return Failure(code, "The order cannot be paid any more.") if code else None


def _parties_differ(desk: Desk, submission: Submission) -> Failure | None:
    order = desk.acquirer.order(submission.order_id) or {}
    same = order["merchant_id"] == submission.merchant_id and order.get("user_id", submission.user_id) == submission.user_id
    return None if same else Failure("PARTIES_MISMATCH", "The order is of another merchant or user.")


def _amounts_differ(desk: Desk, submission: Submission) -> Failure | None:
    """The legs may come to more than the order, by a fee; never to less."""
    amount = (desk.acquirer.order(submission.order_id) or {})["amount"]
    same_currency = all(leg.amount.currency == amount["currency"] for leg in submission.legs)
    enough = sum(leg.amount.value for leg in submission.legs) >= amount["value"]
    return None if same_currency and enough else Failure("AMOUNT_MISMATCH", "The legs do not come to the order's amount.")


def _several_channels(desk: Desk, submission: Submission) -> Failure | None:
    legs = [leg for leg in submission.legs if leg.type == "CHANNEL"]
    return Failure("TOO_MANY_CHANNELS", "One channel takes the money.") if len(legs) > 1 else None


def _risk_has_not_cleared(desk: Desk, submission: Submission) -> Failure | None:
    cleared = desk.risk.cleared(submission.decision_id, submission.payment_id)
    return None if cleared else Failure("RISK_NOT_CLEARED", "The risk service has not cleared this payment.")


def _balance_is_short(desk: Desk, submission: Submission) -> Failure | None:
    person = desk.cast.person(submission.user_id)
    accounts = {account["account_id"]: account for account in (person.accounts if person else None) or []}
    for leg in (leg for leg in submission.legs if leg.type == "BALANCE"):
        account = accounts.get(leg.id)
        if account is None or account["status"] != "ACTIVE" or account["available"]["value"] < leg.amount.value:
            return Failure("BALANCE_INSUFFICIENT", "The account does not hold enough.")
    return None


def _no_open_channel(desk: Desk, submission: Submission) -> Failure | None:
    missing = channel_leg(submission) is not None and open_channel(desk.cast, submission) is None
    return Failure("CHANNEL_UNAVAILABLE", "No channel is open for this payment.") if missing else None


def _instrument_is_no_good(desk: Desk, submission: Submission) -> Failure | None:
    """Quick pay needs a good card of the payer's, a direct debit a live agreement with this merchant. Other kinds bring their own."""
    leg, channel = channel_leg(submission), open_channel(desk.cast, submission)
    person = desk.cast.person(submission.user_id)
    match channel["kind"] if leg and channel else None:
        case "QUICK_PAY":
            this_month = desk.clock().strftime("%Y-%m")
            cards = (person.cards if person else None) or []
            good = {card["card_id"] for card in cards if card["status"] == "ACTIVE" and card["expiry"] >= this_month}
        case "AGREEMENT":
            signed = person.agreements if person else ()
            good = {one["agreement_id"] for one in signed if one["status"] == "ACTIVE" and one["merchant_id"] == submission.merchant_id}
        case _:
            return None
    return None if leg and leg.instrument_id in good else Failure("INSTRUMENT_DECLINED", "The card or agreement cannot be used.")


def _code_is_no_good(desk: Desk, submission: Submission) -> Failure | None:
    channel = open_channel(desk.cast, submission)
    if channel is None or channel["kind"] != "CONSUMER_QR":
        return None
    if not submission.auth_code:
        return Failure("AUTH_CODE_REQUIRED", "The payer's code is needed.")
    return Failure("AUTH_CODE_USED", "The payer's code was used before.") if submission.auth_code in desk.used_codes else None


_RULES: tuple[Callable[[Desk, Submission], Failure | None], ...] = (
    _order_is_over,
    _parties_differ,
    _amounts_differ,
    _several_channels,
    _risk_has_not_cleared,
    _balance_is_short,
    _no_open_channel,
    _instrument_is_no_good,
    _code_is_no_good,
)
