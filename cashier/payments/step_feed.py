"""The steps of payments for operators: what the log has of them, whatever its level."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

import msgspec
from msgspec import Struct

FieldValue = str | int | float | list[str]


class PaymentStep(Struct, frozen=True, omit_defaults=True, tag="payment_step", tag_field="type"):
    """One step of a payment, as its log line has it.

    `at`: seconds since 1970, at its end. `worker`: the process id. `fields`: those of this event,
    without empty ones.
    """

    at: float
    worker: int
    payment_id: str
    order_id: str
    kind: str
    step: str
    event: str
    level: str
    request_id: str
    trace_id: str | None = None
    fields: dict[str, FieldValue] = {}


class StepFeed:
    """Hands each step on as JSON. `send`: None while no operations port takes them."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.send: Callable[[bytes], None] | None = None
        self._now = now
        self._encoder = msgspec.json.Encoder()

    def __repr__(self) -> str:
        return f"<StepFeed {'unused' if self.send is None else 'in use'}>"

    def add(
        self,
        event: str,
        *,
        level: str,
        step: str,
        payment_id: str,
        order_id: str,
        kind: str,
        request_id: str,
        trace_id: str | None,
        **fields: FieldValue | None,
    ) -> None:
        if self.send is None:
            return
        found = PaymentStep(
            at=round(self._now().timestamp(), 3),
            worker=os.getpid(),
            payment_id=payment_id,
            order_id=order_id,
            kind=kind,
            step=step,
            event=event,
            level=level,
            request_id=request_id,
            trace_id=trace_id,
            fields={name: value for name, value in fields.items() if value not in (None, [])},
        )
        self.send(self._encoder.encode(found))
