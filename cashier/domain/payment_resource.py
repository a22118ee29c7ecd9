"""The payment resource: the answer to every request on a payment, in the wire's shape."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from cashier.domain.challenge_progress import ChallengeProgress
from cashier.domain.kinds import KINDS
from cashier.domain.local_format import Formats, format_amount
from cashier.domain.money import Money
from cashier.domain.next_action import Action
from cashier.domain.order import Instant
from cashier.domain.pay_method import Kind
from cashier.domain.payment_message import Message, MessageCode
from cashier.domain.payment_state import PaymentStatus
from cashier.domain.text_form import Form
from cashier.domain.upstream_report import Arrived
from cashier.domain.wording import AMOUNT_PARTS, Wording, text_of


class Challenge(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The challenge that the payer has to pass, with the attempts left and its end.

    `render_value` is masked. `resend_at`: from when its code may be sent again; a resend that was
    made since says more. None: not known before one is tried.
    """

    challenge_id: str
    type: str
    render_value: str
    trigger: str
    attempts_left: int
    expires_at: Instant
    resend_at: Instant | None = None


class RouteTaken(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rule of `routing.toml` that applied, its channel, and the alternatives, best first."""

    rule: str
    channel_id: str | None = None
    alternatives: tuple[str, ...] = ()


class Payment(Struct, frozen=True, kw_only=True):
    """`amount`: what the payer pays.

    `challenge`: only with CHALLENGE. `poll_after_ms`: None once final. `received`: all that arrived
    by transfers, if the engine says so; `returned`: what of it goes back.
    """

    payment_id: str
    order_id: str
    status: PaymentStatus
    amount: Money
    challenge: Challenge | None
    next_action: Action | None
    route: RouteTaken | None
    message: Message
    poll_after_ms: int | None
    payment_token: str
    expires_at: Instant
    received: Money | None = None
    returned: Money | None = None


class FoundPayment(Struct, frozen=True, kw_only=True):
    """An attempt as its payer finds it: a `Payment` with its choice, and without a token.

    `can_resume`: it is not final.
    """

    payment_id: str
    order_id: str
    status: PaymentStatus
    method_id: str
    option_id: str | None
    kind: Kind
    amount: Money
    next_action: Action | None
    message: Message
    poll_after_ms: int | None
    expires_at: Instant
    can_resume: bool


class ChallengeSent(Struct, frozen=True, kw_only=True):
    """The code of a challenge was sent again; not `sent`: it was too early for that.

    `resend_after_s`: until it may be sent the next time. None: it will not be sent again.
    """

    resend_after_s: int | None
    sent: bool


class StreamTicket(Struct, frozen=True, kw_only=True):
    """A right to follow the events of one payment, for the URL of a browser's `EventSource`."""

    ticket: str
    expires_at: Instant

    # Secrets stay out of logs.
    def __repr__(self) -> str:
        return f"<StreamTicket {self.expires_at}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("expires_at", self.expires_at)]


def challenge(progress: ChallengeProgress) -> Challenge:
    return Challenge(
        challenge_id=progress.challenge_id,
        type=progress.type,
        render_value=progress.render_value,
        trigger=progress.trigger,
        attempts_left=progress.attempts_left,
        expires_at=datetime.fromtimestamp(progress.expires_at, UTC),
        resend_at=None if progress.resend_at is None else datetime.fromtimestamp(progress.resend_at, UTC),
    )


def message(
    code: MessageCode,
    kind: Kind,
    wording: Wording,
    challenge: ChallengeProgress | None = None,
    arrived: Arrived | None = None,
    refused_promotion: str | None = None,
) -> Message:
    """The message of a payment of this kind.

    `challenge`: the one that the payer has to pass, or has just not passed. `arrived`: for messages
    with sums. `refused_promotion`: the title of the one that the engine refused, if known.
    """
    form, attempts = Form.GENERAL, 0
    if challenge is not None:
        form, attempts = _CHALLENGE_FORMS.get(challenge.type, Form.GENERAL), challenge.attempts_left
    elif refused_promotion is not None and code is MessageCode.PROMOTION_GONE:
        form = Form.NAMED
    elif not KINDS[kind].returns_to_source:
        form = Form.NO_WAY_BACK
    sums = _sums(code, arrived, wording.formats)
    return Message(
        code, text_of(wording.payments[code], form).format(attempts=attempts, promotion=refused_promotion, **sums)
    )


def _sums(code: MessageCode, arrived: Arrived | None, formats: Formats) -> dict[str, str]:
    """The values of `AMOUNT_PARTS`. Of a sum that is kept, `difference` is what is missing."""
    if arrived is None:
        return dict.fromkeys(AMOUNT_PARTS, "")
    received = arrived.kept if code is MessageCode.UNDERPAID else arrived.received
    difference = Money(received.currency, abs(received.value - arrived.due.value))
    sums = (received, arrived.due, difference)
    return {part: format_amount(money, formats) for part, money in zip(AMOUNT_PARTS, sums, strict=True)}


_CHALLENGE_FORMS = {
    "SMS_OTP": Form.SMS_OTP,
    "PASSWORD": Form.PASSWORD,
    "BIOMETRIC": Form.BIOMETRIC,
    "THREE_DS": Form.THREE_DS,
}
