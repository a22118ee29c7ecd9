"""What is counted about payments: their ends and routes, and what should be rare."""

from __future__ import annotations

from collections import OrderedDict

from cashier.domain.pay_method import Kind
from cashier.domain.payment_state import FINAL, PaymentStatus
from cashier.metrics.store import Counter, Store
from cashier.tokens.payment_state_token import PaymentClaims

# Each end is counted once; of so many payments it is remembered that it was.
_MOST_REMEMBERED = 10_000


class PaymentMetrics:
    """The counters of one worker. Labels hold no ids but those of channels and rules."""

    def __init__(self, metrics: Store | None = None) -> None:
        self._metrics = metrics = metrics or Store()
        self._ended: OrderedDict[tuple[str, PaymentStatus], None] = OrderedDict()
        # From the start, because a first increase shows only in a series that was there before.
        self._ends = {
            (kind, status): metrics.counter("cashier_payments_total", kind, status)
            for kind in Kind
            for status in sorted(FINAL)
        }
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
        self._ends[claims.kind, status].add()

    def count_route(self, rule: str, channel_id: str) -> None:
        """A payment goes to the engine by this route."""
        self._metrics.counter("cashier_route_total", rule, channel_id).add()

    def breaches_of(self, obligation: str) -> Counter:
        """Counts payments with which the engine broke this obligation."""
        return self._metrics.counter("cashier_engine_breaches_total", obligation)
