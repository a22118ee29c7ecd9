"""Plan report: the worst cases of a configuration in time and calls, and its faults. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from cashier.consultation.source_pipeline import cache_settings, mechanisms, source_settings, timeout_ms
from cashier.consultation.source_table import CLAIMED, SOURCE_SPECS
from cashier.fanout.ask import Importance
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.hedge import HedgeSettings
from cashier.fanout.plan import Plan, latest_ends_ms, worst_calls, worst_time_ms
from cashier.settings.schema import Settings, SourceSettings

# Time to assemble, rank, sign and encode on a busy machine; see benchmarks/README.md.
_LEAST_RESERVE_MS = 2
# A source at 80 % of its capacity still has room for this share of extra calls. More of them could
# keep it overloaded after its trouble has ended. The default of Finagle's and Envoy's budgets.
MOST_EXTRA_BPS = 2_000


class SourceReportLine(Struct, frozen=True):
    """The worst cases of one source.

    `ends_ms`: its latest end if the caller claims amount and country; `ends_without_claims_ms`:
    otherwise.
    `calls`: the most that one consultation makes. `max_in_flight`: of all consultations of a
    worker; None: unbounded.
    """

    name: str
    importance: Importance
    needs: tuple[str, ...]
    timeout_ms: int
    ends_ms: int
    ends_without_claims_ms: int
    calls: int
    max_in_flight: int | None
    cache: CacheSettings
    batch: int | None


class PlanReport(Struct, frozen=True):
    """`worst_ms`: the latest end of the fan-out.

    `usual_calls`: of one consultation without hedges and retries, `worst_calls` with them. Over any
    ten seconds, hedges and retries add at most `extra_bps`, or one call a second.
    """

    lines: tuple[SourceReportLine, ...]
    deadline_ms: int
    reserve_ms: int
    worst_ms: int
    usual_calls: int
    worst_calls: int
    extra_bps: int


def plan_report(plan: Plan, settings: Settings) -> PlanReport:
    ends_ms, ends_without_claims_ms = latest_ends_ms(plan, CLAIMED), latest_ends_ms(plan)
    specs = {spec.source.name: spec for spec in SOURCE_SPECS}
    lines = []
    for ask in plan.asks:
        own = source_settings(settings, ask.name)
        guarded_by = mechanisms(own, settings)
        lines.append(
            SourceReportLine(
                name=ask.name,
                importance=ask.importance,
                needs=ask.needs,
                timeout_ms=ask.timeout_ms,
                ends_ms=ends_ms[ask.name],
                ends_without_claims_ms=ends_without_claims_ms[ask.name],
                calls=_calls(guarded_by),
                max_in_flight=None if guarded_by.limiter is None else guarded_by.limiter.most * len(own.urls),
                cache=cache_settings(specs[ask.name], own),
                batch=own.batch.max if own.batch else None,
            )
        )
    consult = settings.consult
    worst_ms = worst_time_ms(
        plan, deadline_ms=consult.deadline_ms, grace_ms=consult.grace_ms, reserve_ms=consult.reserve_ms
    )
    usual, worst = worst_calls(plan), worst_calls(plan, {line.name: line.calls for line in lines})
    return PlanReport(
        lines=tuple(lines),
        deadline_ms=consult.deadline_ms,
        reserve_ms=consult.reserve_ms,
        worst_ms=worst_ms,
        usual_calls=usual,
        worst_calls=worst,
        extra_bps=consult.extra_calls_bps,
    )


def faults(settings: Settings) -> Iterator[str]:
    """Yield each fault that breaks the deadline or the budget of calls, with a remedy."""
    consult = settings.consult
    left_ms = consult.deadline_ms - consult.reserve_ms
    if consult.reserve_ms < _LEAST_RESERVE_MS:
        yield (
            f"[consult] reserve_ms = {consult.reserve_ms} is less than our own work takes;"
            f" {_LEAST_RESERVE_MS} is the least"
        )
    if consult.extra_calls_bps > MOST_EXTRA_BPS:
        yield (
            f"[consult] extra_calls_bps = {consult.extra_calls_bps} makes the worst amplification"
            f" × {1 + consult.extra_calls_bps / 10_000:g}: hedges and retries could keep a source overloaded;"
            f" the bound is × {1 + MOST_EXTRA_BPS / 10_000:g}, extra_calls_bps = {MOST_EXTRA_BPS}:"
            " lower it, 500 is the default"
        )
    for spec in SOURCE_SPECS:
        name = spec.source.name
        own = source_settings(settings, name)
        configured_ms = own.timeout_ms
        if configured_ms is not None and configured_ms > left_ms and spec.importance is not Importance.ENRICHING:
            yield (
                f"[sources.{name}] timeout_ms = {configured_ms} cannot be kept:"
                f" deadline_ms = {consult.deadline_ms} less reserve_ms = {consult.reserve_ms}"
                f" leaves {left_ms}; lower this or raise that"
            )
        yield from (
            f"[sources.{name}] {fault}" for fault in _mechanism_faults(own, timeout_ms(spec, settings), settings)
        )


def _mechanism_faults(own: SourceSettings, source_timeout_ms: int, settings: Settings) -> Iterator[str]:
    extra_bps = settings.consult.extra_calls_bps
    if isinstance(own.hedge, HedgeSettings) and 10_000 - own.hedge.quantile_bps > extra_bps:
        yield (
            f"hedge quantile_bps = {own.hedge.quantile_bps} means"
            f" {(10_000 - own.hedge.quantile_bps) / 100:g} % extra calls,"
            f" more than [consult] extra_calls_bps = {extra_bps} allows; {10_000 - extra_bps} would fit"
        )
    guarded_by = mechanisms(own, settings)
    limiter, breaker = guarded_by.limiter, guarded_by.breaker
    if limiter is not None and not limiter.least <= limiter.start <= limiter.most:
        yield f"limiter start = {limiter.start} is not between least = {limiter.least} and most = {limiter.most}"
    if isinstance(own.hedge, HedgeSettings) and own.hedge.least_ms >= source_timeout_ms:
        yield (
            f"hedge least_ms = {own.hedge.least_ms} is never reached within timeout_ms = {source_timeout_ms};"
            " false turns hedging off"
        )
    if breaker is not None and breaker.open_s > breaker.open_max_s:
        yield f"breaker open_s = {breaker.open_s:g} is above open_max_s = {breaker.open_max_s:g}"
    if len(set(own.urls)) < len(own.urls):
        yield "url names an address twice"
    if own.batch and own.batch.wait_ms >= source_timeout_ms:
        yield f"batch wait_ms = {own.batch.wait_ms} leaves nothing of timeout_ms = {source_timeout_ms}"


def _calls(guarded_by: Mechanisms) -> int:
    """The budget leaves some extra calls at any `extra_bps`."""
    return 2 if guarded_by.retry or guarded_by.hedge is not None else 1
