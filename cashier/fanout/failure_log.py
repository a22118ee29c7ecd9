"""Log of failed upstream calls: why a source has no answer, one line a minute for each reason.

A breaker soon hides the failure that opened it, so each reason is kept here, with its count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from cashier.source_errors import MissingCause, NotAsked, SourceError

REPEAT_S = 60.0
# Reasons kept per source. An upstream chooses some of the words, so their number must be bounded.
MAX_REASONS = 32
OTHER_REASONS = "other reasons"

OnFailure = Callable[[str, SourceError], None]
"""Takes the address that was called, and the failure."""


class FailureReport(Struct):
    """One reason for missing answers. `times`: failed calls; `last_s`: by `time.monotonic`."""

    source: str
    address: str
    cause: MissingCause
    reason: str
    times: int
    last_s: float


class FailureLog:
    """`warn` logs an event with fields. Calls that were not made are no failures of a source."""

    def __init__(self, warn: Callable[..., Any], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._warn = warn
        self._clock_s = clock_s
        self._reports: dict[str, dict[tuple[str, str], FailureReport]] = {}
        # By the same keys: when the last line was written, and `times` then.
        self._logged: dict[tuple[str, str, str], tuple[float, int]] = {}

    def of(self, source: str) -> OnFailure:
        """What to call for each failed call of `source`."""

        def on_failure(address: str, error: SourceError) -> None:
            self.record(source, address, error)

        return on_failure

    def record(self, source: str, address: str, error: SourceError) -> None:
        if isinstance(error, NotAsked):
            return
        reports = self._reports.setdefault(source, {})
        key = (address, error.detail)
        if key not in reports and len(reports) >= MAX_REASONS:
            address, reason = key = ("", OTHER_REASONS)
        else:
            reason = error.detail
        now_s = self._clock_s()
        report = reports.get(key)
        if report is None:
            report = reports[key] = FailureReport(source, address, error.cause, reason, 0, now_s)
        report.times += 1
        report.cause = error.cause
        report.last_s = now_s
        logged_s, logged_times = self._logged.get((source, *key), (-REPEAT_S, 0))
        if now_s - logged_s >= REPEAT_S:
            self._logged[source, *key] = (now_s, report.times)
            self._warn(
                "no answer from a source",
                source=source,
                address=address,
                cause=error.cause.value,
                reason=reason,
                times=report.times - logged_times,
            )

    def reports(self) -> tuple[FailureReport, ...]:
        """All reasons so far, the latest first."""
        every = [report for reports in self._reports.values() for report in reports.values()]
        return tuple(sorted(every, key=lambda report: report.last_s, reverse=True))

    def __repr__(self) -> str:
        return f"<FailureLog {len(self.reports())} reasons>"


def ignore_failure(address: str, error: SourceError) -> None:
    """Keep nothing: the default of a guard."""
