"""The simulated acquirer: it owns the orders, and its result is the final word about them.

An order is PENDING, PAYING while an attempt is live, then PAID. A failed attempt makes it PENDING
again. An order that expires without a live attempt has the result CLOSED with reason EXPIRED.
Money for an order that has closed or expired goes back: the order is CLOSED, its result
CLOSED_REFUNDING.
"""

from __future__ import annotations

from datetime import datetime

from cashier.sandbox.ledger import Ledger, PaymentParties
from cashier.sandbox.records import Json, money
from cashier.sandbox.risk import Amount
from cashier.sandbox.seed_data import Population
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
    """The orders of a population and their changes since the start. An unknown id gives None."""

    def __init__(self, population: Population, clock: Clock, ledger: Ledger) -> None:
        self._population = population
        self._clock = clock
        self._ledger = ledger
        self._changes: dict[str, Json] = {}

    def __repr__(self) -> str:
        return f"SimulatedAcquirer(changed={len(self._changes)})"

    def order(self, order_id: str) -> Json | None:
        """The body of `GET /orders/{order_id}`."""
        record = self._record(order_id)
        return _only(record, ORDER_FIELDS) if record else None

    def result(self, order_id: str) -> Json | None:
        """The body of `GET /orders/{order_id}/result`."""
        record = self._record(order_id)
        if record is None:
            return None
        result = _only(record, RESULT_FIELDS)
        if record["status"] == "CLOSED" and "paid" in record:
            return result | {"status": "CLOSED_REFUNDING"}
        if record["status"] == "PENDING" and self._is_over(record):
            return result | {"status": "CLOSED", "closed_reason": "EXPIRED"}
        return result

    def live_attempt(self, order_id: str) -> str | None:
        """The payment id of the order's live attempt."""
        record = self._record(order_id)
        return record["payment_id"] if record and record["status"] == "PAYING" else None

    def refusal(self, order_id: str) -> str | None:
        """The code that forbids taking money for an existing order, or None."""
        record = self._existing(order_id)
        if record["status"] in ("PAID", "CLOSED", "REFUNDED"):
            return f"ORDER_{record['status']}"
        return "ORDER_EXPIRED" if self._is_over(record) else None

    def begin(self, order_id: str, payment_id: str) -> None:
        """Start an attempt on the order."""
        self._change(order_id, status="PAYING", payment_id=payment_id)

    def release(self, order_id: str, payment_id: str) -> None:
        """End an attempt that took nothing."""
        if self.live_attempt(order_id) == payment_id:
            self._change(order_id, status="PENDING", payment_id=None)

    def collect(self, parties: PaymentParties, paid: Amount) -> None:
        """Pay the order with money received, or give it back if the order is over or paid."""
        record, amount = self._existing(parties.order_id), money(paid.currency, paid.value)
        if record["status"] == "PAID":
            self._ledger.give_back(parties, "REFUNDED")
            return
        if record["status"] == "CLOSED" or self._is_over(record):
            reason = record.get("closed_reason", "EXPIRED")
            self._change(
                parties.order_id, status="CLOSED", closed_reason=reason, payment_id=parties.payment_id, paid=amount
            )
            self._ledger.give_back(parties, "REFUNDED")
            return
        self._change(parties.order_id, status="PAID", payment_id=parties.payment_id, paid=amount)
        self._ledger.conclude(parties, "ORDER_PAID", paid)

    def close(self, order_id: str) -> bool:
        """Close the order for its merchant. False if it does not exist or is over."""
        record = self._record(order_id)
        if record is None or record["status"] not in ("PENDING", "PAYING"):
            return False
        self._change(order_id, status="CLOSED", closed_reason="CLOSED_BY_MERCHANT")
        return True

    def _is_over(self, record: Json) -> bool:
        return self._clock() >= datetime.fromisoformat(record["expires_at"])

    def _record(self, order_id: str) -> Json | None:
        placed = self._population.placed_order(order_id)
        return placed | self._changes.get(order_id, {}) if placed else None

    def _existing(self, order_id: str) -> Json:
        record = self._record(order_id)
        assert record is not None, f"order {order_id} does not exist"  # noqa: S101  a bug of the caller
        return record

    def _change(self, order_id: str, **fields: object) -> None:
        self._changes[order_id] = self._changes.get(order_id, {}) | fields


def _only(record: Json, names: tuple[str, ...]) -> Json:
    return {name: record[name] for name in names if record.get(name) is not None}
