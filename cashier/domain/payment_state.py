"""The whole life of a payment, as a table. A move that is not in it does not happen; a final status has no way out.

An event is the one fact that decides: what risk, engine, acquirer, caller or clock said. Which of all that was heard decides is found in
`standing`; here is only where it leads. An event leads to the same status wherever it is heard. Silence, time and a caller's wish to cancel
lead to PROCESSING and nowhere else: only what engine and acquirer say ends a payment that may have been sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class PaymentStatus(StrEnum):
    CHALLENGE = "CHALLENGE"
    ACTION_REQUIRED = "ACTION_REQUIRED"
    PROCESSING = "PROCESSING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CLOSED = "CLOSED"
    CLOSED_REFUNDING = "CLOSED_REFUNDING"


class PaymentEvent(StrEnum):
    """Values are as the README's diagram words them."""

    RISK_ACCEPTED = "risk accepts"
    RISK_CHALLENGED = "risk challenges"
    RISK_REJECTED = "risk rejects"
    CHALLENGE_OPEN = "not sent, challenge open"
    CHALLENGE_PASSED = "challenge passed"
    CHALLENGE_OVER = "challenge spent or expired"
    CHALLENGE_FAILED = "challenge spent, never sent"
    ENGINE_SILENT = "engine silent"
    ENGINE_NEVER_ARRIVED = "engine: unknown"
    ENGINE_SEALED = "engine: reversed before it arrived"
    ENGINE_PROCESSING = "engine: processing"
    ENGINE_USER_PAYING = "engine: user paying"
    ENGINE_ACTION_REQUIRED = "engine: action required"
    ENGINE_SUCCEEDED = "engine: succeeded"
    ENGINE_FAILED = "engine: failed"
    ENGINE_REVERSED = "engine: reversed, or refused because the order is over"
    ACQUIRER_SILENT = "acquirer silent"
    ORDER_PAID = "order paid by this payment"
    ORDER_REFUNDED = "order paid by this payment, and refunded"
    ORDER_CLOSED_REFUNDING = "order closed, money taken"
    ORDER_CLOSED_REFUNDED = "order closed, money returned"
    PAID_TWICE = "engine: succeeded, order paid by another"
    ORDER_OVER = "order closed or paid by another"
    CANCELLED = "cancel asked for"
    EXPIRED = "time is up"


FINAL = frozenset({PaymentStatus.SUCCEEDED, PaymentStatus.FAILED, PaymentStatus.CLOSED, PaymentStatus.CLOSED_REFUNDING})

# Risk is asked before there is anything to tell. A rejection is told at once: nothing was sent.
START: Mapping[PaymentEvent, PaymentStatus] = {
    PaymentEvent.RISK_ACCEPTED: PaymentStatus.PROCESSING,
    PaymentEvent.RISK_CHALLENGED: PaymentStatus.CHALLENGE,
    PaymentEvent.RISK_REJECTED: PaymentStatus.FAILED,
}

# What any look may find of a payment that the engine may have: also while a challenge is open here, for it may be passed elsewhere.
_FOUND: Mapping[PaymentEvent, PaymentStatus] = {
    PaymentEvent.ENGINE_SILENT: PaymentStatus.PROCESSING,
    PaymentEvent.ENGINE_NEVER_ARRIVED: PaymentStatus.PROCESSING,
    PaymentEvent.ENGINE_PROCESSING: PaymentStatus.PROCESSING,
    PaymentEvent.ENGINE_USER_PAYING: PaymentStatus.PROCESSING,
    PaymentEvent.ENGINE_SUCCEEDED: PaymentStatus.PROCESSING,
    PaymentEvent.ACQUIRER_SILENT: PaymentStatus.PROCESSING,
    PaymentEvent.ORDER_OVER: PaymentStatus.PROCESSING,
    PaymentEvent.CANCELLED: PaymentStatus.PROCESSING,
    PaymentEvent.EXPIRED: PaymentStatus.PROCESSING,
    PaymentEvent.ENGINE_ACTION_REQUIRED: PaymentStatus.ACTION_REQUIRED,
    PaymentEvent.ENGINE_FAILED: PaymentStatus.FAILED,
    PaymentEvent.ENGINE_REVERSED: PaymentStatus.CLOSED,
    PaymentEvent.ORDER_PAID: PaymentStatus.SUCCEEDED,
    PaymentEvent.ORDER_REFUNDED: PaymentStatus.SUCCEEDED,
    PaymentEvent.ORDER_CLOSED_REFUNDING: PaymentStatus.CLOSED_REFUNDING,
    PaymentEvent.ORDER_CLOSED_REFUNDED: PaymentStatus.CLOSED_REFUNDING,
    PaymentEvent.PAID_TWICE: PaymentStatus.CLOSED_REFUNDING,
}
# And of one that the engine may never have had. Once it has asked for an action, it cannot be one of these.
_UNSENT: Mapping[PaymentEvent, PaymentStatus] = {
    PaymentEvent.CHALLENGE_OPEN: PaymentStatus.CHALLENGE,
    PaymentEvent.CHALLENGE_PASSED: PaymentStatus.PROCESSING,
    PaymentEvent.CHALLENGE_OVER: PaymentStatus.PROCESSING,
    PaymentEvent.CHALLENGE_FAILED: PaymentStatus.FAILED,
    PaymentEvent.ENGINE_SEALED: PaymentStatus.CLOSED,
}

NEXT: Mapping[PaymentStatus, Mapping[PaymentEvent, PaymentStatus]] = {
    PaymentStatus.CHALLENGE: {**_UNSENT, **_FOUND},
    PaymentStatus.PROCESSING: {**_UNSENT, **_FOUND},
    PaymentStatus.ACTION_REQUIRED: _FOUND,
    PaymentStatus.SUCCEEDED: {},
    PaymentStatus.FAILED: {},
    PaymentStatus.CLOSED: {},
    PaymentStatus.CLOSED_REFUNDING: {},
}
STATUS_AFTER: Mapping[PaymentEvent, PaymentStatus] = {**START, **_UNSENT, **_FOUND}


class IllegalTransition(Exception):
    """An event that cannot be heard there. Either we have a bug, or an upstream has taken back what it said for good."""

    def __init__(self, status: PaymentStatus | None, event: PaymentEvent) -> None:
        super().__init__(f"{event.name} leads nowhere from {'the start' if status is None else status}")
        self.status = status
        self.event = event


def next_status(status: PaymentStatus | None, event: PaymentEvent) -> PaymentStatus:
    """Where an event leads from a status; None is the start. Raises `IllegalTransition`."""
    found = (START if status is None else NEXT[status]).get(event)
    if found is None:
        raise IllegalTransition(status, event)
    return found
