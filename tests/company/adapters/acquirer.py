"""Results of orders: the last entry of the order's journal, in words of the contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from cashier.wire.transport import Request, Response

from .amounts import money

BECAME = {
    "placed": "PENDING",
    "under payment": "PAYING",
    "settled": "PAID",
    "withdrawn": "CLOSED",
    "settled too late": "CLOSED_REFUNDING",
    "sent back": "REFUNDED",
}


async def result(order_id: str, call: Callable[[Request], Awaitable[Response]]) -> dict[str, Any] | None:
    journal = (await call(Request(f"/journal/{quote(order_id, safe='')}"))).json()
    if not journal["entries"]:
        return None
    last = journal["entries"][-1]
    received = last.get("received")
    return {
        "order_id": journal["order"],
        "status": BECAME[last["became"]],
        "payment_id": last.get("through"),
        "paid": received and money(*reversed(received.split(" "))),
        "closed_reason": last.get("because"),
    }
