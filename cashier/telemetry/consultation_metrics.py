"""What is counted about each consultation: an observer of its end."""

from __future__ import annotations

from collections.abc import Iterable

from cashier.consultation.end import ConsultationEnd, ConsultationOutcome
from cashier.domain.order import Product
from cashier.domain.pay_method import Kind, PayMethod
from cashier.domain.refusal import AVAILABILITY_BY_CODE, AVAILABLE
from cashier.fanout.ask import SourceStatus
from cashier.fanout.ask_state import PendingAsk
from cashier.fanout.scatter import ScatterResult
from cashier.metrics.store import Counter, Store
from cashier.source_errors import FailureReason, Missing

_LABELS = {outcome: outcome.value.lower() for outcome in ConsultationOutcome}


class ConsultationMetrics:
    """Counts consultations, and the asks of rechecks too. Label values are closed sets.

    `sources`: the names of those that are asked.
    """

    def __init__(self, metrics: Store, sources: Iterable[str]) -> None:
        """Children that a query may read are there from the start.

        What makes a series appear is no increase of it to Prometheus. Reasons are too many.
        """
        self._metrics = metrics
        self._late = metrics.counter("cashier_consultations_late_total")
        self._durations = {
            (product, outcome): metrics.histogram("cashier_consultation_duration_seconds", product, label)
            for product in Product
            for outcome, label in _LABELS.items()
        }
        # By the kind if the method is available, else by the kind and the code of the refusal.
        self._methods: dict[object, Counter] = {
            kind: metrics.counter("cashier_methods_total", kind, AVAILABLE.value, "") for kind in Kind
        }
        self._answers: dict[tuple[str, object, object], Counter] = {}
        self._degraded = {}
        for name in sources:
            self._degraded[name] = metrics.counter("cashier_degraded_total", name)
            fresh = metrics.counter("cashier_source_answers_total", name, SourceStatus.FRESH.value, "")
            self._answers[name, SourceStatus.FRESH, None] = fresh

    def on_end(self, end: ConsultationEnd) -> None:
        self._count_answers(end)
        if end.recheck:
            return
        consultation, outcome = end.consultation, end.outcome
        self._durations[end.request.product, outcome].record(end.ended_ns - end.started_ns)
        if end.ended_ns > end.deadline_ns and outcome is not ConsultationOutcome.ABANDONED:
            self._late.add()
        if outcome is ConsultationOutcome.DEGRADED:
            self._count_degraded(end.gathered)
        if consultation is not None and end.error is None:
            self._count_methods(consultation.methods)

    def _count_answers(self, end: ConsultationEnd) -> None:
        """An ask that never settled belongs to a caller that left, or to a bug."""
        for pending in end.asks:
            status = pending.status
            if status is None:
                continue
            error = pending.error
            counter = self._answers.get((pending.ask.name, status, None if error is None else error.reason))
            if counter is None:
                counter = self._new_answer(pending)
            counter.cells[counter.index] += 1

    def _new_answer(self, pending: PendingAsk) -> Counter:
        name, status, error = pending.ask.name, pending.status, pending.error
        assert status is not None  # noqa: S101  only settled asks are counted
        reason = "" if error is None else error.reason.value if isinstance(error.reason, FailureReason) else "other"
        counter = self._metrics.counter("cashier_source_answers_total", name, status.value, reason)
        self._answers[name, status, None if error is None else error.reason] = counter
        return counter

    def _count_degraded(self, gathered: ScatterResult | None) -> None:
        """Nothing where there is no answer: then all sources but the failed one were not needed."""
        for name, answer in () if gathered is None else gathered.answers.items():
            if isinstance(answer, Missing):
                self._degraded[name].add()

    def _count_methods(self, methods: tuple[PayMethod, ...]) -> None:
        known = self._methods
        for method in methods:
            reason = method.reason
            counter = known.get(method.kind if reason is None else (method.kind, reason.code))
            if counter is None:
                counter = self._new_method(method)
            counter.cells[counter.index] += 1

    def _new_method(self, method: PayMethod) -> Counter:
        kind, reason = method.kind, method.reason
        availability = AVAILABLE if reason is None else AVAILABILITY_BY_CODE[reason.code]
        code = "" if reason is None else reason.code.value
        counter = self._metrics.counter("cashier_methods_total", kind, availability.value, code)
        self._methods[kind if reason is None else (kind, reason.code)] = counter
        return counter
