"""The whole life of a payment, as a table. A move that is not in it does not happen; a final status has no way out.

An event is the one fact that decides: what risk, engine, acquirer, caller or clock said. Which of all that was heard decides is found in
`standing`; here is only where it leads. An event leads to the same status wherever it is heard. Silence, time and a caller's wish to cancel
lead to PROCESSING and nowhere else: only what engine and acquirer say ends a payment that may have been sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Status(StrEnum):
    CHALLENGE = "CHALLENGE"
    ACTION_REQUIRED = "ACTION_REQUIRED"
    PROCESSING = "PROCESSING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CLOSED = "CLOSED"
    CLOSED_REFUNDING = "CLOSED_REFUNDING"


class Event(StrEnum):
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


FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CLOSED, Status.CLOSED_REFUNDING})

# Risk is asked before there is anything to tell. A rejection is told at once: nothing was sent.
START: Mapping[Event, Status] = {
    Event.RISK_ACCEPTED: Status.PROCESSING,
    Event.RISK_CHALLENGED: Status.CHALLENGE,
    Event.RISK_REJECTED: Status.FAILED,
}

# What any look may find of a payment that the engine may have: also while a challenge is open here, for it may be passed elsewhere.
_FOUND: Mapping[Event, Status] = {
    Event.ENGINE_SILENT: Status.PROCESSING,
    Event.ENGINE_NEVER_ARRIVED: Status.PROCESSING,
    Event.ENGINE_PROCESSING: Status.PROCESSING,
    Event.ENGINE_USER_PAYING: Status.PROCESSING,
    Event.ENGINE_SUCCEEDED: Status.PROCESSING,
    Event.ACQUIRER_SILENT: Status.PROCESSING,
    Event.ORDER_OVER: Status.PROCESSING,
    Event.CANCELLED: Status.PROCESSING,
    Event.EXPIRED: Status.PROCESSING,
    Event.ENGINE_ACTION_REQUIRED: Status.ACTION_REQUIRED,
    Event.ENGINE_FAILED: Status.FAILED,
    Event.ENGINE_REVERSED: Status.CLOSED,
    Event.ORDER_PAID: Status.SUCCEEDED,
    Event.ORDER_REFUNDED: Status.SUCCEEDED,
    Event.ORDER_CLOSED_REFUNDING: Status.CLOSED_REFUNDING,
    Event.ORDER_CLOSED_REFUNDED: Status.CLOSED_REFUNDING,
    Event.PAID_TWICE: Status.CLOSED_REFUNDING,
}
# And of one that the engine may never have had. Once it has asked for an action, it cannot be one of these.
_UNSENT: Mapping[Event, Status] = {
    Event.CHALLENGE_OPEN: Status.CHALLENGE,
    Event.CHALLENGE_PASSED: Status.PROCESSING,
    Event.CHALLENGE_OVER: Status.PROCESSING,
    Event.CHALLENGE_FAILED: Status.FAILED,
    Event.ENGINE_SEALED: Status.CLOSED,
}

NEXT: Mapping[Status, Mapping[Event, Status]] = {
    Status.CHALLENGE: {**_UNSENT, **_FOUND},
    Status.PROCESSING: {**_UNSENT, **_FOUND},
    Status.ACTION_REQUIRED: _FOUND,
    Status.SUCCEEDED: {},
    Status.FAILED: {},
    Status.CLOSED: {},
    Status.CLOSED_REFUNDING: {},
}
LEADS: Mapping[Event, Status] = {**START, **_UNSENT, **_FOUND}


class IllegalMove(Exception):
    """An event that cannot be heard there. Either we have a bug, or an upstream has taken back what it said for good."""

    def __init__(self, status: Status | None, event: Event) -> None:
        super().__init__(f"{event.name} leads nowhere from {'the start' if status is None else status}")
        self.status = status
        self.event = event


def moved(status: Status | None, event: Event) -> Status:
    """Where an event leads from a status; None is the start. Raises `IllegalMove`."""
    found = (START if status is None else NEXT[status]).get(event)
    if found is None:
        raise IllegalMove(status, event)
    return found
