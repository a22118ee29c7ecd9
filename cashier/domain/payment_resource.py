"""The answer to a submit and to every look at a payment, in the shape of the wire. Where it stands is found in `standing`."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct

from cashier.domain.catalog import Wording
from cashier.domain.challenge_progress import ChallengeProgress
from cashier.domain.money import Money
from cashier.domain.next_action import Action
from cashier.domain.order import Instant
from cashier.domain.payment_message import Message, MessageCode
from cashier.domain.payment_state import PaymentStatus


class Challenge(Struct, frozen=True, kw_only=True):
    """What the payer has to prove, and how often and until when they may try. `render_value` is masked."""

    challenge_id: str
    type: str
    render_value: str
    trigger: str
    attempts_left: int
    expires_at: Instant


class RouteTaken(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rule of `routing.toml` that decided, the channel it chose, and the alternatives in order."""

    rule: str
    channel_id: str | None = None
    alternatives: tuple[str, ...] = ()


class Payment(Struct, frozen=True, kw_only=True):
    """`amount` is what the payer pays. `challenge` with CHALLENGE only. `poll_after_ms`: when to look again, while it is not over."""

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


def challenge(challenged: ChallengeProgress) -> Challenge:
    return Challenge(
        challenge_id=challenged.challenge_id,
        type=challenged.type,
        render_value=challenged.render_value,
        trigger=challenged.trigger,
        attempts_left=challenged.attempts_left,
        expires_at=datetime.fromtimestamp(challenged.expires_at, UTC),
    )


def message(code: MessageCode, wording: Wording) -> Message:
    return Message(code, wording.payments[code])
