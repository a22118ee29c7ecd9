"""What takes payments through, as the door sees it. Nothing of how it does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from cashier.domain.payment_request import PaymentRequest
from cashier.domain.payment_resource import Payment


class PaymentsPort(Protocol):
    """All raise `TokenRefused`, `OrderUnknown` and the errors of `cashier.payments.errors`.

    `submit` and `answer` go on though who awaits them is cancelled: a payment is not undone by a client that leaves.
    """

    async def submit(
        self,
        request: PaymentRequest,
        idempotency_key: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """Once for each key."""

    async def answer(
        self,
        payment_id: str,
        payment_token: str,
        value: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """To a challenge. `value` is secret."""

    async def cancel(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> Payment:
        """The payer wants no more of it. What it says is where it stands, which need not be its end."""

    async def look(
        self,
        payment_id: str,
        payment_token: str,
        *,
        wait_ms: int = 0,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """As soon as it shows something else than the token says, or is final, or after `wait_ms`."""

    def follow(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Payment, None]:
        """The first at once, then each time that it shows something else; ends after a final one, or when followed for long enough.

        To be closed by who does not take all. Raises before the first only.
        """

    def stop_waiting(self) -> None:
        """From now on nobody waits: looks come back with what is known, and who follows comes to the end."""
