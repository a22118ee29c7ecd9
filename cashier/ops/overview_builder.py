"""Builds the overview from the numbers of the last minutes and the last state of each worker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cashier.fanout.load_shedding import SheddingStep
from cashier.metrics.snapshot import Snapshot
from cashier.ops.advice import LEFT_PAYMENT_ADVICE, payment_advice
from cashier.ops.attention import attention
from cashier.ops.history import (
    CONSULTATIONS,
    FAILED_OUTCOMES,
    Quantiles,
    SnapshotHistory,
    Window,
    quantiles,
    sum_by,
    together,
)
from cashier.ops.overview import (
    ConfigurationOverview,
    ConsultationsOverview,
    ListedPayment,
    MethodCount,
    Overview,
    PaymentCount,
    PaymentsOverview,
    RefusedCount,
    RuntimeOverview,
    WorkerOverview,
)
from cashier.ops.record_store import PaymentFate, UnsettledPayment
from cashier.ops.source_overview import source_overviews
from cashier.telemetry.worker_state import MOST_PAYMENTS, LivePayment, WorkerState

_EXPORTS = "cashier_trace_exports_total"
_NO_WINDOW = Window({}, {}, 0.0)


# A worker reports every second. One that missed several reports is busy, hangs, or is stopped.
SILENT_S = 5.0


def build_overview(
    history: SnapshotHistory, states: Iterable[WorkerState], unsettled: Iterable[UnsettledPayment], at: float
) -> Overview:
    """`states`: the last one of each worker that is connected. `at`: seconds since 1970."""
    window = history.window() or _NO_WINDOW
    workers = sorted(states, key=lambda state: state.pid)
    sources = source_overviews(window, [worker for worker in workers if _reports(worker, at)], history.trends)
    consultations = _consultations(window, history)
    payments = _payments(window, workers, unsettled, at)
    runtime = _runtime(window, workers, at)
    configuration = _configuration(workers)
    return Overview(
        at=at,
        window_s=round(window.span_s, 1),
        attention=attention(consultations, sources, payments, runtime, configuration),
        consultations=consultations,
        sources=sources,
        methods=_methods(window),
        payments=payments,
        runtime=runtime,
        configuration=configuration,
    )


def _consultations(window: Window, history: SnapshotHistory) -> ConsultationsOverview:
    recorded = list(window.recorded(CONSULTATIONS))
    total = together(value for _, value in recorded)
    by_outcome = sum_by(((labels, value.count) for labels, value in recorded), 1)
    failed = sum(count for outcome, count in by_outcome.items() if outcome in FAILED_OUTCOMES)
    late = sum(count for _, count in window.counted("cashier_consultations_late_total"))
    return ConsultationsOverview(
        rate=round(window.per_s(total.count), 2),
        quantiles=quantiles(total),
        outcomes={outcome: round(window.per_s(count), 2) for outcome, count in by_outcome.items() if count},
        answered=round((total.count - failed) / total.count, 5) if total.count else None,
        within_deadline=round(max(0, total.count - late) / total.count, 5) if total.count else None,
        degraded={
            source: round(window.per_s(count), 2)
            for source, count in sum_by(window.counted("cashier_degraded_total"), 0).items()
            if count
        },
        trend=tuple(history.trends.get("", ())),
    )


def _methods(window: Window) -> tuple[MethodCount, ...]:
    totals = _totals(window.after, "cashier_methods_total")
    return tuple(
        MethodCount(labels[0], labels[1], labels[2], rate=round(window.per_s(count), 2), total=totals[labels])
        for labels, count in sorted(window.counted("cashier_methods_total"))
        if totals[labels]
    )


def _payments(
    window: Window, workers: Sequence[WorkerState], unsettled: Iterable[UnsettledPayment], at: float
) -> PaymentsOverview:
    totals = _totals(window.after, "cashier_payments_total")
    states = [(worker.pid, worker.payments) for worker in workers if worker.payments is not None]
    listed = [
        _listed(payment, pid, at, payment_advice(payment.event, unknown=payment.unknown, age_s=at - payment.sent_at))
        for pid, state in states
        for payment in state.listed
    ]
    listed.sort(key=lambda each: (not each.payment.unknown, -each.age_s))
    return PaymentsOverview(
        configured=bool(states),
        live=sum(state.live for _, state in states),
        unknown=sum(state.unknown for _, state in states),
        unknown_oldest_s=max((each.age_s for each in listed if each.payment.unknown), default=None),
        listed=tuple(listed[:MOST_PAYMENTS]),
        counts=tuple(
            PaymentCount(labels[0], labels[1], rate=round(window.per_s(count), 3), total=totals[labels])
            for labels, count in sorted(window.counted("cashier_payments_total"))
            if totals[labels]
        ),
        left=tuple(
            _listed(each.payment, each.worker, at, LEFT_PAYMENT_ADVICE)
            for each in unsettled
            if each.fate is PaymentFate.LEFT
        )[:MOST_PAYMENTS],
    )


def _listed(payment: LivePayment, worker: int, at: float, action: str) -> ListedPayment:
    return ListedPayment(payment, worker, round(max(0.0, at - payment.sent_at), 1), action)


def _runtime(window: Window, workers: Sequence[WorkerState], at: float) -> RuntimeOverview:
    loops = [worker.loop for worker in workers if worker.loop is not None and _reports(worker, at)]
    steps = [loop.step for loop in loops]
    totals = _totals(window.after, "cashier_shed_total")
    return RuntimeOverview(
        workers=tuple(
            WorkerOverview(
                pid=worker.pid,
                age_s=round(at - worker.started_at, 1),
                silent_s=round(max(0.0, at - worker.at), 1),
                reports=_reports(worker, at),
                loop=worker.loop,
                shared_cache=worker.shared_cache,
            )
            for worker in workers
        ),
        restarts=sum(_totals(window.after, "cashier_worker_ends_total").values()),
        loop_lag=_quantiles(window, "cashier_loop_lag_seconds"),
        step=max(steps, key=list(SheddingStep).index, default=SheddingStep.CLEAR).value,
        queue_wait=_quantiles(window, "cashier_queue_wait_seconds"),
        refused=tuple(
            RefusedCount(labels[0], labels[1], rate=round(window.per_s(count), 2), total=totals[labels])
            for labels, count in sorted(window.counted("cashier_shed_total"))
            if totals[labels]
        ),
        trace_exports={labels[0]: total for labels, total in _totals(window.after, _EXPORTS).items()},
        traces_lost=sum(count for labels, count in window.counted(_EXPORTS) if labels[0] != "exported"),
        version=", ".join(sorted(labels[0] for labels in window.after.get("cashier_build_info", {}))),
    )


def _configuration(workers: Sequence[WorkerState]) -> ConfigurationOverview | None:
    if not workers:
        return None
    newest = max(workers, key=lambda state: state.configuration.loaded_at)
    shown = newest.configuration
    differs = [worker.pid for worker in workers if worker.configuration.digest != shown.digest]
    return ConfigurationOverview(shown, tuple(differs))


def _quantiles(window: Window, name: str) -> Quantiles:
    return quantiles(together(value for _, value in window.recorded(name)))


def _totals(snapshot: Snapshot, name: str) -> dict[tuple[str, ...], int]:
    return {labels: value for labels, value in snapshot.get(name, {}).items() if isinstance(value, int)}


def _reports(worker: WorkerState, at: float) -> bool:
    return at - worker.at < SILENT_S
