"""The message of a payment to its payer.

Its texts are in `Wording.payments`. Those of `RETURN_PROMISES` have a form of their own for kinds
whose rail has no way back.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class MessageCode(StrEnum):
    """In the order in progress, succeeded, failed, closed (and what happens to money taken)."""

    CHALLENGE = "CHALLENGE"
    CHALLENGE_WRONG = "CHALLENGE_WRONG"
    ACTION_REQUIRED = "ACTION_REQUIRED"
    PROCESSING = "PROCESSING"
    USER_PAYING = "USER_PAYING"
    UNDERPAID = "UNDERPAID"
    UNDERPAID_RETURNED = "UNDERPAID_RETURNED"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    CONFIRMING = "CONFIRMING"
    CLOSING = "CLOSING"
    SUCCEEDED = "SUCCEEDED"
    SUCCEEDED_REFUNDED = "SUCCEEDED_REFUNDED"
    OVERPAID = "OVERPAID"
    FAILED = "FAILED"
    CHALLENGE_FAILED = "CHALLENGE_FAILED"
    BALANCE_INSUFFICIENT = "BALANCE_INSUFFICIENT"
    INSTRUMENT_DECLINED = "INSTRUMENT_DECLINED"
    CHANNEL_UNAVAILABLE = "CHANNEL_UNAVAILABLE"
    AUTH_CODE_USED = "AUTH_CODE_USED"
    PROMOTION_GONE = "PROMOTION_GONE"
    DECLINED = "DECLINED"
    ORDER_PAID = "ORDER_PAID"
    CLOSED = "CLOSED"
    CLOSED_UNPAID = "CLOSED_UNPAID"
    CANCELLED = "CANCELLED"
    CLOSED_RECEIVED = "CLOSED_RECEIVED"
    CLOSED_REFUNDING = "CLOSED_REFUNDING"
    CLOSED_REFUNDED = "CLOSED_REFUNDED"
    PAID_TWICE_REFUNDING = "PAID_TWICE_REFUNDING"


# The messages whose text says that money goes back.
RETURN_PROMISES = frozenset(
    {
        MessageCode.UNDERPAID_RETURNED,
        MessageCode.OVERPAID,
        MessageCode.CLOSED,
        MessageCode.CLOSED_RECEIVED,
        MessageCode.CLOSED_REFUNDING,
        MessageCode.CLOSED_REFUNDED,
        MessageCode.PAID_TWICE_REFUNDING,
    }
)


class Message(Struct, frozen=True):
    """`text`: in the payer's locale, never to be parsed."""

    code: MessageCode
    text: str
