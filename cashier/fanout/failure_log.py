"""Log of failed upstream calls: why a source has no answer, one line a minute for each reason.

A breaker soon hides the failure that opened it, so each reason is kept here, with its count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from cashier.source_errors import FailureReason, MissingCause, NotAsked, SourceError

REPEAT_S = 60.0
# Reasons kept per source. An upstream chooses some of the words, so their number must be bounded.
MAX_REASONS = 32
OTHER_REASONS = "other reasons"
# Addresses whose end of failures is awaited. Those of instances that are gone never come to it.
MAX_ADDRESSES = 1_000

OnFailure = Callable[[str, SourceError], None]
"""Takes the address that was called, and the failure."""
OnAnswersAgain = Callable[[str, float], None]
"""Takes the address, and for how many seconds its breaker was open."""


class FailureReport(Struct, frozen=True):
    """One reason for missing answers. `code`: of a closed set; `reason`: its particulars.

    `times`: failed calls; `last_s`: by `time.monotonic`.
    """

    source: str
    address: str
    cause: MissingCause
    code: FailureReason
    reason: str
    times: int
    last_s: float


class ReasonLog:
    """Counts reasons by source and address, and writes one line a minute for each.

    `write` takes `source`, `address`, `reason`, `times`, and what `record` got besides.

    Of a source that has no room for a new reason, the one that has not come for the longest time
    joins `OTHER_REASONS` if that is a minute; else the new one does. Addresses come and go: those
    of last week must not take the place of today's reason.
    """

    def __init__(self, write: Callable[..., Any], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock_s = clock_s
        self._counts: dict[str, dict[tuple[str, str], _Count]] = {}

    def record(self, source: str, address: str, reason: str, **fields: Any) -> None:
        counts = self._counts.setdefault(source, {})
        key = (address, reason)
        now_s = self._clock_s()
        if key not in counts and len(counts) >= MAX_REASONS and not _forget_oldest(counts, now_s - REPEAT_S):
            key = _OTHERS
        count = counts.setdefault(key, _Count())
        count.times += 1
        count.last_s = now_s
        count.fields = fields
        if now_s - count.logged_s >= REPEAT_S:
            self._write(source=source, address=key[0], **fields, reason=key[1], times=count.times - count.logged_times)
            count.logged_s, count.logged_times = now_s, count.times

    def counts(self) -> Iterator[tuple[str, str, str, _Count]]:
        """Source, address, reason and count of each reason."""
        for source, counts in self._counts.items():
            for (address, reason), count in counts.items():
                yield source, address, reason, count


_Key = tuple[str, str]
_OTHERS: _Key = ("", OTHER_REASONS)


def _forget_oldest(counts: dict[_Key, _Count], before_s: float) -> bool:
    """Count the reason that came last before that time among the others, if there is one."""
    oldest = min((key for key in counts if key != _OTHERS), key=lambda key: counts[key].last_s)
    if counts[oldest].last_s > before_s:
        return False
    forgotten = counts.pop(oldest)
    others = counts.setdefault(_OTHERS, _Count())
    others.times += forgotten.times
    others.logged_times += forgotten.logged_times
    if forgotten.last_s >= others.last_s:
        others.last_s, others.fields = forgotten.last_s, forgotten.fields
    return True


class _Count:
    __slots__ = ("fields", "last_s", "logged_s", "logged_times", "times")

    def __init__(self) -> None:
        self.times = self.logged_times = 0
        self.last_s = 0.0
        self.logged_s = -REPEAT_S
        self.fields: dict[str, Any] = {}


class FailureLog:
    """`warn` and `info` log an event with fields.

    Calls that were not made are no failures of a source. The end of a failure is logged if its
    beginning was, so both are bounded alike.
    """

    def __init__(
        self, warn: Callable[..., Any], info: Callable[..., Any], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._warn = warn
        self._info = info
        self._reasons = ReasonLog(self._write, clock_s)
        # Sources and addresses with a line since the last one that says they answer again, the
        # oldest first.
        self._logged: dict[tuple[str, str], None] = {}

    def of(self, source: str) -> OnFailure:
        """What to call for each failed call of `source`."""

        def on_failure(address: str, error: SourceError) -> None:
            self.record(source, address, error)

        return on_failure

    def end_of(self, source: str) -> OnAnswersAgain:
        """What to call for each breaker of `source` that closes."""

        def on_answers_again(address: str, failed_s: float) -> None:
            if (source, address) in self._logged:
                del self._logged[source, address]
                self._info("source answers again", source=source, address=address, failed_s=round(failed_s, 1))

        return on_answers_again

    def _write(self, **fields: Any) -> None:
        self._logged[fields["source"], fields["address"]] = None
        if len(self._logged) > MAX_ADDRESSES:
            del self._logged[next(iter(self._logged))]
        self._warn("no answer from a source", **fields)

    def record(self, source: str, address: str, error: SourceError) -> None:
        if not isinstance(error, NotAsked):
            self._reasons.record(source, address, error.detail, cause=error.cause.value, code=error.reason.value)

    def reports(self) -> tuple[FailureReport, ...]:
        """All reasons so far, the latest first."""
        reports = [
            FailureReport(
                source=source,
                address=address,
                cause=MissingCause(count.fields["cause"]),
                code=FailureReason(count.fields["code"]),
                reason=reason,
                times=count.times,
                last_s=count.last_s,
            )
            for source, address, reason, count in self._reasons.counts()
        ]
        return tuple(sorted(reports, key=lambda report: report.last_s, reverse=True))

    def __repr__(self) -> str:
        return f"<FailureLog {len(self.reports())} reasons>"


def ignore_answer(address: str, failed_s: float) -> None:
    """Keep nothing: the default of a guard."""


def ignore_failure(address: str, error: SourceError) -> None:
    """Keep nothing: the default of a guard."""
