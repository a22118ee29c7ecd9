"""The member service: who pays, in what standing, and how they usually pay."""

from __future__ import annotations

from typing import Any

from cashier.domain.facts import Member
from cashier.source_errors import WrongIdentity
from cashier.sources.source import Inputs, source


def target(asked: Inputs) -> str:
    return f"/members/{asked['user_id']}"


def parameters(asked: Inputs) -> dict[str, Any]:
    return {"user_id": asked["user_id"]}


def accept(answer: Member | None, asked: Inputs) -> Member | None:
    """None: there is no such member."""
    if answer is not None and answer.user_id != asked["user_id"]:
        raise WrongIdentity("answered about another user")
    return answer


MEMBER = source("member", Member, target, accept, parameters)
