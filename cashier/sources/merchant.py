"""The merchant service: is the merchant active, and for which products and kinds is it contracted?"""

from __future__ import annotations

from typing import Any

from cashier.domain.facts import Merchant
from cashier.source_errors import WrongIdentity
from cashier.sources.source import Inputs, source


def target(asked: Inputs) -> str:
    return f"/merchants/{asked['merchant_id']}"


def parameters(asked: Inputs) -> dict[str, Any]:
    return {"merchant_id": asked["merchant_id"]}


def accept(answer: Merchant | None, asked: Inputs) -> Merchant | None:
    """None: there is no such merchant."""
    if answer is not None and answer.merchant_id != asked["merchant_id"]:
        raise WrongIdentity("answered about another merchant")
    return answer


MERCHANT = source("merchant", Merchant, target, accept, parameters)
