"""The order, from the acquirer that owns it."""

from __future__ import annotations

from typing import Any

from cashier.domain.order import Order
from cashier.source_errors import WrongIdentity
from cashier.sources.source import Inputs, define_source


def target(inputs: Inputs) -> str:
    return f"/orders/{inputs['order_id']}"


def parameters(inputs: Inputs) -> dict[str, Any]:
    return {"order_id": inputs["order_id"]}


def to_fact(answer: Order | None, inputs: Inputs) -> Order | None:
    """None: there is no such order."""
    if answer is not None and answer.order_id != inputs["order_id"]:
        raise WrongIdentity("an answer about another order")
    return answer


ORDER = define_source("order", Order, target, to_fact, parameters)
