"""Place: one address of a source, and what is known of it: how many calls it has, whether it fails, how fast it is beside its siblings.

The breaker and the limiter of a source are those of its places: it is left alone when all of them are, so that one sick replica is left
out while its siblings serve.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from cashier.fanout.breaker import Breaker, BreakerSettings
from cashier.fanout.latency_histogram import NEVER_NS
from cashier.fanout.limiter import Limiter, LimiterSettings

# A replica is slow when it takes three times as long as its siblings usually do, and five milliseconds longer: below that, leaving it out
# would cost more than it saves.
_SLOW_FACTOR = 3
_SLOW_MARGIN_NS = 5_000_000
_SETTLES = 16


class Endpoint:
    """`in_flight` counts calls under way. `slow_ns`: a call that takes so long counts against it."""

    __slots__ = ("breaker", "in_flight", "latency_ns", "limiter", "name", "slow_ns")

    def __init__(
        self, name: str, slow_ns: int, breaker: BreakerSettings | None, limiter: LimiterSettings | None, random: Random
    ) -> None:
        self.name = name
        self.in_flight = 0
        self.latency_ns = 0
        self.slow_ns = slow_ns
        self.breaker = Breaker(breaker, random)
        self.limiter = Limiter(limiter)

    def answered(self, began_ns: int, now_ns: int, *, slow: bool) -> None:
        """A call that began then, and is under way no more, was answered. `slow`: that has been counted already."""
        took_ns = now_ns - began_ns
        self.latency_ns += (took_ns - self.latency_ns) // _SETTLES if self.latency_ns else took_ns
        if slow:
            return
        breaker = self.breaker
        if took_ns >= self.slow_ns:
            breaker.failed(began_ns, now_ns)
        elif breaker.closed:
            breaker.good += 1
        elif breaker.worked(began_ns, now_ns):
            self.limiter.restart()
        limiter = self.limiter
        if (self.in_flight + 1) * 2 >= limiter.limit:
            limiter.grow()

    def failed(self, began_ns: int, now_ns: int, *, slow: bool, lost: bool) -> None:
        """A call that began then failed, or takes longer than it should. `slow`: that has been counted already.

        `lost`: it is a sign of too much load, and not merely slow. While the place is left alone, a trial's loss is none.
        """
        if lost and self.breaker.closed:
            self.limiter.lost(began_ns, now_ns)
        if not slow:
            self.breaker.failed(began_ns, now_ns)

    def __repr__(self) -> str:
        return f"<{self.name}: {self.in_flight} in flight, {self.breaker!r}, {self.limiter!r}>"


def admitting(places: Sequence[Endpoint], now_ns: int, lease_ns: int) -> tuple[int, bool]:
    """Which of several places to avoid, a bit each, and whether any of those left out is merely full.

    A place whose trial is due gets the call alone: a trial that goes elsewhere proves nothing.
    """
    avoid = 0
    full = False
    for index, place in enumerate(places):
        if not place.breaker.closed:
            if place.breaker.admits(now_ns, lease_ns):
                return ((1 << len(places)) - 1) & ~(1 << index), False
            avoid |= 1 << index
        elif place.in_flight >= place.limiter.limit:
            avoid |= 1 << index
            full = True
    return avoid, full


def elsewhere(places: Sequence[Endpoint], first: Endpoint) -> int | None:
    """Which places a second call should avoid, a bit each: the first one's, and those that are sick or full. None: it may not be made.

    Where there is only one place, it goes there on another connection.
    """
    avoid = 0
    for index, place in enumerate(places):
        sick = not place.breaker.closed or place.in_flight >= place.limiter.limit
        if sick or (place is first and len(places) > 1):
            avoid |= 1 << index
    return None if avoid == (1 << len(places)) - 1 else avoid


def mark_slow(places: Sequence[Endpoint], ceiling_ns: int) -> None:
    """What is slow for each place: the ceiling, or what it is beside its siblings.

    Beside the middle one, the faster of two: one that happens to be quick must not make all the others slow.
    """
    known = sorted(place.latency_ns for place in places if place.latency_ns and place.breaker.closed)
    usual_ns = known[(len(known) - 1) // 2] if known and len(places) > 1 else NEVER_NS
    for place in places:
        place.slow_ns = ceiling_ns
        if usual_ns != NEVER_NS:
            place.slow_ns = min(ceiling_ns, max(_SLOW_FACTOR * usual_ns, usual_ns + _SLOW_MARGIN_NS))
