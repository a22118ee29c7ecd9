"""Marketing: promotions, and payment methods to rank higher."""

from __future__ import annotations

from typing import Any

from cashier.domain.facts import Marketing
from cashier.domain.pay_method import Kind
from cashier.source_errors import FailureReason, Garbled, WrongIdentity
from cashier.sources.doubts import doubt
from cashier.sources.source import Inputs, define_source

_KINDS = frozenset(Kind)


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
        raise Garbled("two promotions with one promotion_id", reason=FailureReason.FIELD)
    for promotion in answer.promotions:
        if promotion.amount_off is None and promotion.percent_off_bps is None:
            doubt("marketing", "a promotion", "amount_off or percent_off_bps", None, "it never applies")
        elif promotion.kinds and not promotion.kinds & _KINDS:
            doubt("marketing", "a promotion", "kinds", ", ".join(sorted(promotion.kinds)), "it never applies")
    for boost in answer.boosts:
        if boost.kind not in _KINDS:
            doubt("marketing", "a boost", "kind", boost.kind, "it has no effect")
    return answer


MARKETING = define_source("marketing", Marketing, target, to_fact, parameters)
