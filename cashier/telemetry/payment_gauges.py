"""The gauges of payments whose outcome a worker does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cashier.metrics.store import Store
from cashier.payments.background_queries import WatchedPayment


class PaymentGauges:
    """`watched`: the payments that this worker looks up. `now_s`: the time of day."""

    def __init__(
        self, metrics: Store, watched: Callable[[], Iterable[WatchedPayment]], now_s: Callable[[], float]
    ) -> None:
        self._unknown = metrics.gauge("cashier_payments_unknown")
        self._oldest = metrics.gauge("cashier_payment_unknown_oldest_seconds")
        self._watched = watched
        self._now_s = now_s

    def sample(self) -> None:
        """Set the gauges."""
        sent_at = [payment.sent_at for payment in self._watched() if payment.unknown]
        self._unknown.set(len(sent_at))
        self._oldest.set(max(0.0, self._now_s() - min(sent_at)) if sent_at else 0.0)
