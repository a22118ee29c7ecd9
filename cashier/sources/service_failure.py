"""Failures of the services that take payments, passed on to the log of failures."""

from __future__ import annotations

from typing import TypeVar

from cashier.fanout.failure_log import OnFailure
from cashier.source_errors import SourceError
from cashier.wire.transport import Transport

Outcome = TypeVar("Outcome")


def note_failure(outcome: Outcome, transport: Transport, on_failure: OnFailure) -> Outcome:
    """Return `outcome`, after reporting the `SourceError` in it, if any."""
    error = getattr(outcome, "error", None)
    if isinstance(error, SourceError):
        on_failure(", ".join(transport.addresses), error)
    return outcome
