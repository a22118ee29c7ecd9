"""How each source fared in a consultation, as an explanation shows it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from msgspec import structs

from cashier.domain.explanation.schema import SourceEvidence
from cashier.fanout.ask import SourceReport
from cashier.fanout.failure_log import FailureReport
from cashier.fanout.scatter import ScatterResult
from cashier.source_errors import Missing


def source_evidence(gathered: ScatterResult) -> tuple[SourceEvidence, ...]:
    return tuple(_evidence(report, gathered.answers[report.name]) for report in gathered.reports)


def _evidence(report: SourceReport, answer: Any) -> SourceEvidence:
    return SourceEvidence(
        name=report.name,
        importance=report.importance,
        status=report.status,
        started_ms=report.started_ms,
        elapsed_ms=report.elapsed_ms,
        age_ms=report.age_ms,
        cause=answer.cause if isinstance(answer, Missing) else None,
    )


def with_failures(sources: Iterable[SourceEvidence], failures: Iterable[FailureReport]) -> tuple[SourceEvidence, ...]:
    """`failures`: the latest first. One of a source that has answered now explains nothing."""
    latest: dict[str, FailureReport] = {}
    for report in failures:
        latest.setdefault(report.source, report)
    return tuple(_with_failure(source, latest.get(source.name)) for source in sources)


def _with_failure(source: SourceEvidence, report: FailureReport | None) -> SourceEvidence:
    if report is None or (source.cause is None and source.status != "STALE"):
        return source
    ago_s = max(0.0, time.monotonic() - report.last_s)
    where = "" if report.address in report.reason else f" at {report.address}"
    text = f"{report.reason}{where}, {report.times} times, last {ago_s:.0f} s ago"
    return structs.replace(source, reason=report.code.value, failure=text)
