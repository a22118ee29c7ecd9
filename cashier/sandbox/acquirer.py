"""The acquirer: owns the orders and says what became of them. Its result is what a payer is told.

An order is PENDING, then PAYING while one attempt lives, then PAID; a failed attempt makes it PENDING again. An order whose time ran out
with no attempt alive has the result CLOSED, by EXPIRED. Money that comes in for an order that has meanwhile closed or expired does not
pay it: it goes back, the order is CLOSED, and its result CLOSED_REFUNDING.
"""

from __future__ import annotations

from datetime import datetime

from cashier.sandbox.contract_shapes import Json, money
from cashier.sandbox.ledger import Ledger, PaymentParties
from cashier.sandbox.population import Population
from cashier.sandbox.risk import Amount
from cashier.sandbox.world_clock import Clock

ORDER_FIELDS = (
    "order_id",
    "merchant_id",
    "user_id",
    "status",
    "amount",
    "product",
    "country",
    "category",
    "title",
    "expires_at",
)
RESULT_FIELDS = ("order_id", "status", "payment_id", "paid", "closed_reason")


class SimulatedAcquirer:
    """The orders of a cast and what has happened to them since the start. Ids that it does not know answer None."""

    def __init__(self, population: Population, clock: Clock, ledger: Ledger) -> None:
        self._population = population
        self._clock = clock
        self._ledger = ledger
        self._since: dict[str, Json] = {}

    def __repr__(self) -> str:
        return f"Acquirer(changed={len(self._since)})"

    def order(self, order_id: str) -> Json | None:
        """As `GET /orders/{order_id}` tells it."""
        record = self._record(order_id)
        return _only(record, ORDER_FIELDS) if record else None

    def result(self, order_id: str) -> Json | None:
        """As `GET /orders/{order_id}/result` tells it."""
        record = self._record(order_id)
        if record is None:
            return None
        told = _only(record, RESULT_FIELDS)
        if record["status"] == "CLOSED" and "paid" in record:
            return told | {"status": "CLOSED_REFUNDING"}
        if record["status"] == "PENDING" and self._is_over(record):
            return told | {"status": "CLOSED", "closed_reason": "EXPIRED"}
        return told

    def live_attempt(self, order_id: str) -> str | None:
        """The payment id that an order in progress waits for."""
        record = self._record(order_id)
        return record["payment_id"] if record and record["status"] == "PAYING" else None

    def refusal(self, order_id: str) -> str | None:
        """Why no money may be taken for an order that exists: a code, or nothing."""
        record = self._known(order_id)
        if record["status"] in ("PAID", "CLOSED", "REFUNDED"):
            return f"ORDER_{record['status']}"
        return "ORDER_EXPIRED" if self._is_over(record) else None

    def begin(self, order_id: str, payment_id: str) -> None:
        """An attempt lives."""
        self._change(order_id, status="PAYING", payment_id=payment_id)

    def release(self, order_id: str, payment_id: str) -> None:
        """The attempt is over and nothing was taken."""
        if self.live_attempt(order_id) == payment_id:
            self._change(order_id, status="PENDING", payment_id=None)

    def collect(self, parties: PaymentParties, paid: Amount) -> None:
        """Money came in: it pays the order, or goes back."""
        record, told = self._known(parties.order_id), money(paid.currency, paid.value)
        if record["status"] == "CLOSED" or self._is_over(record):
            reason = record.get("closed_reason", "EXPIRED")
            self._change(
                parties.order_id, status="CLOSED", closed_reason=reason, payment_id=parties.payment_id, paid=told
            )
            self._ledger.give_back(parties, "REFUNDED")
            return
        self._change(parties.order_id, status="PAID", payment_id=parties.payment_id, paid=told)
        self._ledger.conclude(parties, "ORDER_PAID", paid)

    def close(self, order_id: str) -> bool:
        """The shop withdraws the order. False where it cannot: there is none, or it is over."""
        record = self._record(order_id)
        if record is None or record["status"] not in ("PENDING", "PAYING"):
            return False
        self._change(order_id, status="CLOSED", closed_reason="CLOSED_BY_MERCHANT")
        return True

    def _is_over(self, record: Json) -> bool:
        return self._clock() >= datetime.fromisoformat(record["expires_at"])

    def _record(self, order_id: str) -> Json | None:
        placed = self._population.placed_order(order_id)
        return placed | self._since.get(order_id, {}) if placed else None

    def _known(self, order_id: str) -> Json:
        record = self._record(order_id)
        assert record is not None, f"asked about order {order_id}, which does not exist"  # noqa: S101  a bug of the caller
        return record

    def _change(self, order_id: str, **news: object) -> None:
        self._since[order_id] = self._since.get(order_id, {}) | news


def _only(record: Json, names: tuple[str, ...]) -> Json:
    return {name: record[name] for name in names if record.get(name) is not None}
