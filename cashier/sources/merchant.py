"""The merchant service: status of the merchant, contracted products and kinds."""

from __future__ import annotations

from typing import Any

from cashier.domain.facts import Merchant
from cashier.source_errors import WrongIdentity
from cashier.sources.source import Inputs, define_source


def target(inputs: Inputs) -> str:
    return f"/merchants/{inputs['merchant_id']}"


def parameters(inputs: Inputs) -> dict[str, Any]:
    return {"merchant_id": inputs["merchant_id"]}


def to_fact(answer: Merchant | None, inputs: Inputs) -> Merchant | None:
    """None: there is no such merchant."""
    if answer is not None and answer.merchant_id != inputs["merchant_id"]:
        raise WrongIdentity("an answer about another merchant")
    return answer


MERCHANT = define_source("merchant", Merchant, target, to_fact, parameters, repetitive=True)
