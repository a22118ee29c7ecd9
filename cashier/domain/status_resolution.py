"""Where a payment stands, from what its token, the engine and the acquirer say now. Nothing is remembered here, no clock is read.

The law, in the order in which it is applied:
  1. What was told as final stays.
  2. The acquirer's word on this payment's money is the payer's truth, whatever the engine says.
  3. The engine's end counts once the acquirer has answered too. Failed is failed; reversed, or refused because the order was over, is
     closed. Succeeded waits for the acquirer to say paid, and is money for nothing where the order is closed or was paid by another.
  4. Nothing ends because nobody knows it. A payment that the engine has never seen may still arrive: only a reverse that the engine answers
     with "never arrived" ends it (`SEALED`), because the engine refuses it from then on. Nor does anything end because time is up, or the
     order is over, or the caller wants it: the engine is asked to reverse (`to_reverse`), and what it says then decides.
  5. Whoever is silent leaves PROCESSING, and is asked again.

That a final status stays so although nothing is remembered rests on two promises: what the engine or the acquirer calls final is; and an
engine that was asked to reverse what it does not know refuses it for good.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from msgspec import Struct

from cashier.domain import poll_schedule
from cashier.domain.challenge_progress import ChallengeProgress, ChallengeState, challenge_state
from cashier.domain.money import Money
from cashier.domain.next_action import Action, Await, expiry
from cashier.domain.pay_method import Kind
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_state import FINAL, STATUS_AFTER, PaymentEvent, PaymentStatus, next_status
from cashier.domain.poll_schedule import PollSchedule


class EngineReportStatus(StrEnum):
    """What the engine says of a payment. `SEALED`: it never arrived, and we had asked to reverse it. `SILENT`: nothing that can be read."""

    PROCESSING = "PROCESSING"
    ACTION_REQUIRED = "ACTION_REQUIRED"
    USER_PAYING = "USER_PAYING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    NEVER_ARRIVED = "NEVER_ARRIVED"
    SEALED = "SEALED"
    SILENT = "SILENT"


class AcquirerReportStatus(StrEnum):
    """What the acquirer says of the order."""

    PENDING = "PENDING"
    PAYING = "PAYING"
    PAID = "PAID"
    CLOSED = "CLOSED"
    CLOSED_REFUNDING = "CLOSED_REFUNDING"
    REFUNDED = "REFUNDED"
    SILENT = "SILENT"


class EngineReport(Struct, frozen=True):
    """`failure_code` with FAILED, `next_action` with ACTION_REQUIRED."""

    word: EngineReportStatus
    failure_code: str | None = None
    next_action: Action | None = None


class AcquirerReport(Struct, frozen=True):
    """`payment_id`: whose money it is that the word is about, where it says. `closed_reason`: the order was closed at some time. `paid`:
    how much, where it says; the word decides, whatever that is."""

    word: AcquirerReportStatus
    payment_id: str | None = None
    closed_reason: str | None = None
    paid: Money | None = None


class PaymentProgress(Struct, frozen=True, kw_only=True):
    """What the payment's token says. Times in seconds since 1970.

    `sent_at`: when the engine was first asked to take the money; None: never, and then there is a `challenge` that it waits for.
    `expires_at`: until when the payer may act. `cancelled`: the caller wants no more of it. `told`: the status that was told last, as the
    token has it.
    """

    payment_id: str
    kind: Kind
    expires_at: int
    sent_at: int | None = None
    challenge: ChallengeProgress | None = None
    cancelled: bool = False
    told: PaymentStatus | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for one that was neither sent nor waits for a challenge: nothing would ever become of it."""
        if self.sent_at is None and self.challenge is None:
            raise ValueError(f"{self.payment_id} was neither sent nor challenged")

    @property
    def unsent(self) -> ChallengeProgress | None:
        """The challenge that it waits for, as far as is known here. It may have been passed elsewhere, and has been where an engine that
        is now silent, or behind, was heard to ask for an action."""
        return self.challenge if self.sent_at is None and self.told is not PaymentStatus.ACTION_REQUIRED else None


class ResolvedStatus(Struct, frozen=True):
    """`event`: what decided; None where nothing had to be asked any more. `next_action` and `poll_after_ms` only while it is not over.

    `to_reverse`: the engine should be asked to reverse. Whoever looks does so once, and derives again from its answer and a fresh look at
    the order before anything is told. Where that is still not the end it is told so, and the next look asks again: it may be asked often.
    """

    status: PaymentStatus
    event: PaymentEvent | None
    message: MessageCode
    next_action: Action | None = None
    poll_after_ms: int | None = None
    to_reverse: bool = False

    @property
    def final(self) -> bool:
        return self.status in FINAL


# The order or its code is over, or the engine was asked to reverse, so that it took nothing. Not the payer's failure.
_CLOSED_CODES = frozenset({"REVERSED", "EXPIRED", "ORDER_CLOSED", "ORDER_EXPIRED", "ORDER_REFUNDED"})
_OVER = frozenset({AcquirerReportStatus.PAID, AcquirerReportStatus.CLOSED, AcquirerReportStatus.CLOSED_REFUNDING, AcquirerReportStatus.REFUNDED})
_CLOSED = frozenset({AcquirerReportStatus.CLOSED, AcquirerReportStatus.CLOSED_REFUNDING})
_LIVE = {
    EngineReportStatus.PROCESSING: PaymentEvent.ENGINE_PROCESSING,
    EngineReportStatus.USER_PAYING: PaymentEvent.ENGINE_USER_PAYING,
    EngineReportStatus.ACTION_REQUIRED: PaymentEvent.ENGINE_ACTION_REQUIRED,
    EngineReportStatus.NEVER_ARRIVED: PaymentEvent.ENGINE_NEVER_ARRIVED,
    EngineReportStatus.SILENT: PaymentEvent.ENGINE_SILENT,
}
_PAYER_ACTS = frozenset({PaymentEvent.ENGINE_ACTION_REQUIRED, PaymentEvent.ENGINE_USER_PAYING})
_NOTHING_TO_POLL = FINAL | {PaymentStatus.CHALLENGE}
# After one of these, what is not over should be brought to an end.
_ENDING = frozenset(
    {PaymentEvent.ORDER_OVER, PaymentEvent.CANCELLED, PaymentEvent.EXPIRED, PaymentEvent.CHALLENGE_OVER}
)


def resolve_status(
    payment: PaymentProgress, engine: EngineReport, acquirer: AcquirerReport, now: datetime
) -> ResolvedStatus:
    """Raises `IllegalMove` where what is heard now contradicts what was told last."""
    event = deciding_event(payment, engine, acquirer, now)
    status = STATUS_AFTER[event]
    message = _words(engine, event)
    if payment.told in FINAL:
        same = status is payment.told
        return ResolvedStatus(payment.told, event if same else None, message if same else _BY_STATUS[payment.told])
    if payment.told is not None:
        next_status(payment.told, event)
    return (
        ResolvedStatus(status, event, message) if status in _NOTHING_TO_POLL else _waiting(payment, engine, event, now)
    )


def deciding_event(payment: PaymentProgress, engine: EngineReport, acquirer: AcquirerReport, now: datetime) -> PaymentEvent:
    """The one fact that decides."""
    found = _own_money(payment, engine, acquirer) or _ended(payment, engine, acquirer)
    return found or _ending(payment, engine, acquirer, now) or _going_on(payment, engine)


def _own_money(payment: PaymentProgress, engine: EngineReport, acquirer: AcquirerReport) -> PaymentEvent | None:
    """What the acquirer says of this payment's money. Where it does not say whose it is, it is of the one that the engine made succeed."""
    owner = acquirer.payment_id
    if owner != payment.payment_id and (owner is not None or engine.word is not EngineReportStatus.SUCCEEDED):
        return None
    match acquirer.word:
        case AcquirerReportStatus.PAID:
            return PaymentEvent.ORDER_PAID
        case AcquirerReportStatus.CLOSED_REFUNDING:
            return PaymentEvent.ORDER_CLOSED_REFUNDING
        case AcquirerReportStatus.REFUNDED:
            # The word is the same for an order that was paid and then refunded, and for one that was closed before the money came.
            return PaymentEvent.ORDER_REFUNDED if acquirer.closed_reason is None else PaymentEvent.ORDER_CLOSED_REFUNDED
        case _:
            return None


def _ended(payment: PaymentProgress, engine: EngineReport, acquirer: AcquirerReport) -> PaymentEvent | None:
    """What the engine says for good, and the acquirer does not contradict."""
    silent = acquirer.word is AcquirerReportStatus.SILENT
    match engine.word:
        case EngineReportStatus.SUCCEEDED:
            if acquirer.word not in _OVER:
                return PaymentEvent.ENGINE_SUCCEEDED
            return PaymentEvent.ORDER_CLOSED_REFUNDING if acquirer.word in _CLOSED else PaymentEvent.PAID_TWICE
        case EngineReportStatus.FAILED if not silent:
            if engine.failure_code not in _CLOSED_CODES:
                return PaymentEvent.ENGINE_FAILED
            return PaymentEvent.CHALLENGE_FAILED if _spent(payment) else PaymentEvent.ENGINE_REVERSED
        case EngineReportStatus.SEALED if not silent:
            return PaymentEvent.CHALLENGE_FAILED if _spent(payment) else PaymentEvent.ENGINE_SEALED
        case EngineReportStatus.FAILED | EngineReportStatus.SEALED:
            return PaymentEvent.ACQUIRER_SILENT
        case _:
            return None


def _ending(
    payment: PaymentProgress, engine: EngineReport, acquirer: AcquirerReport, now: datetime
) -> PaymentEvent | None:
    """Why what may still live should be brought to an end. A challenge's end says nothing of a payment that the engine knows."""
    if acquirer.word in _OVER:
        return PaymentEvent.ORDER_OVER
    if payment.cancelled:
        return PaymentEvent.CANCELLED
    if (
        engine.word is EngineReportStatus.NEVER_ARRIVED
        and payment.unsent is not None
        and challenge_state(payment.unsent, now.timestamp()) is not ChallengeState.OPEN
    ):
        return PaymentEvent.CHALLENGE_OVER
    return PaymentEvent.EXPIRED if _time_is_up(payment, engine, now.timestamp()) else None


def _time_is_up(payment: PaymentProgress, engine: EngineReport, now_s: float) -> bool:
    """Somebody at a counter is not kept waiting; a code or a page that has run out is withdrawn; what has not arrived is not waited for
    much longer than any call takes. What the engine is working on by itself, and what it does not answer about, time does not end."""
    sent_at = payment.sent_at
    if sent_at is not None and payment.kind is Kind.CONSUMER_QR and now_s >= sent_at + poll_schedule.ATTENDED_S:
        return True
    match engine.word:
        case EngineReportStatus.NEVER_ARRIVED:
            return sent_at is not None and now_s >= sent_at + poll_schedule.ARRIVAL_S
        case EngineReportStatus.ACTION_REQUIRED:
            told = expiry(engine.next_action)
            return now_s >= payment.expires_at or (told is not None and now_s >= told.timestamp())
        case EngineReportStatus.USER_PAYING:
            return now_s >= payment.expires_at
        case _:
            return False


def _going_on(payment: PaymentProgress, engine: EngineReport) -> PaymentEvent:
    unsent = engine.word is EngineReportStatus.NEVER_ARRIVED and payment.unsent is not None
    return PaymentEvent.CHALLENGE_OPEN if unsent else _LIVE[engine.word]


def _spent(payment: PaymentProgress) -> bool:
    return payment.unsent is not None and not payment.unsent.attempts_left


def _waiting(payment: PaymentProgress, engine: EngineReport, event: PaymentEvent, now: datetime) -> ResolvedStatus:
    until_s = _until_s(payment, event)
    over = now.timestamp() >= until_s
    pace = poll_schedule.LATE if over else _pace(payment, event)
    after_ms = poll_schedule.poll_after_ms(pace, now.timestamp() - _since_s(payment, event, now.timestamp()))
    action: Action | None = None
    if event is PaymentEvent.ENGINE_ACTION_REQUIRED:
        action = engine.next_action
    elif not over:
        action = Await(poll_after_ms=after_ms, until=datetime.fromtimestamp(until_s, UTC))
    return ResolvedStatus(STATUS_AFTER[event], event, _MESSAGES[event], action, after_ms, event in _ENDING)


def _pace(payment: PaymentProgress, event: PaymentEvent) -> PollSchedule:
    if event is PaymentEvent.ENGINE_SUCCEEDED:
        return poll_schedule.CONFIRMING
    return poll_schedule.of_kind(payment.kind) if event in _PAYER_ACTS else poll_schedule.PROMPT


def _since_s(payment: PaymentProgress, event: PaymentEvent, now_s: float) -> int:
    """The start of what is waited for. What is being ended begins anew as the payer's time runs out."""
    if event in _ENDING and now_s >= payment.expires_at:
        return payment.expires_at
    return payment.sent_at or (payment.unsent.started_at if payment.unsent else payment.expires_at)


def _until_s(payment: PaymentProgress, event: PaymentEvent) -> int:
    """When to stop asking: at a counter with the reversal, else some time after the payer could last do something."""
    if event is PaymentEvent.ENGINE_USER_PAYING and payment.kind is Kind.CONSUMER_QR and payment.sent_at is not None:
        return payment.sent_at + poll_schedule.ATTENDED_S
    return payment.expires_at + poll_schedule.AFTERMATH_S


def _words(engine: EngineReport, event: PaymentEvent) -> MessageCode:
    """The engine's codes are its own; those that a payer can do something about have words of their own. Of what was reversed it says that
    nothing was taken; of what ran out or was refused because the order is over, money may still be on its way."""
    if event is PaymentEvent.ENGINE_FAILED:
        return _BY_FAILURE.get(engine.failure_code or "", MessageCode.FAILED)
    reversed_ = event is PaymentEvent.ENGINE_REVERSED and engine.failure_code == "REVERSED"
    return MessageCode.CLOSED_UNPAID if reversed_ else _MESSAGES[event]


_BY_FAILURE = {
    "BALANCE_INSUFFICIENT": MessageCode.BALANCE_INSUFFICIENT,
    "INSTRUMENT_DECLINED": MessageCode.INSTRUMENT_DECLINED,
    "CHANNEL_UNAVAILABLE": MessageCode.CHANNEL_UNAVAILABLE,
    "AUTH_CODE_USED": MessageCode.AUTH_CODE_USED,
    "DECLINED": MessageCode.DECLINED,
    "ORDER_PAID": MessageCode.ORDER_PAID,
}
_BY_STATUS = {
    PaymentStatus.SUCCEEDED: MessageCode.SUCCEEDED,
    PaymentStatus.FAILED: MessageCode.FAILED,
    PaymentStatus.CLOSED: MessageCode.CLOSED,
    PaymentStatus.CLOSED_REFUNDING: MessageCode.CLOSED_REFUNDING,
}
_MESSAGES = {
    PaymentEvent.CHALLENGE_OPEN: MessageCode.CHALLENGE,
    PaymentEvent.CHALLENGE_OVER: MessageCode.CLOSING,
    PaymentEvent.CHALLENGE_FAILED: MessageCode.CHALLENGE_FAILED,
    PaymentEvent.ENGINE_SILENT: MessageCode.OUTCOME_UNKNOWN,
    PaymentEvent.ENGINE_NEVER_ARRIVED: MessageCode.OUTCOME_UNKNOWN,
    PaymentEvent.ENGINE_SEALED: MessageCode.CLOSED_UNPAID,
    PaymentEvent.ENGINE_PROCESSING: MessageCode.PROCESSING,
    PaymentEvent.ENGINE_USER_PAYING: MessageCode.USER_PAYING,
    PaymentEvent.ENGINE_ACTION_REQUIRED: MessageCode.ACTION_REQUIRED,
    PaymentEvent.ENGINE_SUCCEEDED: MessageCode.CONFIRMING,
    PaymentEvent.ENGINE_REVERSED: MessageCode.CLOSED,
    PaymentEvent.ACQUIRER_SILENT: MessageCode.OUTCOME_UNKNOWN,
    PaymentEvent.ORDER_PAID: MessageCode.SUCCEEDED,
    PaymentEvent.ORDER_REFUNDED: MessageCode.SUCCEEDED_REFUNDED,
    PaymentEvent.ORDER_CLOSED_REFUNDING: MessageCode.CLOSED_REFUNDING,
    PaymentEvent.ORDER_CLOSED_REFUNDED: MessageCode.CLOSED_REFUNDED,
    PaymentEvent.PAID_TWICE: MessageCode.PAID_TWICE_REFUNDING,
    PaymentEvent.ORDER_OVER: MessageCode.CLOSING,
    PaymentEvent.CANCELLED: MessageCode.CLOSING,
    PaymentEvent.EXPIRED: MessageCode.CLOSING,
}
