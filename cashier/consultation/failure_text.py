"""The latest failure of each source, for an explanation."""

from __future__ import annotations

import time
from collections.abc import Iterable

from msgspec import structs

from cashier.domain.explanation.schema import SourceEvidence
from cashier.fanout.failure_log import FailureReport


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
    where = f" at {report.address}" if report.address else ""
    text = f"{report.reason}{where}, {report.times} times, last {ago_s:.0f} s ago"
    return structs.replace(source, failure=text)
