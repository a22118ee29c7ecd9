"""The quota service: how much of each limit is used."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from cashier.domain.facts import Quota, Quotas
from cashier.source_errors import Garbled, WrongIdentity
from cashier.sources.source import Inputs, source


class QuotaAnswer(Struct, frozen=True):
    user_id: str
    quotas: tuple[Quota, ...]


def target(asked: Inputs) -> str:
    return f"/members/{asked['user_id']}/quotas?currency={asked['currency']}"


def parameters(asked: Inputs) -> dict[str, Any]:
    return {"user_id": asked["user_id"], "currency": asked["currency"]}


def accept(answer: QuotaAnswer | None, asked: Inputs) -> Quotas:
    """A user without quotas is not limited by any. A limit in another currency than asked for cannot be compared, so it is no answer."""
    if answer is None:
        return Quotas.prepared(())
    if answer.user_id != asked["user_id"]:
        raise WrongIdentity("answered about another user")
    if not all(_is_in(quota, asked["currency"]) for quota in answer.quotas):
        raise Garbled("a quota in another currency than asked for")
    return Quotas.prepared(answer.quotas)


def _is_in(quota: Quota, currency: str) -> bool:
    single, daily, monthly = quota.single, quota.daily, quota.monthly
    return (
        (single is None or single.currency == currency)
        and (daily is None or daily.limit.currency == daily.used.currency == currency)
        and (monthly is None or monthly.limit.currency == monthly.used.currency == currency)
    )


QUOTA = source("quota", QuotaAnswer, target, accept, parameters)
