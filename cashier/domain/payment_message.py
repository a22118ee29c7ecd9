"""The message of a payment to its payer. Texts: `texts.toml`, under `[locale.payments]`."""

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
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    CONFIRMING = "CONFIRMING"
    CLOSING = "CLOSING"
    SUCCEEDED = "SUCCEEDED"
    SUCCEEDED_REFUNDED = "SUCCEEDED_REFUNDED"
    FAILED = "FAILED"
    CHALLENGE_FAILED = "CHALLENGE_FAILED"
    BALANCE_INSUFFICIENT = "BALANCE_INSUFFICIENT"
    INSTRUMENT_DECLINED = "INSTRUMENT_DECLINED"
    CHANNEL_UNAVAILABLE = "CHANNEL_UNAVAILABLE"
    AUTH_CODE_USED = "AUTH_CODE_USED"
    DECLINED = "DECLINED"
    ORDER_PAID = "ORDER_PAID"
    CLOSED = "CLOSED"
    CLOSED_UNPAID = "CLOSED_UNPAID"
    CANCELLED = "CANCELLED"
    CLOSED_REFUNDING = "CLOSED_REFUNDING"
    CLOSED_REFUNDED = "CLOSED_REFUNDED"
    PAID_TWICE_REFUNDING = "PAID_TWICE_REFUNDING"


class Message(Struct, frozen=True):
    """`text`: in the payer's locale, never to be parsed."""

    code: MessageCode
    text: str
