"""Marketing: what would make it cheaper, and what it would like to see first."""

from __future__ import annotations

from typing import Any

from cashier.domain.facts import Marketing
from cashier.source_errors import Garbled, WrongIdentity
from cashier.sources.source import Inputs, source


def target(asked: Inputs) -> str:
    amount = asked["amount"]
    return f"/members/{asked['user_id']}/promotions?merchant_id={asked['merchant_id']}&currency={amount.currency}&value={amount.value}"


def parameters(asked: Inputs) -> dict[str, Any]:
    amount = asked["amount"]
    return {
        "user_id": asked["user_id"],
        "merchant_id": asked["merchant_id"],
        "currency": amount.currency,
        "value": amount.value,
    }


def accept(answer: Marketing | None, asked: Inputs) -> Marketing:
    """A user whom marketing does not know is offered nothing. A promotion listed twice could be used twice."""
    if answer is None:
        return Marketing(asked["user_id"], (), ())
    if answer.user_id != asked["user_id"]:
        raise WrongIdentity("answered about another user")
    if len({promotion.promotion_id for promotion in answer.promotions}) < len(answer.promotions):
        raise Garbled("two promotions of one promotion_id")
    return answer


MARKETING = source("marketing", Marketing, target, accept, parameters)
