"""Reads the state of a worker from its parts, off the path of any request."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from cashier.consultation.source_pipeline import SourcePipeline
from cashier.fanout.breaker import BreakerState
from cashier.fanout.endpoint import Endpoint
from cashier.fanout.failure_log import FailureReport
from cashier.fanout.l2.valkey_cache import ValkeyCache
from cashier.fanout.latency_histogram import NEVER_NS
from cashier.fanout.limiter import UNLIMITED
from cashier.fanout.load_shedding import DegradationLadder
from cashier.payments.background_queries import WatchedPayment
from cashier.settings.schema import Settings
from cashier.telemetry.worker_state import (
    MOST_FAILURES,
    MOST_PAYMENTS,
    DiscoveryState,
    EndpointState,
    FailureState,
    LivePayment,
    LoopState,
    PaymentsState,
    SharedCacheState,
    SourceState,
)
from cashier.wire.transport import NetworkTransport

_NS = 1_000_000_000
_MS_NS = 1_000_000


def source_states(
    pipelines: Mapping[str, SourcePipeline],
    settings: Settings,
    failures: Iterable[FailureReport],
    network: Mapping[str, NetworkTransport],
) -> tuple[SourceState, ...]:
    """In the order of the source table. `network`: the transports with connections, by source."""
    by_source: dict[str, list[FailureState]] = {}
    now_s = time.monotonic()
    for report in failures:
        listed = by_source.setdefault(report.source, [])
        if len(listed) < MOST_FAILURES:
            listed.append(_failure_state(report, now_s))
    return tuple(
        _source_state(pipeline, settings, tuple(by_source.get(name, ())), _discovery_state(network.get(name)))
        for name, pipeline in pipelines.items()
    )


def loop_state(ladder: DegradationLadder) -> LoopState:
    return LoopState(
        lag_ms=round(ladder.lag_ms, 2),
        withheld_ms=round(ladder.withheld_ms, 2),
        queued_ms=round(ladder.queued_ms, 2),
        step=ladder.step,
        dim_share=round(ladder.dim_share, 3),
        refused=ladder.refused_by_priority,
    )


def payments_state(watched: Iterable[WatchedPayment]) -> PaymentsState:
    payments = sorted(watched, key=lambda payment: (not payment.unknown, payment.sent_at))
    return PaymentsState(
        live=len(payments),
        unknown=sum(payment.unknown for payment in payments),
        listed=tuple(map(_live_payment, payments[:MOST_PAYMENTS])),
    )


def shared_cache_state(valkey: ValkeyCache) -> SharedCacheState:
    return SharedCacheState(
        address=repr(valkey.address),
        reachable=valkey.reachable,
        coherent=valkey.coherent,
        hits=valkey.hits.value,
        misses=valkey.misses.value,
        errors=valkey.errors.value,
        losses=valkey.losses.value,
    )


def _discovery_state(transport: NetworkTransport | None) -> DiscoveryState | None:
    found = None if transport is None else transport.discovered()
    if found is None:
        return None
    age_s = None if found.age_s is None else round(found.age_s, 1)
    return DiscoveryState(found.way, age_s, found.changes, found.failure)


def _source_state(
    pipeline: SourcePipeline, settings: Settings, failures: tuple[FailureState, ...], discovery: DiscoveryState | None
) -> SourceState:
    guard, configured = pipeline.guard, settings.sources[pipeline.name]
    now_ns = guard.clock_ns()
    guard.retry_budget.roll(now_ns)
    endpoints = sorted((_endpoint_state(endpoint, now_ns) for endpoint in guard.endpoints), key=_best_last)
    return SourceState(
        name=pipeline.name,
        importance=pipeline.spec.importance.value,
        urls=configured.urls if configured is not None else (),
        timeout_ms=guard.adaptive_timeout.timeout_ms,
        ceiling_ms=guard.adaptive_timeout.ceiling_ms,
        hedge_after_ms=None if guard.hedge.delay_ns == NEVER_NS else round(guard.hedge.delay_ns / _MS_NS, 1),
        extra_calls=guard.retry_budget.used,
        extra_calls_allowed=round(guard.retry_budget.allowed, 1),
        endpoints=tuple(endpoints),
        failures=failures,
        discovery=discovery,
    )


def _endpoint_state(endpoint: Endpoint, now_ns: int) -> EndpointState:
    breaker, limit = endpoint.breaker, endpoint.limiter.limit
    state = breaker.state(now_ns)
    return EndpointState(
        address=endpoint.name,
        breaker=state,
        in_flight=endpoint.in_flight,
        limit=None if limit == UNLIMITED else limit,
        latency_ms=round(endpoint.latency_ns / _MS_NS, 2) if endpoint.latency_ns else None,
        probe_in_s=round((breaker.probe_due_ns - now_ns) / _NS, 1) if state is BreakerState.OPEN else 0.0,
    )


def _best_last(endpoint: EndpointState) -> tuple[int, float]:
    return -endpoint.breaker.badness, -(endpoint.latency_ms or 0.0)


def _failure_state(report: FailureReport, now_s: float) -> FailureState:
    return FailureState(
        address=report.address,
        reason=report.code.value,
        detail=report.reason,
        times=report.times,
        age_s=round(max(0.0, now_s - report.last_s), 1),
    )


def _live_payment(payment: WatchedPayment) -> LivePayment:
    return LivePayment(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        kind=payment.kind.value,
        status=payment.status.value,
        event=payment.event.value if payment.event is not None else "",
        unknown=payment.unknown,
        sent_at=float(payment.sent_at),
    )
