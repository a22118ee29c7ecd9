"""The guard of one source: decides whether a call is made.

Outermost first: the deadline check (p10), load shedding (ladder), the source's health (breaker) and
capacity (limiter), then the call with its hedge or retry (`hedged_call`). No timer per call:
`timer_wheel` has one for all sources.
"""

from __future__ import annotations

from typing import Any, TypeVar

from cashier.fanout.ask import AskCall, Known, OnOutcome
from cashier.fanout.endpoint import unavailable
from cashier.fanout.guarded_source import LEARN_NS, GuardedSource
from cashier.fanout.hedged_call import HedgedAsk, HedgedCall
from cashier.fanout.latency_histogram import NEVER_NS
from cashier.fanout.upstream_protocol import OnAnswer
from cashier.source_errors import BreakerOpen, FailureReason, NotAsked, Shed, Skipped

C = TypeVar("C", OnAnswer, OnOutcome)

_MS_NS = 1_000_000
# As `left_ms`: passes the deadline check and load shedding.
_UNSHEDDABLE_MS = 10**9
_SKIPPED = Skipped("too little time left for an answer")
_BREAKER_OPEN = BreakerOpen("the breaker is open")
_AT_LIMIT = Shed("the concurrency limit is reached")
_DIMMED = Shed("left out under our own load", reason=FailureReason.DIMMED)


class Guard(GuardedSource):
    """A source as the rest of the fan-out calls it."""

    __slots__ = ()

    def start(self, known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall | None:
        """See `Start`. An answer after `abandon` updates the statistics and goes nowhere."""
        call = self.call(HedgedAsk, known, call_headers, budget_ms, budget_ms, done)
        if isinstance(call, NotAsked):
            done(call)
            return None
        return call

    def start_unsheddable(self, known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall | None:
        """As `start`, without load shedding and deadline check: a payment depends on the answer."""
        call = self.call(HedgedAsk, known, call_headers, budget_ms, _UNSHEDDABLE_MS, done)
        if isinstance(call, NotAsked):
            done(call)
            return None
        return call

    def call(
        self,
        kind: type[HedgedCall[C]],
        known: Known,
        call_headers: Any,
        budget_ms: int,
        left_ms: int,
        callback: C,
    ) -> HedgedCall[C] | NotAsked:
        """Make the call, or return the reason why not.

        `kind`: `HedgedAsk` or `HedgedFetch`, with a callback of its own type. `left_ms`: how long
        the caller waits. `budget_ms`: how long an answer is useful; sent to the upstream.
        """
        now_ns = self.clock_ns()
        if now_ns >= self._next_learn_ns:
            self.learn(now_ns)
        # One call a second is made even if all callers lack time: only a call can show that the
        # source has become faster.
        if left_ms * _MS_NS < self._min_left_ns and now_ns - self._last_call_ns < LEARN_NS:
            self.counts.skipped.add()
            return _SKIPPED
        if self._optional and left_ms < _UNSHEDDABLE_MS and self.ladder.dims_call():
            return _DIMMED
        avoid = 0
        endpoint = self._sole_endpoint
        if endpoint is None:
            avoid, at_limit = unavailable(self.endpoints, now_ns, 2 * self.ceiling_ns, known)
            if avoid == self._all_addresses:
                return self._refused(at_limit=at_limit)
        elif endpoint.breaker.closed:
            if endpoint.in_flight >= endpoint.limiter.limit:
                return self._refused(at_limit=True)
        elif not endpoint.admits_probe(now_ns, 2 * self.ceiling_ns, known):
            return self._refused(at_limit=False)
        self._last_call_ns = now_ns
        self._calls_to_learn += 1
        first_calls = self.counts.first_calls
        first_calls.cells[first_calls.index] += 1
        self.retry_budget.first_calls += 1
        call = kind(self, known, call_headers, budget_ms, callback, now_ns)
        call.send(call, budget_ms, avoid)
        hedge_ns, slow_ns = self.hedge.delay_ns, call.endpoint.slow_ns
        call.due_ns = now_ns + (hedge_ns if hedge_ns < slow_ns else slow_ns)
        self.wheel.watch(call, now_ns)
        return call

    def close(self) -> None:
        """Cancel all calls in progress. Later calls are skipped: they never have enough time."""
        self._min_left_ns = self._next_learn_ns = self._last_call_ns = NEVER_NS
        self.wheel.cancel_calls(self)

    def _refused(self, *, at_limit: bool) -> NotAsked:
        if at_limit:
            self.counts.at_limit.add()
            return _AT_LIMIT
        self.counts.breaker_open.add()
        return _BREAKER_OPEN
