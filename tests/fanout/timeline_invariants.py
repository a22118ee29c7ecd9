"""What must be true of the timelines of a scatter, compared with its reports and the counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cashier.fanout.ask import SourceStatus
from cashier.fanout.ask_state import PendingAsk
from cashier.fanout.timeline import AskTimeline, CallKind, CallOutcome, CallTimeline, Flag

FAILURES: dict[SourceStatus, frozenset[Flag]] = {
    SourceStatus.TIMEOUT: frozenset({Flag.TIMEOUT}),
    SourceStatus.ERROR: frozenset({Flag.FAILED}),
    SourceStatus.GARBLED: frozenset({Flag.FAILED}),
    SourceStatus.WRONG_IDENTITY: frozenset({Flag.FAILED}),
    SourceStatus.SHED: frozenset({Flag.AT_LIMIT, Flag.DIMMED}),
    SourceStatus.BREAKER_OPEN: frozenset({Flag.BREAKER_OPEN}),
    SourceStatus.SKIPPED: frozenset({Flag.SKIPPED, Flag.NO_TIME, Flag.CUT_OFF}),
}
ANY_FAILURE = frozenset().union(*FAILURES.values())


def timeline_faults(pending: PendingAsk, timeline: AskTimeline, now_ns: int) -> Iterator[str]:
    """One sentence for each contradiction of an ask that has ended."""
    status, flags = pending.status, set(timeline.flags)
    named = f"{pending.ask.name}, {status} with {sorted(flags)} and {timeline.calls}"
    if len(flags) != len(timeline.flags):
        yield f"{named}: a flag twice"
    if (Flag.CACHED in flags) is not (status is SourceStatus.CACHED):
        yield f"{named}: cached or not?"
    if (Flag.STALE in flags) is not (status is SourceStatus.STALE):
        yield f"{named}: stale or not?"
    failures = flags & ANY_FAILURE
    if status in FAILURES:
        if len(failures) != 1 or not failures <= FAILURES[status]:
            yield f"{named}: not one flag of its failure"
    elif bool(failures) is not (Flag.FALLBACK in flags):
        yield f"{named}: a failure without a missing answer or a fallback"
    kinds = Counter(call.kind for call in timeline.calls)
    if kinds[CallKind.HEDGE] != (Flag.HEDGE_SENT in flags) or kinds[CallKind.RETRY] != (Flag.RETRIED in flags):
        yield f"{named}: other calls than flags"
    if Flag.HEDGE_WON in flags and Flag.HEDGE_SENT not in flags:
        yield f"{named}: a hedge that was not sent has won"
    for call in timeline.calls:
        yield from (f"{named}: {fault}" for fault in _call_faults(pending, call, timeline, now_ns))
    if status is SourceStatus.FRESH and not any(_brought(call, pending) for call in timeline.calls):
        yield f"{named}: no call brought the answer when it came"
    if Flag.HEDGE_WON in flags and status is SourceStatus.FRESH and not _brought(timeline.calls[1], pending):
        yield f"{named}: a hedge that won did not bring the answer"


def _brought(call: CallTimeline, pending: PendingAsk) -> bool:
    return call.outcome is CallOutcome.ANSWERED and call.ended_ns == pending.ended_ns


def _call_faults(pending: PendingAsk, call: CallTimeline, timeline: AskTimeline, now_ns: int) -> Iterator[str]:
    if (call.ended_ns is None) is not (call.outcome is CallOutcome.UNFINISHED):
        yield "unfinished or not?"
    if (call.error is None) is not (call.outcome in (CallOutcome.UNFINISHED, CallOutcome.ANSWERED)):
        yield "failed or not?"
    if not call.started_ns <= (now_ns if call.ended_ns is None else call.ended_ns) <= now_ns:
        yield "a call ended before it started, or after the consultation"
    if call.started_ns < pending.started_ns and Flag.SHARED_FETCH not in timeline.flags:
        yield "a call started before its ask"
