"""The card centre: bound cards and signed agreements."""

from __future__ import annotations

from typing import Any

from cashier.domain.facts import Cards
from cashier.source_errors import Garbled, WrongIdentity
from cashier.sources.source import Inputs, source


def target(asked: Inputs) -> str:
    return f"/members/{asked['user_id']}/cards"


def parameters(asked: Inputs) -> dict[str, Any]:
    return {"user_id": asked["user_id"]}


def accept(answer: Cards | None, asked: Inputs) -> Cards:
    """A user whom the card centre does not know has no cards. Two cards of one id would be one way to pay with two meanings."""
    if answer is None:
        return Cards(asked["user_id"], (), ())
    if answer.user_id != asked["user_id"]:
        raise WrongIdentity("answered about another user")
    if len({card.card_id for card in answer.cards}) < len(answer.cards):
        raise Garbled("two cards of one card_id")
    if len({agreement.agreement_id for agreement in answer.agreements}) < len(answer.agreements):
        raise Garbled("two agreements of one agreement_id")
    return answer


CARD = source("card", Cards, target, accept, parameters)
