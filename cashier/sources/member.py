"""The member service: status of the payer, and how the payer usually pays."""

from __future__ import annotations

from typing import Any

from cashier.domain.facts import Member
from cashier.source_errors import WrongIdentity
from cashier.sources.source import Inputs, define_source


def target(inputs: Inputs) -> str:
    return f"/members/{inputs['user_id']}"


def parameters(inputs: Inputs) -> dict[str, Any]:
    return {"user_id": inputs["user_id"]}


def to_fact(answer: Member | None, inputs: Inputs) -> Member | None:
    """None: there is no such member."""
    if answer is not None and answer.user_id != inputs["user_id"]:
        raise WrongIdentity("an answer about another user")
    return answer


MEMBER = define_source("member", Member, target, to_fact, parameters)
