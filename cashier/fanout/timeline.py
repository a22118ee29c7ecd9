"""What an ask did: its upstream calls and short flags, derived from the objects of its calls.

Derived only for sampled and bad consultations, so the others pay nothing for it. Read it
before the scatter closes: the close drops the calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from msgspec import Struct

from cashier.fanout.ask import SourceStatus
from cashier.fanout.ask_state import NEVER_NS, PendingAsk
from cashier.fanout.batch import Batch
from cashier.fanout.cache import FetchWaiter
from cashier.fanout.hedged_call import CANCELLED, CallAttempt, HedgeAttempt, HedgedCall
from cashier.source_errors import FailureReason, MissingCause, SourceError


class Flag(StrEnum):
    """What happened to an ask, in the manner of Envoy's response flags.

    The table in `cashier/telemetry/README.md` explains each.
    """

    CACHED = "CH"
    STALE = "ST"
    SECOND_LEVEL = "L2"
    SHARED_FETCH = "SF"
    BATCHED = "BA"
    HEDGE_SENT = "HS"
    HEDGE_WON = "HW"
    RETRIED = "RT"
    BUDGET_USED_UP = "BU"
    LATE = "LA"
    FALLBACK = "FB"
    TIMEOUT = "UT"
    FAILED = "UF"
    BREAKER_OPEN = "UO"
    AT_LIMIT = "UL"
    DIMMED = "SH"
    NO_TIME = "NT"
    CUT_OFF = "CO"
    SKIPPED = "SK"


class CallKind(StrEnum):
    """HEDGE: beside a slow first call. RETRY: after a failed one."""

    FIRST = "FIRST"
    HEDGE = "HEDGE"
    RETRY = "RETRY"


class CallOutcome(StrEnum):
    """UNFINISHED: it had not ended with the consultation, and may run on without a waiter.

    CANCELLED: by us.
    """

    ANSWERED = "ANSWERED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    UNFINISHED = "UNFINISHED"


class CallTimeline(Struct, frozen=True):
    """One upstream call. `endpoint`: its single address. `ended_ns`: None if UNFINISHED."""

    endpoint: str
    kind: CallKind
    started_ns: int
    ended_ns: int | None
    outcome: CallOutcome
    error: SourceError | None


class AskTimeline(Struct, frozen=True):
    """`timeout_ns`: how long it would have been waited for; None if it never started.

    `error`: why there is no answer of its own, if so.
    `calls`: the first one first. One of another ask (`SF`) may have started earlier.
    """

    timeout_ns: int | None
    flags: tuple[Flag, ...]
    calls: tuple[CallTimeline, ...]
    error: SourceError | None


_BY_CAUSE = {
    MissingCause.TIMEOUT: Flag.TIMEOUT,
    MissingCause.BREAKER_OPEN: Flag.BREAKER_OPEN,
    MissingCause.SHED: Flag.AT_LIMIT,
    MissingCause.SKIPPED: Flag.SKIPPED,
}
_BY_REASON = {FailureReason.DIMMED: Flag.DIMMED, FailureReason.NO_TIME: Flag.NO_TIME}


def ask_timeline(pending: PendingAsk) -> AskTimeline:
    """What the ask did so far."""
    call: Any = pending.call or pending.ended_call
    hedged = call.fetch.call if isinstance(call, FetchWaiter) else call
    calls: tuple[CallTimeline, ...] = ()
    flags = list(_answer_flags(pending, call))
    if isinstance(hedged, HedgedCall):
        calls = tuple(_calls(hedged))
        flags += _call_flags(pending, hedged)
    if pending.error is not None:
        flags += _error_flags(pending, pending.error)
    elif pending.status is SourceStatus.SKIPPED:
        flags.append(Flag.SKIPPED)
    timeout_ns = None if pending.expires_ns == NEVER_NS else pending.expires_ns - pending.started_ns
    return AskTimeline(timeout_ns, tuple(flags), calls, pending.error)


def _answer_flags(pending: PendingAsk, call: Any) -> Iterator[Flag]:
    from_cache = pending.error is None and pending.status in (SourceStatus.CACHED, SourceStatus.STALE)
    if pending.status is SourceStatus.CACHED:
        yield Flag.CACHED
    elif pending.status is SourceStatus.STALE:
        yield Flag.STALE
    if isinstance(call, FetchWaiter):
        if from_cache:
            yield Flag.SECOND_LEVEL
        if call.shared:
            yield Flag.SHARED_FETCH


def _call_flags(pending: PendingAsk, hedged: HedgedCall[Any]) -> Iterator[Flag]:
    if isinstance(hedged.guard.upstream, Batch):
        yield Flag.BATCHED
    if (extra := hedged.extra) is not None:
        yield Flag.RETRIED if extra.is_retry else Flag.HEDGE_SENT
        if pending.status is SourceStatus.FRESH and _was_first(extra, hedged):
            yield Flag.HEDGE_WON
    if hedged.over_budget:
        yield Flag.BUDGET_USED_UP
    if hedged.late:
        yield Flag.LATE


def _was_first(extra: HedgeAttempt, first: HedgedCall[Any]) -> bool:
    """Whether a hedge answered, and the first call did not answer before."""
    if extra.is_retry or extra.call is not None or extra.error is not None:
        return False
    return first.call is not None or first.error is not None or first.ended_ns > extra.ended_ns


def _error_flags(pending: PendingAsk, error: SourceError) -> Iterator[Flag]:
    if pending.status is SourceStatus.STALE:
        yield Flag.FALLBACK
    cut_off = error.reason is FailureReason.NOT_NEEDED and pending.expires_ns != NEVER_NS
    yield (Flag.CUT_OFF if cut_off else _BY_REASON.get(error.reason) or _BY_CAUSE.get(error.cause, Flag.FAILED))


def _calls(hedged: HedgedCall[Any]) -> Iterator[CallTimeline]:
    yield _call(hedged, hedged, CallKind.FIRST)
    if hedged.extra is not None:
        yield _call(hedged, hedged.extra, CallKind.RETRY if hedged.extra.is_retry else CallKind.HEDGE)


def _call(hedged: HedgedCall[Any], attempt: CallAttempt, kind: CallKind) -> CallTimeline:
    endpoint = attempt.endpoint.name
    if attempt.call is not None:
        # A wire may have moved on to another address; the attempt is told when it ends.
        endpoints, index = hedged.guard.endpoints, attempt.call.address_index
        if 0 <= index < len(endpoints):
            endpoint = endpoints[index].name
        return CallTimeline(endpoint, kind, attempt.started_ns, None, CallOutcome.UNFINISHED, None)
    error = attempt.error
    outcome = CallOutcome.FAILED
    if error is None:
        outcome = CallOutcome.ANSWERED
    elif error is CANCELLED:
        outcome = CallOutcome.CANCELLED
    return CallTimeline(endpoint, kind, attempt.started_ns, attempt.ended_ns, outcome, error)
