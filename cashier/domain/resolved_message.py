"""The message of a resolved payment: what its payer is to know, by the event that decided."""

from __future__ import annotations

from cashier.domain.engine_contract import ReversalReason
from cashier.domain.money import Money
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_state import PaymentEvent, PaymentStatus
from cashier.domain.upstream_report import Arrived, EngineReport

_PAYABLE = frozenset({PaymentEvent.ENGINE_ACTION_REQUIRED, PaymentEvent.ENGINE_USER_PAYING})
_ENDED_UNPAID = frozenset({PaymentEvent.ENGINE_REVERSED, PaymentEvent.ENGINE_SEALED})
# Their texts say that no money was taken, which is wrong where some arrived.
_OVER = _ENDED_UNPAID | {PaymentEvent.ENGINE_FAILED, PaymentEvent.CHALLENGE_FAILED}


def message_code(engine: EngineReport, event: PaymentEvent, due: Money | None) -> MessageCode:
    """The message of the deciding event. The same reports give the same message to every caller.

    `due`: what the payer is to pay. Where another sum arrived, the message says so.
    """
    arrived = engine.arrived(due)
    if arrived is not None:
        return _arrived_code(arrived, event) or _event_code(engine, event)
    if engine.received is not None and engine.received.value and event in _OVER:
        return MessageCode.CLOSED
    return _event_code(engine, event)


def _arrived_code(arrived: Arrived, event: PaymentEvent) -> MessageCode | None:
    if event in _PAYABLE:
        if arrived.kept.value >= arrived.due.value:
            # The payer has paid, and the engine still shows where to.
            return MessageCode.CONFIRMING
        return MessageCode.UNDERPAID if arrived.kept.value else MessageCode.UNDERPAID_RETURNED
    if event is PaymentEvent.ORDER_PAID and arrived.received.value > arrived.due.value:
        return MessageCode.OVERPAID
    # No text may say that nothing was taken.
    return MessageCode.CLOSED_RECEIVED if event in _OVER else None


def _event_code(engine: EngineReport, event: PaymentEvent) -> MessageCode:
    """Failure codes that a payer can act on have their own message.

    Only after a reversal is it certain that no money was taken. After an expiry, or a refusal
    because the order is over, money may still be on its way.
    """
    if event is PaymentEvent.ENGINE_FAILED:
        return BY_FAILURE.get(engine.failure_code or "", MessageCode.FAILED)
    if engine.reversed_because is ReversalReason.CANCELLED and event in _ENDED_UNPAID:
        return MessageCode.CANCELLED
    if event is PaymentEvent.ENGINE_REVERSED and engine.failure_code == "ORDER_PAID":
        return MessageCode.ORDER_PAID
    reversed_ = event is PaymentEvent.ENGINE_REVERSED and engine.was_reversed
    return MessageCode.CLOSED_UNPAID if reversed_ else _MESSAGES[event]


BY_FAILURE = {
    "BALANCE_INSUFFICIENT": MessageCode.BALANCE_INSUFFICIENT,
    "INSTRUMENT_DECLINED": MessageCode.INSTRUMENT_DECLINED,
    "CHANNEL_UNAVAILABLE": MessageCode.CHANNEL_UNAVAILABLE,
    "AUTH_CODE_USED": MessageCode.AUTH_CODE_USED,
    "PROMOTION_GONE": MessageCode.PROMOTION_GONE,
    "PROMOTION_MISMATCH": MessageCode.PROMOTION_GONE,
    "DECLINED": MessageCode.DECLINED,
}
# For a final status that was reported before, while the reports do not confirm it.
BY_STATUS = {
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
    PaymentEvent.NEVER_ARRIVED_IN_TIME: MessageCode.CLOSED,
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
