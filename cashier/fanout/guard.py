"""Guard: what stands between a consultation and one source. Whether a call is made at all, and what is learned from those that were.

Outermost first: enough time left for an answer (p10), our own load (ladder), the source's health (breaker) and its load (limiter), then
the call itself with its hedge or retry (`flight`), all fed by one sketch. No timer per call: one for the source, kept by `watch`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any

from msgspec import Struct

from cashier.fanout.adaptive_timeout import SHARE, AdaptiveTimeout
from cashier.fanout.ask import Importance, Known, OnOutcome, PendingCall
from cashier.fanout.breaker import BreakerSettings
from cashier.fanout.call_timers import CallTimers
from cashier.fanout.endpoint import Endpoint, admitting, mark_slow
from cashier.fanout.hedge import Hedge, HedgeSettings
from cashier.fanout.hedged_call import HedgedCall
from cashier.fanout.latency_histogram import NEVER_NS, LatencyHistogram
from cashier.fanout.limiter import LimiterSettings
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.retry_budget import RetryBudget
from cashier.fanout.upstream import OnAnswer, Upstream
from cashier.source_errors import BreakerOpen, NotAsked, Shed, Skipped

_MS_NS = 1_000_000
_LEARN_NS = 1_000_000_000
# Longer than anybody waits.
NEVER_MS = 10**9
_ENOUGH = 100
_SKIPPED = Skipped("too little time was left")
_OPEN = BreakerOpen("its breaker is open")
_FULL = Shed("it has as many calls as it bears")
_DIMMED = Shed("left out to save our own time")


class Mechanisms(Struct, frozen=True):
    """What guards a source; None or False turns one off. `extra_bps`: how many calls more hedges and retries may make together."""

    hedge: HedgeSettings | None = HedgeSettings()
    retry: bool = True
    breaker: BreakerSettings | None = BreakerSettings()
    limiter: LimiterSettings | None = LimiterSettings()
    late: bool = True
    adaptive_timeout: bool = True
    extra_bps: int = 500


class GuardCounts(Struct):
    """What a guard has done since it was made. Plain integers, read by whoever wants to know."""

    first: int = 0
    hedges: int = 0
    hedges_won: int = 0
    retries: int = 0
    late: int = 0
    harvested: int = 0
    skipped: int = 0
    broken_off: int = 0
    full: int = 0
    dimmed: int = 0


class Guard:
    """One source with its mechanisms. `ceiling_ms`: the longest that it is waited for; `patience` says how long now.

    Of a REQUIRED source nothing is given up before its ceiling: without it there is no answer at all. ENRICHING ones are the first to be
    left out when we ourselves have too much to do. Belongs to one event loop.
    """

    __slots__ = (
        "_asked_ns", "_dimmable", "_everywhere", "_learn_ns", "_learned_first", "_learning", "_least_ns", "_sole", "budget", "ceiling_ns",
        "clock_ns", "counts", "hedge", "ladder", "mechanisms", "name", "patience", "places", "several", "sketch", "upstream", "watch",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        upstream: Upstream,
        ceiling_ms: int,
        mechanisms: Mechanisms,
        ladder: DegradationLadder,
        importance: Importance,
        *,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        random: Random | None = None,
    ) -> None:
        random = random or Random()
        self.name = name
        self.upstream = upstream
        self.mechanisms = mechanisms
        self.ladder = ladder
        self._dimmable = importance is Importance.ENRICHING
        self._learning = importance is not Importance.REQUIRED
        self.clock_ns = clock_ns
        self.ceiling_ns = ceiling_ms * _MS_NS
        self.patience = AdaptiveTimeout(ceiling_ms, learning=mechanisms.adaptive_timeout and self._learning)
        self.hedge = Hedge(mechanisms.hedge)
        self.budget = RetryBudget(mechanisms.extra_bps)
        self.sketch = LatencyHistogram()
        self.counts = GuardCounts()
        self.places = tuple(
            Endpoint(each, self.ceiling_ns, mechanisms.breaker, mechanisms.limiter, random) for each in upstream.places
        )
        self.watch = CallTimers(self)
        self._sole = self.places[0] if len(self.places) == 1 else None
        self.several = len(self.places) > 1
        self._everywhere = (1 << len(self.places)) - 1
        self._least_ns = 0  # less time left than this, and it is not asked
        self._asked_ns = 0
        self._learned_first = 0  # so many first calls had been made at the last lesson
        self.learn(clock_ns())

    def start(self, known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> PendingCall | None:
        """See `Start`. An answer after its asker has gone is learned from, and heard by nobody."""
        refusal = self.call(known, call_headers, budget_ms, budget_ms, done, keep=False)
        if isinstance(refusal, HedgedCall):
            return refusal
        done(refusal)
        return None

    def start_unsheddable(self, known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> PendingCall | None:
        """As `start`, but never left out to save our own time, or for lack of time: somebody pays on what it says."""
        refusal = self.call(known, call_headers, budget_ms, NEVER_MS, done, keep=False, dims=False)
        if isinstance(refusal, HedgedCall):
            return refusal
        done(refusal)
        return None

    def call(
        self,
        known: Known,
        call_headers: Any,
        budget_ms: int,
        left_ms: int,
        heard: OnAnswer | OnOutcome,
        *,
        keep: bool,
        dims: bool = True,
    ) -> HedgedCall | NotAsked:
        """Make the call, or say why it is not made. `dims`: it may be left out to save our own time.

        `left_ms`: how long the asker waits. `budget_ms`: how long an answer is of use, and what the upstream is told. With `keep` an
        abandoned flight still tells `heard`, exactly once, whatever becomes of it; without, `heard` is a `OnOutcome` and hears only what it
        waits for.
        """
        now_ns = self.clock_ns()
        if now_ns >= self._learn_ns:
            self.learn(now_ns)
        # Where all are in a hurry one call a second is made all the same: nobody else would find out that it has become faster.
        if left_ms * _MS_NS < self._least_ns and now_ns - self._asked_ns < _LEARN_NS:
            self.counts.skipped += 1
            return _SKIPPED
        if self._dimmable and dims and self.ladder.dims():
            self.counts.dimmed += 1
            return _DIMMED
        avoid = 0
        place = self._sole
        if place is None:
            avoid, full = admitting(self.places, now_ns, 2 * self.ceiling_ns)
            if avoid == self._everywhere:
                return self._refused(full=full)
        elif place.breaker.closed:
            if place.in_flight >= place.limiter.limit:
                return self._refused(full=True)
        elif not place.breaker.admits(now_ns, 2 * self.ceiling_ns):
            return self._refused(full=False)
        self._asked_ns = now_ns
        self.counts.first += 1
        self.budget.first += 1
        flight = HedgedCall(self, known, call_headers, budget_ms, heard, now_ns, keep=keep)
        flight.send(flight, budget_ms, avoid)
        self.watch.over(flight)
        return flight

    def learn(self, now_ns: int) -> None:
        """Once a second: from what the sketch and the counts say to the figures that calls are made by."""
        self._learn_ns = now_ns + _LEARN_NS
        calls, self._learned_first = self.counts.first - self._learned_first, self.counts.first
        self.budget.roll(now_ns)
        for place in self.places:
            place.breaker.roll(now_ns)
        mark_slow(self.places, self.ceiling_ns)
        count, (p10_ns, p50_ns, hedge_ns, patience_ns) = self.sketch.quantiles(
            (0.1, 0.5, self.hedge.share, SHARE), now_ns
        )
        room = any(place.breaker.closed and place.in_flight < place.limiter.limit for place in self.places)
        self.hedge.learn(count, p50_ns, hedge_ns, allowed=room)
        self.patience.learn(count, patience_ns, calls)
        # One that takes longer than anybody waits is the breaker's business: its trials find out when it has become better. Nobody would
        # if it were not asked because of what it once took.
        self._least_ns = p10_ns if count >= _ENOUGH and p10_ns <= self.patience.timeout_ms * _MS_NS else 0

    def reconfigure(self, ceiling_ms: int, mechanisms: Mechanisms) -> None:
        """Other numbers from now on. What was learned stays; what is under way keeps what it began with."""
        self.mechanisms = mechanisms
        self.ceiling_ns = ceiling_ms * _MS_NS
        self.patience.reconfigure(ceiling_ms, learning=mechanisms.adaptive_timeout and self._learning)
        self.hedge.settings = mechanisms.hedge
        self.budget.share_bps = mechanisms.extra_bps
        for place in self.places:
            place.breaker.reconfigure(mechanisms.breaker)
            place.limiter.reconfigure(mechanisms.limiter)
        self.learn(self.clock_ns())

    def close(self) -> None:
        """End what is under way, whether or not somebody waits for it. No call is made any more: there is never time enough for one."""
        self._least_ns = self._learn_ns = self._asked_ns = NEVER_NS
        self.watch.close()

    def _refused(self, *, full: bool) -> NotAsked:
        if full:
            self.counts.full += 1
            return _FULL
        self.counts.broken_off += 1
        return _OPEN

    def __repr__(self) -> str:
        return f"<Guard of {self.name}: {self.patience!r}, {self.hedge!r}, {self.budget!r}, {', '.join(map(repr, self.places))}>"
