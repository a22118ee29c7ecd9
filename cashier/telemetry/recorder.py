"""The recorder of one worker: records, log lines and traces of sampled and of bad consultations.

A good consultation that is not sampled costs it a few comparisons. Bad ones can come in thousands a
second, just when the service has no time, so their number per second is bounded: beyond, one is
only counted. What the calls did is read at the end of the consultation; everything else waits until
the answer is out.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog

from cashier.consultation.end import ConsultationEnd
from cashier.fanout.ask import SourceStatus
from cashier.fanout.timeline import AskTimeline, ask_timeline
from cashier.logs import log_event
from cashier.metrics.store import Store
from cashier.telemetry.consultation_record import consultation_record, is_good, verdicts_of
from cashier.telemetry.records import ConsultationRecord, SourceRecord, Verdict
from cashier.telemetry.sampling import Sampling, SecondBudget
from cashier.telemetry.settings import TelemetrySettings
from cashier.telemetry.trace_context import TraceContext
from cashier.wire.transport import CallHeaders

_log = structlog.get_logger("cashier.consultation")

# Records that this process keeps, as JSON: a tenth of the memory of their objects.
MOST_KEPT = 500
MOST_KEPT_BYTES = 2 << 20
# How often a bug is reported that no record can be made.
REPORT_S = 60.0
_QUIET = frozenset({SourceStatus.FRESH, SourceStatus.CACHED})


class _Ended(NamedTuple):
    """`kept`: as a record; a traced one beyond the bounds only becomes spans."""

    end: ConsultationEnd
    timelines: Sequence[AskTimeline]
    verdicts: tuple[Verdict, ...]
    kept: bool
    traced: bool


class _Budgets:
    """Of records and log lines of one sort: of bad consultations, or of good sampled ones."""

    __slots__ = ("lines", "records")

    def __init__(self) -> None:
        self.records = SecondBudget(0)
        self.lines = SecondBudget(0)


class Recorder:
    """An observer of consultations.

    `send`: takes each record as JSON, once a collector of records listens. `replay_facts`: makes
    the `facts` of a record. `on_traced`: takes each record of a traced consultation, whose call
    headers are then of a type of their own; None while nothing is traced.
    """

    def __init__(self, settings: TelemetrySettings, metrics: Store, log: Callable[..., Any] | None = None) -> None:
        """`log`: takes the level's name, the event and its fields."""
        self.send: Callable[[bytes], None] | None = None
        self.replay_facts: Callable[[ConsultationEnd], bytes | None] | None = None
        self.on_traced: Callable[[ConsultationEnd, ConsultationRecord], None] | None = None
        self._log = log or _write
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(ConsultationRecord)
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._reported_s = -REPORT_S
        self._ended: deque[_Ended] = deque()
        self._made = metrics.counter("cashier_consultation_records_total", "made")
        self._refused = metrics.counter("cashier_consultation_records_total", "refused")
        # Apart, so that a caller who samples everything does not hide what is bad.
        self._bad, self._good = _Budgets(), _Budgets()
        self._sampling = Sampling(0)
        self._slow_bps = 0
        self.reconfigure(settings)

    def __repr__(self) -> str:
        return f"<Recorder of {self._made.value} records, {self._refused.value} refused>"

    def reconfigure(self, settings: TelemetrySettings) -> None:
        self._slow_bps = settings.slow_bps
        self._sampling.share_bps = settings.sample_bps
        for budgets in (self._bad, self._good):
            budgets.records.most = settings.records_per_second
            budgets.lines.most = settings.lines_per_second

    def records(self) -> tuple[ConsultationRecord, ...]:
        """The last records, the latest first."""
        self._finish_all()
        return tuple(map(self._decoder.decode, reversed(self._kept)))

    def __call__(self, end: ConsultationEnd) -> None:
        good = is_good(end, self._slow_bps)
        traced = self.on_traced is not None and end.call_headers.__class__ is not CallHeaders
        sampled = self._is_sampled(end, traced=traced)
        if good and not sampled and not traced:
            return
        verdicts = () if good else tuple(verdicts_of(end, self._slow_bps))
        if sampled:
            verdicts += (Verdict.SAMPLED,)
        kept = self._keeps(verdicts, end.ended_ns)
        if not kept and not traced:
            return
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._finish_all)
        self._ended.append(_Ended(end, [ask_timeline(pending) for pending in end.asks], verdicts, kept, traced))

    def _keeps(self, verdicts: tuple[Verdict, ...], now_ns: int) -> bool:
        if not verdicts:
            return False  # such as an order that the acquirer does not know
        keeps = self._budgets(verdicts).records.take(now_ns)
        if not keeps:
            self._refused.add()
        return keeps

    def _is_sampled(self, end: ConsultationEnd, *, traced: bool) -> bool:
        if self.on_traced is not None:
            # The trace has decided, before the first call. That of a payment says nothing about
            # consultations.
            return traced and not end.recheck
        return self._sampling.sampled(end.call_headers.traceparent)

    def _finish_all(self) -> None:
        while self._ended:
            try:
                self._finish(self._ended.popleft())
            except Exception as bug:  # noqa: BLE001 - it must not keep the next records from being made
                self._report(bug)

    def _report(self, bug: Exception) -> None:
        now_s = time.monotonic()
        if now_s - self._reported_s >= REPORT_S:
            self._reported_s = now_s
            _log.error("a record of a consultation could not be made", exc_info=bug)

    def _finish(self, ended: _Ended) -> None:
        end = ended.end
        facts = self.replay_facts(end) if self.replay_facts is not None and ended.kept else None
        record = consultation_record(
            end, ended.timelines, ended.verdicts, os.getpid(), _trace_id(end.call_headers), facts
        )
        if self.on_traced is not None and ended.traced:
            self.on_traced(end, record)
        if not ended.kept:
            return
        body = self._encoder.encode(record)
        self._made.add()
        self._keep(body)
        if self.send is not None:
            self.send(body)
        budgets = self._budgets(ended.verdicts)
        if budgets.lines.take(end.ended_ns):
            suppressed, budgets.lines.refused = budgets.lines.refused, 0
            level = "info" if budgets is self._good else "warning"
            self._log(level, "consultation", **line_fields(record, suppressed))

    def _budgets(self, verdicts: tuple[Verdict, ...]) -> _Budgets:
        return self._good if verdicts == (Verdict.SAMPLED,) else self._bad

    def _keep(self, body: bytes) -> None:
        self._kept.append(body)
        self._kept_bytes += len(body)
        while len(self._kept) > MOST_KEPT or self._kept_bytes > MOST_KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft())


def _trace_id(headers: CallHeaders) -> str | None:
    context = None if headers.traceparent is None else TraceContext.parse(headers.traceparent)
    return None if context is None else context.trace_id


def line_fields(record: ConsultationRecord, suppressed: int) -> dict[str, Any]:
    """The log line of a record. `suppressed`: lines of its sort that were left out before it."""
    fields: dict[str, Any] = {
        "request_id": record.request_id,
        "trace_id": record.trace_id,
        "order_id": record.order_id,
        "product": record.product,
        "outcome": record.outcome.value,
        "verdicts": [verdict.value for verdict in record.verdicts],
        "elapsed_ms": record.elapsed_ms,
        "deadline_ms": record.deadline_ms,
        "blocked": record.blocked,
        "recheck": record.recheck,
        "streamed": record.streamed,
        "sources": {source.name: _source_text(source) for source in record.sources if source.status not in _QUIET},
        "suppressed": suppressed,
    }
    return {name: value for name, value in fields.items() if value or name in ("verdicts", "elapsed_ms")}


def _source_text(source: SourceRecord) -> str:
    """Status, reason and flags: `TIMEOUT TIMEOUT UT,LA`."""
    return f"{source.status.value} {source.reason or '-'} {','.join(source.flags) or '-'}"


def _write(level: str, event: str, **fields: Any) -> None:
    log_event(_log, level, event, **fields)
