"""The sources of the overview: what was counted, joined with what the workers report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from msgspec.structs import replace

from cashier.fanout.breaker import BreakerState
from cashier.ops import advice
from cashier.ops.history import (
    ANSWERS,
    DURATIONS,
    GOOD,
    Labels,
    TrendPoint,
    Window,
    bad_share,
    quantiles,
    together,
)
from cashier.ops.overview import AnswerCount, DiscoveryOverview, EndpointOverview, Health, SourceOverview, UrlOverview
from cashier.ops.percent import percent
from cashier.telemetry.worker_state import (
    MOST_FAILURES,
    EndpointState,
    FailureState,
    SourceState,
    WorkerState,
)

# Of the asks that needed an answer, the shares without one from which a source is not GOOD, BAD.
_WARN_SHARE, _BAD_SHARE = 0.01, 0.2
# A source whose slowest calls take this part of its longest timeout is about to fail.
_SLOW_PART = 0.9
# Calls per second: of fewer, the p99 of half a minute is a single call.
_CALLS_OF_A_P99 = 3.0
_BADNESS = attrgetter("badness")
# No worker reports: the names and mechanisms of the sources are unknown.
_NO_STATE = SourceState("", "", (), 0, 0, None, 0, 0.0, ())

Trends = Mapping[str, Iterable[TrendPoint]]


def source_overviews(window: Window, workers: Sequence[WorkerState], trends: Trends) -> tuple[SourceOverview, ...]:
    """The worst first, then the most important, in the order of the source table."""
    reported: dict[str, list[SourceState]] = {}
    for worker in workers:
        for source in worker.sources:
            reported.setdefault(source.name, []).append(source)
    counted = _Counted(window)
    names = [*reported, *(name for name in counted.answers if name not in reported)]
    sources = [_source(name, reported.get(name, []), counted, trends) for name in names]
    return tuple(sorted(sources, key=lambda source: list(Health).index(source.health)))


class _Counted:
    """The counters of a window, by the name of the source."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.answers = _by_source(window.counted(ANSWERS))
        self.calls = _by_source(window.counted("cashier_source_calls_total"))
        self.cache = _by_source(window.counted("cashier_cache_requests_total"))
        self.hedges_won = _by_source(window.counted("cashier_hedges_won_total"))
        self.durations = list(window.recorded(DURATIONS))


def _by_source(counted: Iterable[tuple[Labels, int]]) -> dict[str, list[tuple[Labels, int]]]:
    groups: dict[str, list[tuple[Labels, int]]] = {}
    for labels, count in counted:
        if count:
            groups.setdefault(labels[0], []).append((labels, count))
    return groups


def _source(name: str, states: Sequence[SourceState], counted: _Counted, trends: Trends) -> SourceOverview:
    first = states[0] if states else _NO_STATE
    window, answers = counted.window, counted.answers.get(name, [])
    total = sum(count for _, count in answers)
    endpoints, failures = _endpoints(states), _failures(states)
    durations = together(value for labels, value in counted.durations if labels[0] == name)
    limits = [endpoint.limit for endpoint in endpoints]
    source = SourceOverview(
        name=name,
        importance=first.importance,
        health=Health.GOOD,
        finding="",
        action="",
        rate=round(window.per_s(total), 2),
        bad=round(bad_share(answers), 4),
        quantiles=quantiles(durations),
        answers=_answer_counts(answers, total, window),
        calls={labels[1]: round(window.per_s(count), 2) for labels, count in counted.calls.get(name, [])},
        hedges_won=round(window.per_s(sum(count for _, count in counted.hedges_won.get(name, []))), 2),
        cache_hit_ratio=_hit_ratio(counted.cache.get(name, [])),
        breaker=max((endpoint.breaker for endpoint in endpoints), key=_BADNESS, default=BreakerState.CLOSED),
        in_flight=sum(endpoint.in_flight for endpoint in endpoints),
        limit=None if None in limits or not limits else sum(limit or 0 for limit in limits),
        extra_calls=sum(state.extra_calls for state in states),
        extra_calls_allowed=sum(state.extra_calls_allowed for state in states),
        timeout_ms=max((state.timeout_ms for state in states), default=0),
        ceiling_ms=first.ceiling_ms,
        hedge_after_ms=min((state.hedge_after_ms for state in states if state.hedge_after_ms), default=None),
        urls=_urls(name, first.urls, counted),
        endpoints=endpoints,
        failures=failures,
        trend=tuple(trends.get(name, ())),
        discovery=_discovery(states),
    )
    return _judged(source)


def _answer_counts(answers: Sequence[tuple[Labels, int]], total: int, window: Window) -> tuple[AnswerCount, ...]:
    """Those without an answer first, then the most frequent."""
    counts = [
        AnswerCount(labels[1], labels[2], round(window.per_s(count), 2), round(count / total, 4))
        for labels, count in answers
    ]
    return tuple(sorted(counts, key=lambda each: (each.status in GOOD, -each.share)))


def _hit_ratio(requests: Sequence[tuple[Labels, int]]) -> float | None:
    """`fallback` counts besides another result."""
    total = sum(count for labels, count in requests if labels[1] != "fallback")
    hits = sum(count for labels, count in requests if labels[1] in ("hit", "stale", "shared"))
    return round(hits / total, 4) if total else None


def _urls(name: str, configured: Sequence[str], counted: _Counted) -> tuple[UrlOverview, ...]:
    urls = dict.fromkeys([*configured, *(labels[1] for labels, _ in counted.durations if labels[0] == name)])
    overviews = []
    for url in urls:
        durations = together(value for labels, value in counted.durations if labels[:2] == (name, url))
        overviews.append(UrlOverview(url, round(counted.window.per_s(durations.count), 2), quantiles(durations)))
    return tuple(overviews)


def _endpoints(states: Sequence[SourceState]) -> tuple[EndpointOverview, ...]:
    """The worst first: open, then slow."""
    by_address: dict[str, list[EndpointState]] = {}
    for state in states:
        for endpoint in state.endpoints:
            by_address.setdefault(endpoint.address, []).append(endpoint)
    endpoints = [_endpoint(address, seen) for address, seen in by_address.items()]
    return tuple(
        sorted(endpoints, key=lambda each: (list(Health).index(each.health), -(each.latency_ms or 0.0), each.address))
    )


def _endpoint(address: str, seen: Sequence[EndpointState]) -> EndpointOverview:
    shut = [endpoint for endpoint in seen if endpoint.breaker is not BreakerState.CLOSED]
    latencies = [endpoint.latency_ms for endpoint in seen if endpoint.latency_ms is not None]
    limits = [endpoint.limit for endpoint in seen]
    health = Health.GOOD if latencies else Health.IDLE
    if shut:
        health = Health.BAD if len(shut) == len(seen) else Health.WARN
    return EndpointOverview(
        address=address,
        health=health,
        breaker=max((endpoint.breaker for endpoint in seen), key=_BADNESS),
        open_in=len(shut),
        workers=len(seen),
        in_flight=sum(endpoint.in_flight for endpoint in seen),
        limit=None if None in limits else sum(limit or 0 for limit in limits),
        latency_ms=round(sum(latencies) / len(latencies), 2) if latencies else None,
        probe_in_s=min((endpoint.probe_in_s for endpoint in shut), default=0.0),
    )


def _discovery(states: Sequence[SourceState]) -> DiscoveryOverview | None:
    found = [state.discovery for state in states if state.discovery is not None]
    if not found:
        return None
    ages = [each.age_s for each in found if each.age_s is not None]
    failures = [each.failure for each in found if each.failure]
    return DiscoveryOverview(
        way=found[0].way,
        age_s=max(ages) if len(ages) == len(found) else None,
        changes=max(each.changes for each in found),
        failing=len(failures),
        workers=len(found),
        failure=failures[0] if failures else "",
    )


def _failures(states: Sequence[SourceState]) -> tuple[FailureState, ...]:
    """The same reason of several workers is one; the latest first."""
    joined: dict[tuple[str, str, str], FailureState] = {}
    for state in states:
        for failure in state.failures:
            key = (failure.address, failure.reason, failure.detail)
            other = joined.get(key)
            joined[key] = FailureState(
                *key,
                times=failure.times + (other.times if other else 0),
                age_s=min(failure.age_s, other.age_s) if other else failure.age_s,
            )
    return tuple(sorted(joined.values(), key=lambda failure: failure.age_s)[:MOST_FAILURES])


def _judged(source: SourceOverview) -> SourceOverview:
    health, finding, action = _judgement(source)
    cost = advice.COST.get(source.importance)
    if health is Health.BAD and cost:
        finding = f"{finding}; {cost}."
    elif finding:
        finding += "."
    return replace(source, health=health, finding=finding, action=action)


def _judgement(source: SourceOverview) -> tuple[Health, str, str]:
    """Health, finding without its full stop, and action."""
    shut = [endpoint for endpoint in source.endpoints if endpoint.breaker is not BreakerState.CLOSED]
    reason = _reason(source, is_shut=bool(shut))
    because, why = (f" ({reason})", advice.BY_REASON[reason]) if reason else ("", "See its last failures.")
    if shut and all(endpoint.health is Health.BAD for endpoint in source.endpoints):
        return Health.BAD, f"Not called: the breaker is open on every address{because}", why
    if source.bad >= _BAD_SHARE:
        return Health.BAD, f"{percent(source.bad)} of asks get no answer{because}", why
    if shut:
        return Health.WARN, f"The breaker is open on {len(shut)} of {len(source.endpoints)} addresses{because}", why
    if source.bad >= _WARN_SHARE:
        return Health.WARN, f"{percent(source.bad)} of asks get no answer{because}", why
    p99_ms = source.quantiles.p99_ms
    many = sum(source.calls.values()) >= _CALLS_OF_A_P99
    if many and p99_ms is not None and source.ceiling_ms and p99_ms >= _SLOW_PART * source.ceiling_ms:
        finding = f"Slow: its p99 is {p99_ms:.0f} ms, its timeout {source.ceiling_ms} ms"
        return Health.WARN, finding, advice.BY_REASON["TIMEOUT"]
    if source.extra_calls_allowed and source.extra_calls >= source.extra_calls_allowed:
        return Health.WARN, f"The budget of hedges and retries is used up{because}", why
    discovery = source.discovery
    if discovery is not None and discovery.failing:
        return Health.WARN, f"Discovery by {discovery.way} finds nothing: {discovery.failure}", advice.DISCOVERY
    return Health.GOOD if source.rate else Health.IDLE, "", ""


def _reason(source: SourceOverview, *, is_shut: bool) -> str:
    """Of the last failure if a breaker is open, which leaves few others; else the most frequent."""
    counted = [each.reason for each in source.answers if each.status not in GOOD]
    failures = [failure.reason for failure in source.failures]
    reasons = [*failures, *counted] if is_shut else [*counted, *failures]
    return next((reason for reason in reasons if reason in advice.BY_REASON), "")
