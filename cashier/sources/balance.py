"""The balance service: what the user keeps with us."""

from __future__ import annotations

from typing import Any

from cashier.domain.facts import Balances
from cashier.source_errors import Garbled, WrongIdentity
from cashier.sources.source import Inputs, source


def target(asked: Inputs) -> str:
    return f"/members/{asked['user_id']}/balances"


def parameters(asked: Inputs) -> dict[str, Any]:
    return {"user_id": asked["user_id"]}


def accept(answer: Balances | None, asked: Inputs) -> Balances:
    """A user whom the balance service does not know has no accounts."""
    if answer is None:
        return Balances(asked["user_id"], ())
    if answer.user_id != asked["user_id"]:
        raise WrongIdentity("answered about another user")
    if len({account.account_id for account in answer.accounts}) < len(answer.accounts):
        raise Garbled("two accounts of one account_id")
    return answer


BALANCE = source("balance", Balances, target, accept, parameters)
