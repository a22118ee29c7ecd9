"""One source with the state of its mechanisms: counts, latencies, endpoints, and what they teach.

One latency histogram feeds all mechanisms. `guard` decides about calls, `hedged_call` makes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

from msgspec import Struct

from cashier.fanout.adaptive_timeout import QUANTILE, AdaptiveTimeout
from cashier.fanout.ask import Importance
from cashier.fanout.breaker import BreakerSettings
from cashier.fanout.endpoint import Endpoint, update_slow_marks
from cashier.fanout.failure_log import OnAnswersAgain, OnFailure, ignore_answer, ignore_failure
from cashier.fanout.hedge import Hedge, HedgeSettings
from cashier.fanout.latency_histogram import LatencyHistogram
from cashier.fanout.limiter import LimiterSettings
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.retry_budget import RetryBudget
from cashier.fanout.source_metrics import EndpointMetrics, GuardCounts, configured_url
from cashier.fanout.timer_wheel import TimerWheel
from cashier.fanout.upstream_protocol import Upstream
from cashier.metrics.store import Gauge, Store

_MS_NS = 1_000_000
_NS = 1_000_000_000
LEARN_NS = 1_000_000_000
_MIN_CALLS = 100


class Mechanisms(Struct, frozen=True):
    """The mechanisms of a source; None or False turns one off.

    `extra_bps`: the budget of hedges and retries together. `gathering_ms`: see `AdaptiveTimeout`.
    """

    hedge: HedgeSettings | None = HedgeSettings()
    retry: bool = True
    breaker: BreakerSettings | None = BreakerSettings()
    limiter: LimiterSettings | None = LimiterSettings()
    late: bool = True
    adaptive_timeout: bool = True
    extra_bps: int = 500
    gathering_ms: int = 0


class GuardedSource:
    """One source with its mechanisms. Belongs to one event loop.

    `on_recovery`: called when a breaker closes. `late_calls`: calls in progress without a waiter.

    `ceiling_ms`: the longest timeout; `adaptive_timeout` holds the current one. A REQUIRED source
    keeps its ceiling: without its answer there is no result. Calls of ENRICHING sources are the
    first to be left out under load.
    """

    __slots__ = (
        "_all_addresses", "_budget_left", "_calls_to_learn", "_last_call_ns", "_learning", "_min_left_ns",
        "_next_learn_ns", "_on_answers_again", "_optional", "_random", "_sole_endpoint", "_subject",
        "adaptive_timeout", "ceiling_ns", "clock_ns", "counts", "endpoints", "hedge", "ladder", "late_calls",
        "latencies", "mechanisms", "metrics", "multi_address", "name", "on_failure", "on_recovery", "retry_budget",
        "upstream", "wheel",
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
        subject: str | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        random: Random | None = None,
        on_failure: OnFailure = ignore_failure,
        on_answers_again: OnAnswersAgain = ignore_answer,
        metrics: Store | None = None,
        wheel: TimerWheel | None = None,
    ) -> None:
        """`subject`: see `Endpoint`. `metrics`: where to count. `wheel`: that of all sources."""
        self._random = random or Random()
        self._subject = subject
        self.name = name
        self.upstream = upstream
        self.on_failure = on_failure
        self._on_answers_again = on_answers_again
        self.mechanisms = mechanisms
        self.ladder = ladder
        self._optional = importance is Importance.ENRICHING
        self._learning = importance is not Importance.REQUIRED
        self.clock_ns = clock_ns
        self.ceiling_ns = ceiling_ms * _MS_NS
        self.adaptive_timeout = AdaptiveTimeout(ceiling_ms, learning=mechanisms.adaptive_timeout and self._learning)
        self.hedge = Hedge(mechanisms.hedge)
        self.retry_budget = RetryBudget(mechanisms.extra_bps)
        self.latencies = LatencyHistogram()
        self.metrics = metrics or Store()
        self.counts = GuardCounts(self.metrics, name)
        self._budget_left = self.metrics.gauge("cashier_extra_call_budget_ratio", name)
        self.on_recovery: Callable[[], None] | None = None
        self.endpoints: tuple[Endpoint, ...] = ()
        self.set_addresses(upstream.addresses)
        self.wheel = wheel or TimerWheel(clock_ns)
        self.late_calls = 0
        self._min_left_ns = 0  # with less time left, no call is made
        self._last_call_ns = 0
        self._calls_to_learn = 0  # first calls since the last `learn`
        self.learn(clock_ns())

    def set_addresses(self, addresses: tuple[str, ...]) -> None:
        """Replace the addresses: at least one. Those that stay keep what was learned about them.

        At the same time each call in progress takes the new index of its address, or a negative
        one.
        """
        known = {endpoint.name: endpoint for endpoint in self.endpoints}
        breaker, limiter = self.mechanisms.breaker, self.mechanisms.limiter
        self.endpoints = tuple(
            known.pop(address)
            if address in known
            else Endpoint(
                address,
                self.ceiling_ns,
                breaker,
                limiter,
                self._random,
                EndpointMetrics(self.metrics, self.name, configured_url(address)),
                self._subject,
                self._recovered,
            )
            for address in addresses
        )
        self._sole_endpoint = self.endpoints[0] if len(self.endpoints) == 1 else None
        self.multi_address = len(self.endpoints) > 1
        self._all_addresses = (1 << len(self.endpoints)) - 1

    def learn(self, now_ns: int) -> None:
        """Update the mechanisms from the histogram and the counts, once a second."""
        self._next_learn_ns = now_ns + LEARN_NS
        calls, self._calls_to_learn = self._calls_to_learn, 0
        self.retry_budget.roll(now_ns)
        for endpoint in self.endpoints:
            endpoint.breaker.roll(now_ns)
        update_slow_marks(self.endpoints, self.ceiling_ns)
        count, (p10_ns, p50_ns, hedge_ns, timeout_ns) = self.latencies.quantiles(
            (0.1, 0.5, self.hedge.quantile, QUANTILE), now_ns
        )
        room = any(
            endpoint.breaker.closed and endpoint.in_flight < endpoint.limiter.limit for endpoint in self.endpoints
        )
        self.hedge.learn(count, p50_ns, hedge_ns, allowed=room)
        self.adaptive_timeout.learn(count, timeout_ns, calls, self.mechanisms.gathering_ms)
        # A source slower than every timeout is left to the breaker: its probes notice the recovery,
        # while a source that is skipped for its past latency would never be called again.
        slowest_ns = self.adaptive_timeout.timeout_ms * _MS_NS
        self._min_left_ns = p10_ns if count >= _MIN_CALLS and p10_ns <= slowest_ns else 0

    def sample(self) -> None:
        """Set the gauges, those of a URL for all its addresses together."""
        now_ns = self.clock_ns()
        self._budget_left.set(self.retry_budget.left_ratio(now_ns))
        in_flight: dict[Gauge, int] = {}
        states: dict[Gauge, int] = {}
        for endpoint in self.endpoints:
            metrics = endpoint.metrics
            in_flight[metrics.in_flight] = in_flight.get(metrics.in_flight, 0) + endpoint.in_flight
            worst = max(states.get(metrics.breaker_state, 0), endpoint.breaker.state(now_ns).badness)
            states[metrics.breaker_state] = worst
        for gauge, number in (*in_flight.items(), *states.items()):
            gauge.set(number)

    def probe_soon(self) -> None:
        """Let every open breaker probe with the next call: something else answers again."""
        now_ns = self.clock_ns()
        for endpoint in self.endpoints:
            endpoint.breaker.probe_soon(now_ns)

    def _recovered(self, address: str, open_ns: int) -> None:
        self._on_answers_again(address, open_ns / _NS)
        if self.on_recovery is not None:
            self.on_recovery()

    def reconfigure(self, ceiling_ms: int, mechanisms: Mechanisms) -> None:
        """Apply other settings.

        Learned state stays; calls in progress keep the settings they started with.
        """
        self.mechanisms = mechanisms
        self.ceiling_ns = ceiling_ms * _MS_NS
        self.adaptive_timeout.reconfigure(ceiling_ms, learning=mechanisms.adaptive_timeout and self._learning)
        self.hedge.settings = mechanisms.hedge
        self.retry_budget.share_bps = mechanisms.extra_bps
        for endpoint in self.endpoints:
            endpoint.breaker.reconfigure(mechanisms.breaker)
            endpoint.limiter.reconfigure(mechanisms.limiter)
        self.learn(self.clock_ns())

    def __repr__(self) -> str:
        return (
            f"<Guard of {self.name}: {self.adaptive_timeout!r}, {self.hedge!r}, {self.retry_budget!r},"
            f" {', '.join(map(repr, self.endpoints))}>"
        )
