"""A shop's back end: creates an order for a till, or for a payer at the shop's printed code.

The contract of `[pages] order_url`: a repetition with the same `Idempotency-Key` and body is the
same order. Each order is for scan-to-pay, belongs to any payer, and can be paid for a quarter of an
hour.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Annotated

from msgspec import Meta, Struct

from cashier.sandbox.records import Json, money, record
from cashier.sandbox.risk import Amount, Identity
from cashier.sandbox.seed_data import Population
from cashier.sandbox.upstream_answer import UpstreamAnswer, error_answer
from cashier.sandbox.world_clock import Clock

ORDER_LIFE = timedelta(minutes=15)


class OrderBody(Struct, frozen=True, kw_only=True):
    """The body of `POST /orders`. `terminal_id`: of the till; absent at a printed code."""

    merchant_id: Identity
    amount: Amount
    terminal_id: Identity | None = None
    note: Annotated[str, Meta(max_length=64)] | None = None


class SimulatedShop:
    """Orders by their idempotency key."""

    def __init__(self, population: Population, clock: Clock) -> None:
        self._population = population
        self._clock = clock
        self._created: dict[tuple[str, str], tuple[OrderBody, Json]] = {}

    def __repr__(self) -> str:
        return f"SimulatedShop(orders={len(self._created)})"

    def create(self, order: OrderBody, key: str) -> UpstreamAnswer:
        """`order_id`, `amount`, `title`, `expires_at`, by the merchant's own clock."""
        if not key:
            return error_answer(400, "MALFORMED", field="Idempotency-Key", detail="Idempotency-Key is required")
        merchant = self._population.merchant(order.merchant_id)
        if merchant is None:
            return error_answer(404, "MERCHANT_UNKNOWN")
        if not order.amount.value:
            return error_answer(422, "AMOUNT_TOO_LOW")
        earlier = self._created.get((order.merchant_id, key))
        if earlier is not None:
            return UpstreamAnswer(200, earlier[1]) if earlier[0] == order else error_answer(422, "KEY_REUSED")
        placed = record(
            "order",
            order_id=f"o_sale_{len(self._created) + 1}",
            merchant_id=order.merchant_id,
            amount=money(order.amount.currency, order.amount.value),
            product="SCAN",
            country=merchant["country"],
            category="sale",
            title=order.note or str(merchant["name"]),
            expires_at=(self._clock().astimezone(UTC) + ORDER_LIFE).isoformat(timespec="seconds"),
        )
        self._population.place_order(placed)
        created = {name: placed[name] for name in ("order_id", "merchant_id", "amount", "title", "expires_at")}
        self._created[order.merchant_id, key] = order, created
        return UpstreamAnswer(200, created)
