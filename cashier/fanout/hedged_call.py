"""A guarded call in progress: a first attempt and, if that is slow or has failed, a second one.

The first answer wins. An attempt without a waiter runs on for a bounded time as a late
call: its answer fills the cache, its latency trains the histogram, and its connection returns to
the pool. Cancelling it would cost a reconnect just when the source is sick.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from cashier.fanout.ask import Known, OnOutcome
from cashier.fanout.endpoint import Endpoint, avoid_for_second_call
from cashier.fanout.guarded_source import GuardedSource
from cashier.fanout.latency_histogram import NEVER_NS
from cashier.fanout.upstream_protocol import CautiousCall, OnAnswer, UpstreamCall, UserCall
from cashier.source_errors import FailureReason, NotAsked, Overloaded, SourceError, TimedOut, Unreachable

C = TypeVar("C", OnAnswer, OnOutcome)

_MS_NS = 1_000_000
# The largest number of late calls per source.
MAX_LATE_CALLS = 32
# A late call ends at this multiple of the ceiling.
LATE_FACTOR = 2
_TIMED_OUT = TimedOut("no answer within the timeout")
# The error of an attempt that was abandoned here.
CANCELLED = Unreachable("no answer within twice the timeout", reason=FailureReason.TIMEOUT)


class CallAttempt(ABC):
    """One attempt of a hedged call: its endpoint and start.

    `counted`: it counted against its endpoint as slow. Once it has ended, `call` is None, and
    `ended_ns` and `error` are set: the failure, or None.
    """

    __slots__ = ("call", "counted", "ended_ns", "endpoint", "error", "started_ns")

    endpoint: Endpoint
    ended_ns: int
    error: SourceError | None

    def __init__(self, started_ns: int) -> None:
        self.started_ns = started_ns
        self.call: UpstreamCall | None = None
        self.counted = False

    @property
    @abstractmethod
    def hedged_call(self) -> HedgedCall[Any]:
        """The call that this attempt is part of."""

    def on_answer(self, outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        """Receive the upstream's outcome."""
        hedged_call = self.hedged_call
        guard = hedged_call.guard
        if guard.multi_address:
            self.update_endpoint()
        self.endpoint.in_flight -= 1
        self.call = None
        now_ns = self.ended_ns = guard.clock_ns()
        if isinstance(outcome, SourceError):
            self.error = outcome
            # A call that was not sent is no failure of the endpoint.
            if not isinstance(outcome, NotAsked):
                overload = isinstance(outcome, Overloaded)
                self.endpoint.metrics.failed.record(now_ns - self.started_ns)
                self.endpoint.record_failure(
                    self.started_ns, now_ns, counted=self.counted, overload=overload, known=hedged_call.known
                )
                guard.on_failure(self.endpoint.name, outcome)
            hedged_call.attempt_failed(self, outcome, now_ns)
        else:
            self.error = None
            took_ns = now_ns - self.started_ns
            guard.latencies.record(took_ns)
            self.endpoint.metrics.answered.record(took_ns)
            self.endpoint.record_answer(self.started_ns, now_ns, counted=self.counted, known=hedged_call.known)
            hedged_call.attempt_answered(self, outcome, not_found, body)

    def update_endpoint(self) -> None:
        """Charge the attempt to its actual address.

        A wire moves on if an address refuses, and a batch leaves after its keys came. If the
        address is gone, the attempt stays where it was charged. So it does if the index is beyond
        the addresses: that of a call which was refused just before some of them went.
        """
        call, endpoints = self.call, self.hedged_call.guard.endpoints
        if call is not None and 0 <= (index := call.address_index) < len(endpoints):
            endpoint = endpoints[index]
            self.endpoint.in_flight -= 1
            endpoint.in_flight += 1
            self.endpoint = endpoint

    def count_as_slow(self, now_ns: int, *, overload: bool) -> None:
        """Count the attempt against its endpoint before it ends.

        `overload` as in `Endpoint.record_failure`.
        """
        if self.call is not None and (overload or not self.counted):
            self.update_endpoint()
            self.endpoint.record_failure(
                self.started_ns, now_ns, counted=self.counted, overload=overload, known=self.hedged_call.known
            )
            self.counted = True

    def cancel(self, now_ns: int) -> None:
        call, self.call = self.call, None
        if call is not None:
            self.ended_ns, self.error = now_ns, CANCELLED
            self.endpoint.in_flight -= 1
            call.abandon()


class HedgeAttempt(CallAttempt):
    """The second attempt: a hedge beside the first one, or a retry after it failed.

    It refers to its call until both have ended.
    """

    __slots__ = ("_hedged_call", "is_retry")

    def __init__(self, hedged_call: HedgedCall[Any], started_ns: int) -> None:
        super().__init__(started_ns)
        self._hedged_call: HedgedCall[Any] | None = hedged_call
        self.is_retry = hedged_call.call is None

    @property
    def hedged_call(self) -> HedgedCall[Any]:
        assert self._hedged_call is not None, "an answer to an attempt that has ended"  # noqa: S101 - beyond types
        return self._hedged_call

    def release(self) -> None:
        """Break the reference cycle."""
        self._hedged_call = None


class HedgedCall(CallAttempt, Generic[C]):
    """The call is its own first attempt, because most have no second.

    `callback`: the waiter's, kept after `abandon` if `delivers_late`; None after delivery.
    `over_budget`: no second attempt was made because the budget of extra calls was used up.
    """

    __slots__ = (
        "awaited",
        "budget_ms",
        "call_headers",
        "callback",
        "due_ns",
        "extra",
        "first_error",
        "guard",
        "known",
        "late",
        "marks_passed",
        "no_extra",
        "over_budget",
    )

    delivers_late: ClassVar[bool]
    due_ns: int

    def __init__(
        self,
        guard: GuardedSource,
        known: Known,
        call_headers: Any,
        budget_ms: int,
        callback: C,
        started_ns: int,
    ) -> None:
        self.started_ns = started_ns  # not by `super`: this is the hot path
        self.call = None
        self.counted = False
        self.guard = guard
        self.known = known
        self.call_headers = call_headers
        self.budget_ms = budget_ms
        self.callback: C | None = callback
        self.awaited = True
        self.late = False
        self.no_extra = False  # the one extra attempt was made, or is not allowed
        self.over_budget = False
        self.marks_passed = 0
        self.extra: HedgeAttempt | None = None
        self.first_error: SourceError | None = None

    @property
    def hedged_call(self) -> HedgedCall[Any]:
        return self

    def send(self, attempt: CallAttempt, budget_ms: int, avoid: int) -> None:
        """Call the upstream for an attempt: this call itself, or its `HedgeAttempt`."""
        guard = self.guard
        attempt.call = call = guard.upstream.call(self.known, self.call_headers, budget_ms, attempt.on_answer, avoid)
        attempt.endpoint = endpoint = guard.endpoints[call.address_index]
        endpoint.in_flight += 1

    @property
    def ended(self) -> bool:
        return self.call is None and (self.extra is None or self.extra.call is None)

    def pass_mark(self, now_ns: int) -> None:
        """See `WatchedCall`: send a hedge; later count as slow; at last end a late call."""
        guard = self.guard
        self.marks_passed += 1
        if self.marks_passed == 1:
            self.due_ns = self.started_ns + self.endpoint.slow_ns
            if guard.hedge.delay_ns != NEVER_NS:
                self.hedge(now_ns)
        elif self.marks_passed == 2:
            self.due_ns = self.started_ns + LATE_FACTOR * guard.ceiling_ns
            self.count_as_slow(now_ns, overload=now_ns - self.started_ns >= guard.ceiling_ns)
        else:
            self.due_ns = NEVER_NS
            # A caller with more time, such as a payment, ends its call itself.
            if not self._is_awaited(now_ns):
                self.cancel_attempts()

    def hedge(self, now_ns: int) -> None:
        """Send a second attempt beside the slow first one, if allowed."""
        if self._send_extra(now_ns):
            self.guard.counts.hedges.add()

    def _send_extra(self, now_ns: int) -> bool:
        guard = self.guard
        first = self.call
        if self.no_extra or not self.awaited or (isinstance(first, CautiousCall) and not first.repeatable):
            return False
        self.update_endpoint()
        left_ms = self.budget_ms - (now_ns - self.started_ns) // _MS_NS
        avoid = avoid_for_second_call(guard.endpoints, self.endpoint)
        if avoid is None or left_ms < 1 or not guard.ladder.hedging:
            return False
        if not guard.retry_budget.take(now_ns):
            self.over_budget = True
            return False
        self.no_extra = True
        self.extra = HedgeAttempt(self, now_ns)
        if isinstance(first, UserCall):
            first.context.run(self.send, self.extra, left_ms, avoid)
        else:
            self.send(self.extra, left_ms, avoid)
        if first is not None and isinstance(self.extra.call, CautiousCall):
            self.extra.call.beside_another = True
        return True

    def attempt_answered(self, attempt: CallAttempt, outcome: Any, not_found: bool, body: bytes | None) -> None:
        if self.callback is not None:
            if attempt is self.extra and not self.extra.is_retry:
                self.guard.counts.hedges_won.add()
            if self.late:
                self.guard.counts.late_answers.add()
            self._deliver(outcome, not_found, body)
        if self.late or self.extra is not None:  # most calls have nothing to settle
            self._settle()

    def attempt_failed(self, attempt: CallAttempt, error: SourceError, now_ns: int) -> None:
        """Retry if that may help; else, once both attempts have failed, deliver the first error."""
        if self.first_error is None or isinstance(self.first_error, NotAsked):
            self.first_error = error
        if self._retryable(error) and self._send_extra(now_ns):
            self.guard.counts.retries.add()
            return
        if self.ended and self.callback is not None:
            self._deliver(self.first_error)
        self._settle()

    def _retryable(self, error: SourceError) -> bool:
        """A refused or garbled answer is retried on another address or connection only."""
        if not self.guard.mechanisms.retry or isinstance(error, NotAsked) or error.final:
            return False
        return isinstance(error, Unreachable) or error.elsewhere or len(self.guard.endpoints) > 1

    @abstractmethod
    def _deliver(self, outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        """Call the callback, and forget it."""

    def time_out(self) -> None:
        """As `abandon`. The ask began before this call: by a cache's read, or on a busy machine."""
        if self.awaited and self.call is not None:
            self.guard.on_failure(self.endpoint.name, _TIMED_OUT)
        self.abandon()

    def abandon(self) -> None:
        """Stop waiting. Attempts in progress become late calls, if allowed."""
        if not self.awaited:
            return
        self.awaited = False
        if not self.delivers_late:
            self.callback = None
        guard = self.guard
        now_ns = guard.clock_ns()
        waited_ns = now_ns - self.started_ns
        timeout = guard.adaptive_timeout
        if waited_ns >= timeout.timeout_ms * _MS_NS - _MS_NS and timeout.timeout_ms < timeout.ceiling_ms:
            timeout.count_timeout()
        if waited_ns >= guard.ceiling_ns - _MS_NS:
            self.count_as_slow(now_ns, overload=True)
        self._settle()

    def _is_awaited(self, now_ns: int) -> bool:
        return self.awaited and now_ns - self.started_ns < self.budget_ms * _MS_NS

    def _settle(self) -> None:
        """Turn unawaited attempts into late calls; cancel them if there are too many."""
        if self.awaited or (self.late and not self.ended):
            return
        guard = self.guard
        if self.ended:
            if self.extra is not None:
                self.extra.release()
            if self.late:
                self.late = False
                guard.late_calls -= 1
        elif (
            guard.mechanisms.late
            and guard.late_calls < MAX_LATE_CALLS
            # Past its last mark a call is not watched any more.
            and guard.clock_ns() - self.started_ns < LATE_FACTOR * guard.ceiling_ns
        ):
            self.late = True
            guard.late_calls += 1
            guard.counts.late_calls.add()
        else:
            self.cancel_attempts()

    def cancel_attempts(self) -> None:
        """Cancel the call now, and deliver an error to a callback that is still set."""
        guard = self.guard
        now_ns = guard.clock_ns()
        slow_after_ns = guard.adaptive_timeout.timeout_ms * _MS_NS - _MS_NS
        # After a stall of the loop this may come before the waiter's own timeout.
        timed_out = self.awaited and now_ns - self.started_ns >= slow_after_ns
        if timed_out and self.call is not None:
            guard.on_failure(self.endpoint.name, _TIMED_OUT)
        for attempt in (self, self.extra):
            if attempt is not None and attempt.call is not None:
                guard.latencies.record_timeout()
                attempt.endpoint.metrics.cancelled.record(now_ns - attempt.started_ns)
                # A cancelled attempt cannot count as slow later.
                if now_ns - attempt.started_ns >= slow_after_ns:
                    attempt.count_as_slow(now_ns, overload=True)
                attempt.cancel(now_ns)
        if self.extra is not None:
            self.extra.release()
        if self.late:
            self.late = False
            guard.late_calls -= 1
        if self.callback is not None:
            self._deliver(_TIMED_OUT if timed_out else CANCELLED)


class HedgedAsk(HedgedCall[OnOutcome]):
    """The call of an ask: no outcome after `abandon`."""

    __slots__ = ()

    delivers_late = False

    def _deliver(self, outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        callback, self.callback = self.callback, None
        self.awaited = False
        if callback is not None:
            callback(outcome)


class HedgedFetch(HedgedCall[OnAnswer]):
    """The call of a cache's fetch: exactly one outcome, also after `abandon`."""

    __slots__ = ()

    delivers_late = True

    def _deliver(self, outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        callback, self.callback = self.callback, None
        self.awaited = False
        if callback is not None:
            callback(outcome, not_found, body)
