"""The quota service: limits and how much of each is used."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from cashier.domain.facts import Quota, Quotas
from cashier.domain.pay_method import Kind
from cashier.source_errors import FailureReason, Garbled, WrongIdentity
from cashier.sources.doubts import doubt
from cashier.sources.source import Inputs, define_source

_KINDS = frozenset(Kind)


class QuotaAnswer(Struct, frozen=True):
    user_id: str
    quotas: tuple[Quota, ...]


def target(inputs: Inputs) -> str:
    return f"/members/{inputs['user_id']}/quotas?currency={inputs['currency']}"


def parameters(inputs: Inputs) -> dict[str, Any]:
    return {"user_id": inputs["user_id"], "currency": inputs["currency"]}


def to_fact(answer: QuotaAnswer | None, inputs: Inputs) -> Quotas:
    """An unknown user has no limits. A limit in another currency cannot be compared and garbles."""
    if answer is None:
        return Quotas.prepared(())
    if answer.user_id != inputs["user_id"]:
        raise WrongIdentity("an answer about another user")
    currency = inputs["currency"]
    for quota in answer.quotas:
        single, day, month = quota.single, quota.daily, quota.monthly
        if not (
            (single is None or single.currency == currency)
            and (day is None or day.limit.currency == day.used.currency == currency)
            and (month is None or month.limit.currency == month.used.currency == currency)
        ):
            raise Garbled("a quota in another currency than requested", reason=FailureReason.FIELD)
    quotas = Quotas.prepared(answer.quotas)
    for quota in quotas.unclear:
        _doubt(quota)
    return quotas


def unprepare(fact: Any, inputs: Inputs) -> Any:
    if not isinstance(fact, Quotas):
        return fact
    quotas = [quota for by_bank in fact.by_kind.values() for quotas in by_bank.values() for quota in quotas]
    return {"user_id": inputs["user_id"], "quotas": [*quotas, *fact.unclear]}


def _doubt(quota: Quota) -> None:
    effect = "the methods in its scope are undetermined"
    if quota.scope.kind in _KINDS:
        doubt("quota", "a quota", "every limit (single, daily, monthly)", None, effect)
    else:
        doubt("quota", "a quota", "scope.kind", quota.scope.kind, effect)


QUOTA = define_source("quota", QuotaAnswer, target, to_fact, parameters, unprepare=unprepare)
