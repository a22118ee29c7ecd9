"""Status of a payment, from its token and the present reports of engine and acquirer.

No memory, no clock. The rules, in this order:

1. The acquirer's report on this payment's money is the payer's truth. It overrides the engine, and
   a final status that was reported before: that is a correction.
2. Else a reported final status stays.
3. The engine's result counts once the acquirer has answered too. FAILED is failed; reversed, or
   refused because the order was over, is closed. SUCCEEDED waits for the acquirer to report PAID,
   and is refunded if the order is closed or was paid by another payment.
4. Absence ends nothing. A payment that the engine does not know may still arrive; only a reversal
   that the engine answers with "never arrived" ends it (`SEALED`), because the engine refuses it
   from then on. The same holds when time is up, the order is over, the challenge is spent or the
   caller cancels: the engine is asked to reverse (`to_reverse`), and its answer decides. The first
   reason for a reversal, which the engine reports, says how the payment ended. No token does, or
   two callers would get two ends of one payment.
   An engine that cannot refuse what it does not have ends nothing by such an answer. Its payment
   ends once the acquirer reports the order as over and the submit has had its time to arrive.
5. A silent engine or acquirer leaves PROCESSING, and is asked again.

Without such a correction a final status stays without memory, because of two promises: a result
that the engine calls final is final, and an engine refuses for good what it was asked to reverse
and did not know.
"""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct

from cashier.domain import poll_schedule
from cashier.domain.challenge_progress import ChallengeProgress, ChallengeState, challenge_state
from cashier.domain.engine_contract import ReversalReason
from cashier.domain.kinds import KINDS
from cashier.domain.money import Money
from cashier.domain.next_action import Action, Await, ending_by, expiry
from cashier.domain.pay_method import Kind
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_state import FINAL, STATUS_AFTER, PaymentEvent, PaymentStatus, next_status
from cashier.domain.poll_schedule import PollSchedule
from cashier.domain.resolved_message import BY_STATUS, message_code
from cashier.domain.upstream_report import (
    REVERSED,
    AcquirerReport,
    AcquirerReportStatus,
    Arrived,
    EngineReport,
    EngineReportStatus,
)


class PaymentProgress(Struct, frozen=True, kw_only=True):
    """The payment's state in its token. Times in seconds since 1970.

    `sent_at`: the first submit to the engine; None before it, and then there is a `challenge` to
    pass. `arrival_s`: how long after that the engine may still receive it. `expires_at`: the end of
    the payer's time to act. `last_status`: the status that the token reported. `due`: what the
    payer is to pay; without it no message says that another sum arrived.
    """

    payment_id: str
    kind: Kind
    expires_at: int
    sent_at: int | None = None
    arrival_s: int = poll_schedule.LEAST_ARRIVAL_S
    challenge: ChallengeProgress | None = None
    cancelled: bool = False
    last_status: PaymentStatus | None = None
    due: Money | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a payment neither sent nor challenged: it could never end."""
        if self.sent_at is None and self.challenge is None:
            raise ValueError(f"{self.payment_id} was neither sent nor challenged")

    @property
    def pending_challenge(self) -> ChallengeProgress | None:
        """The challenge that the submit waits for, as far as this token knows.

        It may have been passed with another token. It has been if the engine once required an
        action.
        """
        sent = self.sent_at is not None or self.last_status is PaymentStatus.ACTION_REQUIRED
        return None if sent else self.challenge


class ResolvedStatus(Struct, frozen=True):
    """`event`: the deciding one; None if an earlier final status decided.

    `correction`: another final status was reported before. `next_action`, `poll_after_ms`: only
    before the end. `to_reverse`: ask the engine to reverse, once per query, then resolve again from
    its answer and a fresh acquirer's result before reporting. If that is not final either, report
    it; the next query asks again. Reversals may be repeated. `reversal_reason`: for that request.
    `arrived`: what came by transfers, if the engine says so. `refused_promotion`: the one that the
    payment failed for, if the engine names it.
    """

    status: PaymentStatus
    event: PaymentEvent | None
    message: MessageCode
    next_action: Action | None = None
    poll_after_ms: int | None = None
    to_reverse: bool = False
    reversal_reason: ReversalReason | None = None
    correction: bool = False
    arrived: Arrived | None = None
    refused_promotion: str | None = None

    @property
    def final(self) -> bool:
        return self.status in FINAL


# Failure codes without money taken and without fault of the payer: the order or its code is over,
# or the engine was asked to reverse.
CLOSED_CODES = frozenset({REVERSED, "EXPIRED", "ORDER_PAID", "ORDER_CLOSED", "ORDER_EXPIRED", "ORDER_REFUNDED"})
_OVER = frozenset(
    {
        AcquirerReportStatus.PAID,
        AcquirerReportStatus.CLOSED,
        AcquirerReportStatus.CLOSED_REFUNDING,
        AcquirerReportStatus.REFUNDED,
    }
)
_CLOSED = frozenset({AcquirerReportStatus.CLOSED, AcquirerReportStatus.CLOSED_REFUNDING})
_LIVE = {
    EngineReportStatus.PROCESSING: PaymentEvent.ENGINE_PROCESSING,
    EngineReportStatus.USER_PAYING: PaymentEvent.ENGINE_USER_PAYING,
    EngineReportStatus.ACTION_REQUIRED: PaymentEvent.ENGINE_ACTION_REQUIRED,
    EngineReportStatus.NEVER_ARRIVED: PaymentEvent.ENGINE_NEVER_ARRIVED,
    EngineReportStatus.UNSEALED: PaymentEvent.ENGINE_NEVER_ARRIVED,
    EngineReportStatus.SILENT: PaymentEvent.ENGINE_SILENT,
}
_UNKNOWN = frozenset({EngineReportStatus.NEVER_ARRIVED, EngineReportStatus.UNSEALED})
_PAYER_ACTS = frozenset({PaymentEvent.ENGINE_ACTION_REQUIRED, PaymentEvent.ENGINE_USER_PAYING})
_NOTHING_TO_POLL = FINAL | {PaymentStatus.CHALLENGE}
# What the acquirer reports about this payment's money.
_MONEY_MOVED = frozenset(
    {
        PaymentEvent.ORDER_PAID,
        PaymentEvent.ORDER_REFUNDED,
        PaymentEvent.ORDER_CLOSED_REFUNDING,
        PaymentEvent.ORDER_CLOSED_REFUNDED,
        PaymentEvent.PAID_TWICE,
    }
)
# Events that call for a reversal of a payment that is not final, and why. A challenge that is over
# has expired, or was spent: `_reversal_reason`.
_REVERSAL_REASONS = {
    PaymentEvent.ORDER_OVER: ReversalReason.ORDER_OVER,
    PaymentEvent.CANCELLED: ReversalReason.CANCELLED,
    PaymentEvent.EXPIRED: ReversalReason.EXPIRED,
    PaymentEvent.CHALLENGE_OVER: ReversalReason.EXPIRED,
}


def resolve_status(
    payment: PaymentProgress, engine: EngineReport, acquirer: AcquirerReport, now: datetime
) -> ResolvedStatus:
    """Raises `IllegalTransition` if the reports contradict the last reported status."""
    event = deciding_event(payment, engine, acquirer, now)
    status, arrived = STATUS_AFTER[event], engine.arrived(payment.due)
    message = message_code(engine, event, payment.due)
    if payment.last_status in FINAL:
        if status is payment.last_status or event in _MONEY_MOVED:
            correction = status is not payment.last_status
            return ResolvedStatus(
                status,
                event,
                message,
                correction=correction,
                arrived=arrived,
                refused_promotion=engine.refused_promotion,
            )
        # Not every engine keeps a payment that it refused before it arrived. Sealing it again shows
        # that it ended so.
        unknown = engine.status is EngineReportStatus.NEVER_ARRIVED
        to_reverse = unknown and payment.last_status is PaymentStatus.CLOSED
        return ResolvedStatus(payment.last_status, None, BY_STATUS[payment.last_status], to_reverse=to_reverse)
    if payment.last_status is not None:
        next_status(payment.last_status, event)
    return (
        ResolvedStatus(status, event, message, arrived=arrived, refused_promotion=engine.refused_promotion)
        if status in _NOTHING_TO_POLL
        else _unresolved(payment, engine, event, now)
    )


def deciding_event(
    payment: PaymentProgress, engine: EngineReport, acquirer: AcquirerReport, now: datetime
) -> PaymentEvent:
    final_event = _money_event(payment, engine, acquirer) or _engine_final_event(payment, engine, acquirer)
    if final_event is not None:
        return final_event
    if _cannot_arrive(payment, engine, acquirer, now.timestamp()):
        return PaymentEvent.NEVER_ARRIVED_IN_TIME
    return _reversing_event(payment, engine, acquirer, now) or _live_event(payment, engine)


def _money_event(payment: PaymentProgress, engine: EngineReport, acquirer: AcquirerReport) -> PaymentEvent | None:
    """The acquirer's report on this payment's money.

    Without an id, it is about the payment that succeeded.
    """
    owner = acquirer.payment_id
    if owner != payment.payment_id and (owner is not None or engine.status is not EngineReportStatus.SUCCEEDED):
        return None
    match acquirer.status:
        case AcquirerReportStatus.PAID:
            return PaymentEvent.ORDER_PAID
        case AcquirerReportStatus.CLOSED_REFUNDING:
            return PaymentEvent.ORDER_CLOSED_REFUNDING
        case AcquirerReportStatus.REFUNDED:
            # Reported both for an order that was paid and refunded, and for one that closed before
            # the money came.
            return PaymentEvent.ORDER_REFUNDED if acquirer.closed_reason is None else PaymentEvent.ORDER_CLOSED_REFUNDED
        case _:
            return None


def _engine_final_event(
    payment: PaymentProgress, engine: EngineReport, acquirer: AcquirerReport
) -> PaymentEvent | None:
    """The engine's final result, unless the acquirer contradicts it."""
    silent = acquirer.status is AcquirerReportStatus.SILENT
    match engine.status:
        case EngineReportStatus.SUCCEEDED:
            if acquirer.status not in _OVER:
                return PaymentEvent.ENGINE_SUCCEEDED
            return PaymentEvent.ORDER_CLOSED_REFUNDING if acquirer.status in _CLOSED else PaymentEvent.PAID_TWICE
        case EngineReportStatus.FAILED if not silent:
            if engine.reversed_because is ReversalReason.CHALLENGE_FAILED:
                return PaymentEvent.CHALLENGE_FAILED
            ended_unpaid = engine.was_reversed or engine.failure_code in CLOSED_CODES
            return PaymentEvent.ENGINE_REVERSED if ended_unpaid else PaymentEvent.ENGINE_FAILED
        case EngineReportStatus.SEALED if not silent:
            challenge_failed = engine.reversed_because is ReversalReason.CHALLENGE_FAILED
            return PaymentEvent.CHALLENGE_FAILED if challenge_failed else PaymentEvent.ENGINE_SEALED
        case EngineReportStatus.FAILED | EngineReportStatus.SEALED:
            return PaymentEvent.ACQUIRER_SILENT
        case _:
            return None


def _cannot_arrive(payment: PaymentProgress, engine: EngineReport, acquirer: AcquirerReport, now_s: float) -> bool:
    """Whether a payment that the engine cannot refuse is over all the same.

    The acquirer reports the order as over, so nothing more is sent, and what was sent has had its
    time to arrive. Should it arrive yet, engine and acquirer refuse or return the money.
    """
    challenge = payment.challenge
    last_sent_s = payment.sent_at or (challenge.expires_at if challenge is not None else payment.expires_at)
    return (
        engine.status is EngineReportStatus.UNSEALED
        and acquirer.status in _OVER
        and now_s >= last_sent_s + payment.arrival_s
    )


def _reversing_event(
    payment: PaymentProgress, engine: EngineReport, acquirer: AcquirerReport, now: datetime
) -> PaymentEvent | None:
    """Why a live payment should be reversed.

    The end of a challenge is no reason once the engine knows the payment.
    """
    if acquirer.status in _OVER:
        return PaymentEvent.ORDER_OVER
    if payment.cancelled:
        return PaymentEvent.CANCELLED
    if (
        engine.status in _UNKNOWN
        and payment.pending_challenge is not None
        and challenge_state(payment.pending_challenge, now.timestamp()) is not ChallengeState.OPEN
    ):
        return PaymentEvent.CHALLENGE_OVER
    return PaymentEvent.EXPIRED if _time_is_up(payment, engine, now.timestamp()) else None


def _time_is_up(payment: PaymentProgress, engine: EngineReport, now_s: float) -> bool:
    """Time ends a payment at a counter, an expired code or page, and an overdue submit.

    It does not end a payment that the engine is processing, or about which it is silent.
    """
    sent_at, reversed_after_s = payment.sent_at, KINDS[payment.kind].reversed_after_s
    if sent_at is not None and reversed_after_s is not None and now_s >= sent_at + reversed_after_s:
        return True
    match engine.status:
        case EngineReportStatus.NEVER_ARRIVED | EngineReportStatus.UNSEALED:
            return sent_at is not None and now_s >= sent_at + payment.arrival_s
        case EngineReportStatus.ACTION_REQUIRED:
            action_expiry = expiry(engine.next_action)
            return now_s >= payment.expires_at or (action_expiry is not None and now_s >= action_expiry.timestamp())
        case EngineReportStatus.USER_PAYING:
            return now_s >= payment.expires_at
        case _:
            return False


def _live_event(payment: PaymentProgress, engine: EngineReport) -> PaymentEvent:
    unsent = engine.status in _UNKNOWN and payment.pending_challenge is not None
    return PaymentEvent.CHALLENGE_OPEN if unsent else _LIVE[engine.status]


def _reversal_reason(payment: PaymentProgress, event: PaymentEvent) -> ReversalReason | None:
    """Why a payment with this deciding event is to be reversed. None: it is not."""
    challenge = payment.pending_challenge
    if event is PaymentEvent.CHALLENGE_OVER and challenge is not None and not challenge.attempts_left:
        return ReversalReason.CHALLENGE_FAILED
    return _REVERSAL_REASONS.get(event)


def _unresolved(payment: PaymentProgress, engine: EngineReport, event: PaymentEvent, now: datetime) -> ResolvedStatus:
    until_s = _poll_until_s(payment, event)
    late = now.timestamp() >= until_s
    schedule = poll_schedule.LATE if late else _schedule(payment, event)
    elapsed_s = now.timestamp() - _poll_start_s(payment, event, now.timestamp())
    after_ms = poll_schedule.poll_after_ms(schedule, elapsed_s)
    action: Action | None = None
    if event is PaymentEvent.ENGINE_ACTION_REQUIRED and engine.next_action is not None:
        action = ending_by(engine.next_action, datetime.fromtimestamp(payment.expires_at, UTC))
    elif not late:
        action = Await(poll_after_ms=after_ms, until=datetime.fromtimestamp(until_s, UTC))
    reason = _reversal_reason(payment, event)
    return ResolvedStatus(
        STATUS_AFTER[event],
        event,
        message_code(engine, event, payment.due),
        next_action=action,
        poll_after_ms=after_ms,
        to_reverse=reason is not None,
        reversal_reason=reason,
        arrived=engine.arrived(payment.due),
    )


def _schedule(payment: PaymentProgress, event: PaymentEvent) -> PollSchedule:
    if event is PaymentEvent.ENGINE_SUCCEEDED:
        return poll_schedule.CONFIRMING
    return KINDS[payment.kind].poll_schedule if event in _PAYER_ACTS else poll_schedule.PROMPT


def _poll_start_s(payment: PaymentProgress, event: PaymentEvent, now_s: float) -> int:
    """The start of the poll schedule.

    A reversal after the payer's time starts it anew at `expires_at`.
    """
    if event in _REVERSAL_REASONS and now_s >= payment.expires_at:
        return payment.expires_at
    pending = payment.pending_challenge
    return payment.sent_at or (pending.started_at if pending else payment.expires_at)


def _poll_until_s(payment: PaymentProgress, event: PaymentEvent) -> int:
    """The end of polling: at a counter the reversal, otherwise some time after `expires_at`."""
    sent_at, reversed_after_s = payment.sent_at, KINDS[payment.kind].reversed_after_s
    if event is PaymentEvent.ENGINE_USER_PAYING and sent_at is not None and reversed_after_s is not None:
        return sent_at + reversed_after_s
    return payment.expires_at + poll_schedule.AFTERMATH_S
