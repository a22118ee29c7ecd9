"""Marketing: promotions, and payment methods to rank higher."""

from __future__ import annotations

from typing import Any

from cashier.domain.facts import Marketing
from cashier.source_errors import Garbled, WrongIdentity
from cashier.sources.source import Inputs, define_source


def target(inputs: Inputs) -> str:
    amount = inputs["amount"]
    return (
        f"/members/{inputs['user_id']}/promotions"
        f"?merchant_id={inputs['merchant_id']}&currency={amount.currency}&value={amount.value}"
    )


def parameters(inputs: Inputs) -> dict[str, Any]:
    amount = inputs["amount"]
    return {
        "user_id": inputs["user_id"],
        "merchant_id": inputs["merchant_id"],
        "currency": amount.currency,
        "value": amount.value,
    }


def to_fact(answer: Marketing | None, inputs: Inputs) -> Marketing:
    """An unknown user has no promotions. A promotion listed twice could be applied twice."""
    if answer is None:
        return Marketing(inputs["user_id"], (), ())
    if answer.user_id != inputs["user_id"]:
        raise WrongIdentity("an answer about another user")
    if len({promotion.promotion_id for promotion in answer.promotions}) < len(answer.promotions):
        raise Garbled("two promotions with one promotion_id")
    return answer


MARKETING = define_source("marketing", Marketing, target, to_fact, parameters)
