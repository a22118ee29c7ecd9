"""One address of a source and its health: load, failures, latency relative to its siblings.

Breaker and limiter are per address: one sick replica is left out while its siblings serve, and the
source as a whole is left out when all of its addresses are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from random import Random

from cashier.fanout.ask import Known
from cashier.fanout.breaker import Breaker, BreakerSettings
from cashier.fanout.latency_histogram import NEVER_NS
from cashier.fanout.limiter import Limiter, LimiterSettings
from cashier.fanout.source_metrics import EndpointMetrics

# A replica is slow at three times the usual latency of its siblings and at least 5 ms more: below
# that, leaving it out costs more than it saves.
_SLOW_FACTOR = 3
_SLOW_MARGIN_NS = 5_000_000
_SETTLING_S = 5
# Weight of one call in the mean latency: 1/16.
_SMOOTHING = 16


OnRecovery = Callable[[str, int], None]
"""Takes the address whose breaker closed, and for how many ns it was open."""


def _ignore(address: str, open_ns: int) -> None:
    """The default for a callback."""


class Endpoint:
    """`in_flight`: calls in progress.

    `slow_ns`: a call of this duration counts against the address. `subject`: the input that a
    failure may be specific to, see `Breaker`. `on_recovery`: its breaker closed.
    """

    __slots__ = (
        "_on_recovery", "breaker", "in_flight", "latency_ns", "limiter", "metrics", "name", "settling",
        "slow_ns", "subject",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        slow_ns: int,
        breaker: BreakerSettings | None,
        limiter: LimiterSettings | None,
        random: Random,
        metrics: EndpointMetrics,
        subject: str | None = None,
        on_recovery: OnRecovery = _ignore,
    ) -> None:
        self._on_recovery = on_recovery
        self.name = name
        self.metrics = metrics
        self.subject = subject
        self.in_flight = 0
        self.latency_ns = 0
        self.settling = 0  # seconds after a recovery in which its latency is no reference
        self.slow_ns = slow_ns
        self.breaker = Breaker(breaker, random)
        self.limiter = Limiter(limiter)

    def admits_probe(self, now_ns: int, lease_ns: int, known: Known | None = None) -> bool:
        """Whether a call may start although the breaker is open. `known`: its inputs."""
        return self.breaker.admits(now_ns, lease_ns, self._key(known))

    def record_answer(self, started_ns: int, now_ns: int, *, counted: bool, known: Known | None = None) -> None:
        """Record an answered call that is no longer in flight.

        `counted`: it counted as slow already. `known`: its inputs.
        """
        took_ns = now_ns - started_ns
        self.latency_ns += (took_ns - self.latency_ns) // _SMOOTHING if self.latency_ns else took_ns
        if counted:
            return
        breaker = self.breaker
        if took_ns >= self.slow_ns:
            self._record_failure(started_ns, now_ns, self._key(known))
        elif breaker.closed:
            breaker.successes += 1
        elif breaker.record_success(started_ns, now_ns):
            self.limiter.restart()
            self.settling = _SETTLING_S
            self._on_recovery(self.name, now_ns - breaker.opened_ns)
        limiter = self.limiter
        # An answer that took half of its time leaves no room for as many again.
        if limiter.ramp_to and 2 * took_ns < self.slow_ns:
            limiter.ramp()
        elif (self.in_flight + 1) * 2 >= limiter.limit:
            limiter.grow()

    def record_failure(
        self, started_ns: int, now_ns: int, *, counted: bool, overload: bool, known: Known | None = None
    ) -> None:
        """Record a call that failed or is slow. `counted` and `known` as in `record_answer`.

        `overload`: the failure shows too much load, not mere slowness. A failed probe does not: the
        limit does not change while the breaker is open.
        """
        key = self._key(known)
        if overload and self.breaker.closed:
            self.limiter.shrink(started_ns, now_ns, key)
        if not counted:
            self._record_failure(started_ns, now_ns, key)

    def _record_failure(self, started_ns: int, now_ns: int, key: Hashable) -> None:
        was_closed = self.breaker.closed
        self.breaker.record_failure(started_ns, now_ns, key)
        if was_closed and not self.breaker.closed:
            self.metrics.openings.add()

    def _key(self, known: Known | None) -> Hashable:
        return None if known is None or self.subject is None else known.get(self.subject)

    def __repr__(self) -> str:
        return f"<{self.name}: {self.in_flight} in flight, {self.breaker!r}, {self.limiter!r}>"


def unavailable(
    endpoints: Sequence[Endpoint], now_ns: int, lease_ns: int, known: Known | None = None
) -> tuple[int, bool]:
    """Return the endpoints to avoid, one bit each, and whether one of them is merely at its limit.

    An endpoint whose probe is due gets this call alone: a probe sent elsewhere proves nothing.
    """
    avoid = 0
    at_limit = False
    for index, endpoint in enumerate(endpoints):
        if not endpoint.breaker.closed:
            if endpoint.admits_probe(now_ns, lease_ns, known):
                return ((1 << len(endpoints)) - 1) & ~(1 << index), False
            avoid |= 1 << index
        elif endpoint.in_flight >= endpoint.limiter.limit:
            avoid |= 1 << index
            at_limit = True
    return avoid, at_limit


def avoid_for_second_call(endpoints: Sequence[Endpoint], first: Endpoint) -> int | None:
    """Return the endpoints that a second call must avoid, one bit each; None if it may not be made.

    These are the first call's, and those that are open or at their limit. A sole endpoint may get
    both calls, on different connections.
    """
    avoid = 0
    for index, endpoint in enumerate(endpoints):
        sick = not endpoint.breaker.closed or endpoint.in_flight >= endpoint.limiter.limit
        if sick or (endpoint is first and len(endpoints) > 1):
            avoid |= 1 << index
    return None if avoid == (1 << len(endpoints)) - 1 else avoid


def update_slow_marks(endpoints: Sequence[Endpoint], ceiling_ns: int) -> None:
    """Set each `slow_ns`: the ceiling, or less if the siblings are much faster.

    The reference is the median latency, of two the faster: one quick endpoint must not make all
    others slow. Endpoints that have just recovered are none: the load comes back to all of them at
    once, and they become slower together. Call it once a second.
    """
    latencies = sorted(
        endpoint.latency_ns
        for endpoint in endpoints
        if endpoint.latency_ns and endpoint.breaker.closed and not endpoint.settling
    )
    usual_ns = latencies[(len(latencies) - 1) // 2] if latencies and len(endpoints) > 1 else NEVER_NS
    for endpoint in endpoints:
        endpoint.settling = max(0, endpoint.settling - 1)
        endpoint.slow_ns = ceiling_ns
        if usual_ns != NEVER_NS:
            endpoint.slow_ns = min(ceiling_ns, max(_SLOW_FACTOR * usual_ns, usual_ns + _SLOW_MARGIN_NS))
