"""One log line for each step of a payment, which operators also find by the payment's id.

`cashier/logs/README.md` has the events and fields.

A line names order and payment, which lead to everything else. It has no user, merchant,
instrument, amount, token or answer to a challenge. A poll is a line only if it finds a change.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from msgspec import Struct

from cashier.domain.payment_state import PaymentStatus
from cashier.domain.upstream_report import EngineReportStatus
from cashier.logs import log_event
from cashier.payments.attempt import Attempt
from cashier.payments.policy import Operation
from cashier.payments.status_query import ResolvedPayment
from cashier.tokens.payment_state_token import PaymentClaims

_log = structlog.get_logger("cashier.payments")
# Payments whose last logged status is remembered. One that is forgotten is logged once more.
_MOST_REMEMBERED = 10_000
_WORD_START = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TRACE_ID = slice(3, 35)


def log_step(
    event: str, of: Attempt | PaymentClaims, operation: Operation, step: str, *, level: str = "info", **fields: Any
) -> None:
    line = {
        "step": step,
        "payment_id": of.payment_id,
        "order_id": of.chosen.order_id,
        "kind": of.kind.value,
        "request_id": operation.call_headers.request_id,
        "trace_id": (operation.call_headers.traceparent or "")[_TRACE_ID] or None,
        **fields,
    }
    log_event(_log, level, event, **line)
    if operation.steps is not None:
        operation.steps.add(event, level=level, **line)


@contextmanager
def refusals_logged(
    of: Attempt | PaymentClaims, operation: Operation, step: str, *refusals: type[Exception]
) -> Iterator[None]:
    """Log an exception of these types with its code."""
    started_s = time.monotonic()
    try:
        yield
    except refusals as refusal:
        code = refusal_code(refusal)
        log_step("payment refused", of, operation, step, code=code, elapsed_ms=elapsed_ms(started_s))
        raise


def refusal_code(refusal: Exception) -> str:
    """`CONSULT_CHANGED` of `ConsultChanged`; a refused token has a code of its own."""
    code = getattr(refusal, "code", None) if type(refusal).__name__ == "TokenRefused" else None
    return code or _WORD_START.sub("_", type(refusal).__name__).upper()


def elapsed_ms(started_s: float) -> float:
    """Since `time.monotonic` was `started_s`."""
    return round((time.monotonic() - started_s) * 1_000, 1)


class _Known(Struct):
    status: PaymentStatus
    unknown_since_s: float | None


class StatusLog:
    """The status of each payment as this worker logged it last."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def __repr__(self) -> str:
        return f"<StatusLog payments={len(self._known)}>"

    def note(self, claims: PaymentClaims, operation: Operation, resolved: ResolvedPayment) -> None:
        """Log a change of the status, and an unknown outcome that is known now."""
        resolution, engine = resolved.resolution, resolved.upstream.engine.status
        known, status, now_s = self._known.get(claims.payment_id), resolution.status, self._monotonic()
        is_unknown = claims.sent_at is not None and engine is EngineReportStatus.SILENT and not resolution.final
        unknown_since_s = None if known is None else known.unknown_since_s
        if unknown_since_s is not None and not is_unknown:
            log_step(
                "unknown outcome resolved",
                claims,
                operation,
                "status",
                status=status.value,
                engine=engine.value,
                unknown_s=round(now_s - unknown_since_s, 1),
            )
        if known is None or known.status is not status:
            log_step(
                "payment ended" if resolution.final else "payment status changed",
                claims,
                operation,
                "status",
                status=status.value,
                because=None if resolution.event is None else resolution.event.name,
                engine=engine.value,
                acquirer=resolved.upstream.acquirer.status.value,
                code=resolution.message.value,
                flags=_flags(claims, resolved),
            )
        if is_unknown and unknown_since_s is None:
            unknown_since_s = now_s
        self._known[claims.payment_id] = _Known(status, unknown_since_s if is_unknown else None)
        self._known.move_to_end(claims.payment_id)
        if len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)


def _flags(claims: PaymentClaims, resolved: ResolvedPayment) -> list[str]:
    flags = {
        "CANCEL_ASKED": claims.cancelled,
        "CORRECTED": resolved.resolution.correction,
        "TO_REVERSE": resolved.resolution.to_reverse,
        "REVERSED": resolved.upstream.engine.was_reversed,
    }
    return [name for name, holds in flags.items() if holds]
