"""The limits on a payment by one method: which channel, agreement and quotas set them."""

from __future__ import annotations

from collections.abc import Iterator

from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.explanation.schema import LimitExplanation
from cashier.domain.facts import Quota
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.limits import tightest_limits
from cashier.domain.money import Money
from cashier.domain.pay_method import Kind
from cashier.domain.quote import Quote

_PERIODS = ("single", "daily", "monthly")


def limits_of(
    case: ConsultationCase, kind: Kind, card_id: str | None, quote: Quote, ceiling: Money | None
) -> tuple[LimitExplanation, ...]:
    """Each limit in scope of this kind's instrument, the tightest of each period marked.

    `ceiling`: an agreement's own limit.
    """
    found = list(_limits(case, kind, card_id, quote, ceiling))
    tightest = {
        period: min((each.remaining.value for each in found if each.period == period), default=0)
        for period in map(str.upper, _PERIODS)
    }
    return tuple(_marked(each, tightest[each.period]) for each in found)


def _limits(
    case: ConsultationCase, kind: Kind, card_id: str | None, quote: Quote, ceiling: Money | None
) -> Iterator[LimitExplanation]:
    channel = quote.channel
    if channel is not None:
        yield LimitExplanation("SINGLE", f"channel {channel.channel_id}", channel.max, channel.max, False)
    if ceiling is not None:
        yield LimitExplanation("SINGLE", "agreement", ceiling, ceiling, False)
    provider, channel_id = (None, None) if channel is None else (channel.provider, channel.channel_id)
    for quota in KindAssessment(case, kind).quotas_for(provider):
        # One quota alone: what it contributes is what it limits.
        alone, _ = tightest_limits((quota,), channel_id, card_id, None, "quota")
        for period, remaining in zip(
            _PERIODS, (alone.single, alone.daily_remaining, alone.monthly_remaining), strict=True
        ):
            if remaining is not None:
                yield _of_quota(quota, period, remaining)


def _of_quota(quota: Quota, period: str, remaining: Money) -> LimitExplanation:
    scope = {key: value for key in quota.scope.__struct_fields__ if (value := getattr(quota.scope, key)) is not None}
    spent = quota.daily if period == "daily" else quota.monthly if period == "monthly" else None
    limit, used = (remaining, None) if spent is None else (spent.limit, spent.used)
    return LimitExplanation(period.upper(), "quota", limit, remaining, False, used, scope)


def _marked(limit: LimitExplanation, tightest: int) -> LimitExplanation:
    if limit.remaining.value != tightest:
        return limit
    return LimitExplanation(limit.period, limit.source, limit.limit, limit.remaining, True, limit.used, limit.scope)
