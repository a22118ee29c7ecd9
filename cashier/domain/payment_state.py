"""The life of a payment, as a transition table. A transition that is not in it is illegal.

An event is the one fact that decides, from risk, engine, acquirer, caller or clock;
`status_resolution` chooses it. An event leads to the same status from everywhere, and a final
status has no successor. Silence, time and a cancellation lead to PROCESSING only: a payment that
may have been sent ends only by what engine or acquirer report.
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
    """The values are the labels of the README's diagram."""

    RISK_ACCEPTED = "risk accepts"
    RISK_CHALLENGED = "risk challenges"
    RISK_REJECTED = "risk rejects"
    CHALLENGE_OPEN = "not sent, challenge open"
    CHALLENGE_PASSED = "challenge passed"
    CHALLENGE_OVER = "challenge spent or expired"
    CHALLENGE_FAILED = "engine: reversed because the challenge was spent"
    ENGINE_SILENT = "engine silent"
    ENGINE_NEVER_ARRIVED = "engine: unknown"
    ENGINE_SEALED = "engine: reversed before it arrived"
    NEVER_ARRIVED_IN_TIME = "order over, engine: unknown, and cannot refuse it"
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

# Risk decides before the payment has a status. A rejection is final: nothing was sent.
START: Mapping[PaymentEvent, PaymentStatus] = {
    PaymentEvent.RISK_ACCEPTED: PaymentStatus.PROCESSING,
    PaymentEvent.RISK_CHALLENGED: PaymentStatus.CHALLENGE,
    PaymentEvent.RISK_REJECTED: PaymentStatus.FAILED,
}

# Possible for a payment that the engine may have, also while a challenge is open here: it may have
# been passed elsewhere.
_POSSIBLY_SENT: Mapping[PaymentEvent, PaymentStatus] = {
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
    PaymentEvent.CHALLENGE_FAILED: PaymentStatus.FAILED,
    PaymentEvent.ORDER_PAID: PaymentStatus.SUCCEEDED,
    PaymentEvent.ORDER_REFUNDED: PaymentStatus.SUCCEEDED,
    PaymentEvent.ORDER_CLOSED_REFUNDING: PaymentStatus.CLOSED_REFUNDING,
    PaymentEvent.ORDER_CLOSED_REFUNDED: PaymentStatus.CLOSED_REFUNDING,
    PaymentEvent.PAID_TWICE: PaymentStatus.CLOSED_REFUNDING,
}
# Possible for a payment that the engine may not have. Excluded once the engine has required an
# action.
_UNSENT: Mapping[PaymentEvent, PaymentStatus] = {
    PaymentEvent.CHALLENGE_OPEN: PaymentStatus.CHALLENGE,
    PaymentEvent.CHALLENGE_PASSED: PaymentStatus.PROCESSING,
    PaymentEvent.CHALLENGE_OVER: PaymentStatus.PROCESSING,
    PaymentEvent.ENGINE_SEALED: PaymentStatus.CLOSED,
    PaymentEvent.NEVER_ARRIVED_IN_TIME: PaymentStatus.CLOSED,
}

NEXT: Mapping[PaymentStatus, Mapping[PaymentEvent, PaymentStatus]] = {
    PaymentStatus.CHALLENGE: {**_UNSENT, **_POSSIBLY_SENT},
    PaymentStatus.PROCESSING: {**_UNSENT, **_POSSIBLY_SENT},
    PaymentStatus.ACTION_REQUIRED: _POSSIBLY_SENT,
    PaymentStatus.SUCCEEDED: {},
    PaymentStatus.FAILED: {},
    PaymentStatus.CLOSED: {},
    PaymentStatus.CLOSED_REFUNDING: {},
}
STATUS_AFTER: Mapping[PaymentEvent, PaymentStatus] = {**START, **_UNSENT, **_POSSIBLY_SENT}


class IllegalTransition(Exception):
    """An event that the status excludes: our bug, or an upstream has revoked a final result."""

    def __init__(self, status: PaymentStatus | None, event: PaymentEvent) -> None:
        super().__init__(f"{event.name} leads nowhere from {'the start' if status is None else status}")
        self.status = status
        self.event = event


def next_status(status: PaymentStatus | None, event: PaymentEvent) -> PaymentStatus:
    """The status after an event; `status` None is the start. Raises `IllegalTransition`."""
    successor = (START if status is None else NEXT[status]).get(event)
    if successor is None:
        raise IllegalTransition(status, event)
    return successor
