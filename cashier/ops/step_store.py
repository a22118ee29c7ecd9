"""The steps of the payments of the last hour, in bounded memory."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

import msgspec

from cashier.payments.step_feed import PaymentStep

KEPT_S = 3_600.0
# Some 60,000 steps: those of some 10,000 payments.
MOST_BYTES = 32 << 20
# Of one payment, the last ones: a caller may repeat a submit for as long as it likes.
MOST_STEPS = 100
# Of one kept step, and of one payment, beside the bodies.
_STEP_BYTES = 80
_PAYMENT_BYTES = 1_000


class StepStore:
    """Belongs to the event loop of the operations port.

    What a payment did goes together: an hour after its last step, or as the payment whose last step
    is the oldest, beyond the bound.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, most_bytes: int = MOST_BYTES) -> None:
        self._monotonic = monotonic
        self._most_bytes = most_bytes
        self._payments: OrderedDict[str, _Steps] = OrderedDict()  # the one with the oldest last step first
        self._bytes = 0
        self._decoder = msgspec.json.Decoder(PaymentStep)

    def __repr__(self) -> str:
        return f"<StepStore {len(self._payments)} payments, {self._bytes} bytes>"

    @property
    def bytes_held(self) -> int:
        return self._bytes

    def put(self, payment_id: str, body: bytes) -> None:
        """`body`: the step as JSON."""
        steps = self._payments.get(payment_id)
        if steps is None:
            steps = self._payments[payment_id] = _Steps()
            self._bytes += _PAYMENT_BYTES
        self._payments.move_to_end(payment_id)
        steps.last_s = self._monotonic()
        steps.bodies.append(body)
        self._bytes += len(body) + _STEP_BYTES
        if len(steps.bodies) > MOST_STEPS:
            self._bytes -= len(steps.bodies.popleft()) + _STEP_BYTES
        self._expire()

    def steps(self, payment_id: str) -> tuple[PaymentStep, ...]:
        """In the order in which they ended. Empty for a payment that is not known here."""
        self._expire()
        steps = self._payments.get(payment_id)
        found = () if steps is None else tuple(map(self._decoder.decode, steps.bodies))
        return tuple(sorted(found, key=lambda step: step.at))

    def _expire(self) -> None:
        oldest_s = self._monotonic() - KEPT_S
        payments = self._payments
        while payments and (next(iter(payments.values())).last_s < oldest_s or self._bytes > self._most_bytes):
            _, steps = payments.popitem(last=False)
            self._bytes -= _PAYMENT_BYTES + sum(map(len, steps.bodies)) + _STEP_BYTES * len(steps.bodies)


class _Steps:
    __slots__ = ("bodies", "last_s")

    def __init__(self) -> None:
        self.bodies: deque[bytes] = deque()
        self.last_s = 0.0
