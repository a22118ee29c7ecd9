"""The card centre: bound cards and signed agreements."""

from __future__ import annotations

from typing import Any

from cashier.domain.facts import ACTIVE, AGREEMENT_ENDED, Cards, CardStatus
from cashier.source_errors import FailureReason, Garbled, WrongIdentity
from cashier.sources.doubts import doubt
from cashier.sources.source import Inputs, define_source

_CARD_STATUSES = frozenset(CardStatus)


def target(inputs: Inputs) -> str:
    return f"/members/{inputs['user_id']}/cards"


def parameters(inputs: Inputs) -> dict[str, Any]:
    return {"user_id": inputs["user_id"]}


def to_fact(answer: Cards | None, inputs: Inputs) -> Cards:
    """An unknown user has no cards. Two cards with one id would make a payment method ambiguous."""
    if answer is None:
        return Cards(inputs["user_id"], (), ())
    if answer.user_id != inputs["user_id"]:
        raise WrongIdentity("an answer about another user")
    if len({card.card_id for card in answer.cards}) < len(answer.cards):
        raise Garbled("two cards with one card_id", reason=FailureReason.FIELD)
    if len({agreement.agreement_id for agreement in answer.agreements}) < len(answer.agreements):
        raise Garbled("two agreements with one agreement_id", reason=FailureReason.FIELD)
    for card in answer.cards:
        if card.status not in _CARD_STATUSES:
            doubt("card", "a card", "status", card.status, "it is undetermined")
    for agreement in answer.agreements:
        if agreement.status != ACTIVE and agreement.status not in AGREEMENT_ENDED:
            doubt("card", "an agreement", "status", agreement.status, "it is undetermined")
    return answer


CARD = define_source("card", Cards, target, to_fact, parameters)
