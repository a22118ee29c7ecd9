"""The balance service: the accounts that the user holds with the operator."""

from __future__ import annotations

from typing import Any

from cashier.domain.facts import ACCOUNT_BARRED, ACTIVE, Balances
from cashier.source_errors import FailureReason, Garbled, WrongIdentity
from cashier.sources.doubts import doubt
from cashier.sources.source import Inputs, define_source


def target(inputs: Inputs) -> str:
    return f"/members/{inputs['user_id']}/balances"


def parameters(inputs: Inputs) -> dict[str, Any]:
    return {"user_id": inputs["user_id"]}


def to_fact(answer: Balances | None, inputs: Inputs) -> Balances:
    """An unknown user has no accounts."""
    if answer is None:
        return Balances(inputs["user_id"], ())
    if answer.user_id != inputs["user_id"]:
        raise WrongIdentity("an answer about another user")
    if len({account.account_id for account in answer.accounts}) < len(answer.accounts):
        raise Garbled("two accounts with one account_id", reason=FailureReason.FIELD)
    for account in answer.accounts:
        if account.status != ACTIVE and account.status not in ACCOUNT_BARRED:
            doubt("balance", "an account", "status", account.status, "it is undetermined")
    return answer


BALANCE = define_source("balance", Balances, target, to_fact, parameters)
