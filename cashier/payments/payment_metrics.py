"""What is counted about payments: their ends and routes, and what should be rare."""

from __future__ import annotations

from collections import OrderedDict

from cashier.domain.payment_state import PaymentStatus
from cashier.metrics.store import Store
from cashier.tokens.payment_state_token import PaymentClaims

# Each end is counted once; of so many payments it is remembered that it was.
_MOST_REMEMBERED = 10_000


class PaymentMetrics:
    """The counters of one worker. Labels hold no ids but those of channels and rules."""

    def __init__(self, metrics: Store | None = None) -> None:
        self.metrics = metrics = metrics or Store()
        self._ended: OrderedDict[tuple[str, PaymentStatus], None] = OrderedDict()
        self.corrections = metrics.counter("cashier_payment_corrections_total")
        self.settled = metrics.counter("cashier_payment_queries_total", "settled")
        self.unwatched = metrics.counter("cashier_payment_queries_total", "refused")
        self.lessons = metrics.counter("cashier_payment_lessons_total")
        self.challenges_refused = metrics.counter("cashier_challenges_refused_total")

    def count_end(self, claims: PaymentClaims, status: PaymentStatus) -> None:
        """A payment has this final status."""
        if (claims.payment_id, status) in self._ended:
            return
        self._ended[claims.payment_id, status] = None
        if len(self._ended) > _MOST_REMEMBERED:
            self._ended.popitem(last=False)
        self.metrics.counter("cashier_payments_total", claims.kind, status.value).add()

    def count_route(self, rule: str, channel_id: str) -> None:
        """A payment goes to the engine by this route."""
        self.metrics.counter("cashier_route_total", rule, channel_id).add()

    def count_breach(self, obligation: str) -> None:
        """The engine broke an obligation, with one payment."""
        self.metrics.counter("cashier_engine_breaches_total", obligation).add()
