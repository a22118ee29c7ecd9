"""Proof: what can be said of a configuration before anything is asked. Whether it keeps its deadline, and what it costs at worst.

Pure: reads a plan and numbers, builds and asks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from cashier.consultation.plan import CLAIMED, SOURCE_SPECS
from cashier.consultation.source_pipeline import freshness, mechanisms, settings_of, timeout_of
from cashier.fanout.ask import Importance
from cashier.fanout.guard import Mechanisms
from cashier.fanout.hedge import HedgeSettings
from cashier.fanout.plan import Plan, latest_ends_ms, worst_calls, worst_time_ms
from cashier.fanout.ttl import CacheSettings
from cashier.settings.schema import Settings, SourceSettings

# What assembling, ranking, signing and encoding take when the machine is busy; see benchmarks/README.md.
_LEAST_RESERVE_MS = 2


class SourceReportLine(Struct, frozen=True):
    """What is true of one question. `ends_ms` and `bare_ends_ms`: when it has ended at the latest, with the caller's claims and without.

    `calls`: how many one consultation makes at most for it; `most_under_way`: how many all consultations of a worker together.
    """

    name: str
    importance: Importance
    needs: tuple[str, ...]
    timeout_ms: int
    ends_ms: int
    bare_ends_ms: int
    calls: int
    most_under_way: int | None
    cache: CacheSettings
    batch: int | None


class PlanReport(Struct, frozen=True):
    """`worst_ms`: after so long the fan-out has ended, whatever the sources do. `worst_calls`: of one consultation, `usual_calls` without
    hedge or retry; over any ten seconds no more than `extra_bps` beyond that, or one a second."""

    lines: tuple[SourceReportLine, ...]
    deadline_ms: int
    reserve_ms: int
    worst_ms: int
    usual_calls: int
    worst_calls: int
    extra_bps: int


def plan_report(plan: Plan, settings: Settings) -> PlanReport:
    """What holds under all mechanisms that are configured."""
    claimed, bare = latest_ends_ms(plan, CLAIMED), latest_ends_ms(plan)
    questions = {question.source.name: question for question in SOURCE_SPECS}
    lines = []
    for ask in plan.asks:
        found = settings_of(settings, ask.name)
        guarded = mechanisms(found, settings)
        lines.append(
            SourceReportLine(
                ask.name,
                ask.importance,
                ask.needs,
                ask.timeout_ms,
                claimed[ask.name],
                bare[ask.name],
                _attempts(guarded),
                None if guarded.limiter is None else guarded.limiter.most * len(found.urls),
                freshness(questions[ask.name], found),
                found.batch.max if found.batch else None,
            )
        )
    consult = settings.consult
    worst_ms = worst_time_ms(
        plan, deadline_ms=consult.deadline_ms, grace_ms=consult.grace_ms, reserve_ms=consult.reserve_ms
    )
    usual, worst = worst_calls(plan), worst_calls(plan, {line.name: line.calls for line in lines})
    return PlanReport(
        tuple(lines), consult.deadline_ms, consult.reserve_ms, worst_ms, usual, worst, consult.extra_calls_bps
    )


def faults(settings: Settings) -> Iterator[str]:
    """Why the configuration cannot keep its deadline or its budget, each with its remedy."""
    consult = settings.consult
    left_ms = consult.deadline_ms - consult.reserve_ms
    if consult.reserve_ms < _LEAST_RESERVE_MS:
        yield f"[consult] reserve_ms = {consult.reserve_ms} is less than our own work takes; {_LEAST_RESERVE_MS} is the least"
    for question in SOURCE_SPECS:
        name = question.source.name
        found = settings_of(settings, name)
        timeout_ms = found.timeout_ms
        if timeout_ms is not None and timeout_ms > left_ms and question.importance is not Importance.ENRICHING:
            yield (
                f"[sources.{name}] timeout_ms = {timeout_ms} cannot be kept: deadline_ms = {consult.deadline_ms} less"
                f" reserve_ms = {consult.reserve_ms} leaves {left_ms}; lower this or raise that"
            )
        yield from (
            f"[sources.{name}] {fault}" for fault in _mechanism_faults(found, timeout_of(question, settings), settings)
        )


def _mechanism_faults(found: SourceSettings, timeout_ms: int, settings: Settings) -> Iterator[str]:
    extra_bps = settings.consult.extra_calls_bps
    if isinstance(found.hedge, HedgeSettings) and 10_000 - found.hedge.quantile_bps > extra_bps:
        yield (
            f"hedge quantile_bps = {found.hedge.quantile_bps} means {(10_000 - found.hedge.quantile_bps) / 100:g} % extra calls, more than"
            f" [consult] extra_calls_bps = {extra_bps} allows; {10_000 - extra_bps} would fit"
        )
    guarded = mechanisms(found, settings)
    limiter, breaker = guarded.limiter, guarded.breaker
    if limiter is not None and not limiter.least <= limiter.start <= limiter.most:
        yield f"limiter start = {limiter.start} is not between least = {limiter.least} and most = {limiter.most}"
    if isinstance(found.hedge, HedgeSettings) and found.hedge.least_ms >= timeout_ms:
        yield f"hedge least_ms = {found.hedge.least_ms} is never reached within timeout_ms = {timeout_ms}; false turns hedging off"
    if breaker is not None and breaker.open_s > breaker.open_max_s:
        yield f"breaker open_s = {breaker.open_s:g} is above open_max_s = {breaker.open_max_s:g}"
    if len(set(found.urls)) < len(found.urls):
        yield "url names an address twice"
    if found.batch and found.batch.wait_ms >= timeout_ms:
        yield f"batch wait_ms = {found.batch.wait_ms} leaves nothing of timeout_ms = {timeout_ms}"


def _attempts(guarded: Mechanisms) -> int:
    return 2 if guarded.extra_bps and (guarded.retry or guarded.hedge is not None) else 1
