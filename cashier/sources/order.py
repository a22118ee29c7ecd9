"""The acquirer, asked for the order: it owns it."""

from __future__ import annotations

from typing import Any

from cashier.domain.order import Order
from cashier.source_errors import WrongIdentity
from cashier.sources.source import Inputs, source


def target(asked: Inputs) -> str:
    return f"/orders/{asked['order_id']}"


def parameters(asked: Inputs) -> dict[str, Any]:
    return {"order_id": asked["order_id"]}


def accept(answer: Order | None, asked: Inputs) -> Order | None:
    """None: there is no such order."""
    if answer is not None and answer.order_id != asked["order_id"]:
        raise WrongIdentity("answered about another order")
    return answer


ORDER = source("order", Order, target, accept, parameters)
