"""The assumed traffic, drawn from a seed: users, times, merchants, markets.

One worker's share is drawn directly, so that a fleet of any size costs the same to simulate: the
checkouts that touch this worker, with their consultations at other workers, which matter only for
what they leave in the shared cache.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from itertools import accumulate
from random import Random
from typing import NamedTuple

from msgspec import Struct


class Traffic(Struct, frozen=True):
    """The assumptions and their reasons.

    `users_each`: users for each consultation/s. A billion people paying once or twice a day, with
    a peak of three times the mean, are 35,000 to 70,000 checkouts/s: some ten thousand users for
    each consultation/s. Half of that errs towards users who return sooner. `users_exponent`,
    `users_head`: activity is Zipf-like, (rank + head) ^ -exponent, the head a share of all users:
    without it the most active user would check out several times a second. `consultations`: the
    share of checkouts with one consultation, two, three, four. `pause_s`, `pause_spread`: between
    two of them, log-normal with this median: one pause in four is under 10 s (another method is
    tried), one in twenty over 100 s. `merchants_exponent`: YCSB's constant. `markets`: pairs of
    currency and country. `took_ms`: time of an upstream call. `extra_share`: hedges and retries, as
    measured with one call in a hundred slow; the budget allows 0.05.
    """

    users_each: float = 5_000
    users_exponent: float = 0.8
    users_head: float = 0.001
    consultations: tuple[float, ...] = (0.45, 0.30, 0.15, 0.10)
    pause_s: float = 20
    pause_spread: float = 1.0
    merchants: int = 100_000
    merchants_exponent: float = 0.99
    markets: int = 40
    markets_exponent: float = 1.2
    took_ms: float = 5
    extra_share: float = 0.013
    seed: int = 11

    @property
    def each_checkout(self) -> float:
        """Mean consultations per checkout."""
        return sum(count * share for count, share in enumerate(self.consultations, 1))


class SimulatedConsultation(NamedTuple):
    """One consultation. `before_s`: the user's last one in an earlier checkout elsewhere."""

    at_s: float
    here: bool
    user: int
    merchant: int
    market: int
    checkout: int
    before_s: float


class Zipf:
    """Ranks 0 to `count` - 1 in proportion to (rank + head) ^ -exponent, by its integral."""

    def __init__(self, count: float, exponent: float, head: float = 1.0) -> None:
        assert exponent != 1, "its integral is a logarithm"
        self._power = 1 - exponent
        self._head = head
        self._low = head**self._power
        self._range = (count + head) ** self._power - self._low
        self._last = max(0, math.ceil(count) - 1)

    def draw(self, random: Random) -> int:
        x = (self._low + random.random() * self._range) ** (1 / self._power) - self._head
        return min(int(x), self._last)

    def share(self, rank: int) -> float:
        """Share of all draws."""
        at = rank + self._head
        return float(((at + 1) ** self._power - at**self._power) / self._range)


class TrafficStream:
    """The consultations that touch one of `workers`, of `per_s`. `sticky`: route each user to one
    worker.

    `sample`: simulates this share of all users, merchants and markets, each as busy as ever; a
    cache smaller by the same factor has the same hit rate (Waldspurger et al., SHARDS, FAST 2015),
    and minutes are simulated in a second. `per_s` is the rate of the sample.
    """

    def __init__(
        self, traffic: Traffic, per_s: float, workers: int, *, sticky: bool, random: Random, sample: float = 1.0
    ) -> None:
        self.per_s = per_s = per_s * sample
        self.merchants = Zipf(traffic.merchants * sample, traffic.merchants_exponent, sample)
        self.markets = Zipf(traffic.markets * sample, traffic.markets_exponent, sample)
        self._traffic = traffic
        self._random = random
        self._alone = sticky or workers == 1
        self._away = 0.0 if self._alone else 1 - 1 / workers
        checkouts_per_s = per_s / traffic.each_checkout
        # With sticky routing a worker owns every n-th user.
        users = traffic.users_each * per_s / (workers if sticky else 1)
        self._users = Zipf(users, traffic.users_exponent, max(1.0, traffic.users_head * users))
        touched = (share * (1 - self._away**count) for count, share in enumerate(traffic.consultations, 1))
        self._counts = list(accumulate(touched))
        self._touches_per_s = checkouts_per_s * self._counts[-1] / (workers if sticky else 1)
        self._away_per_s = checkouts_per_s - self._touches_per_s

    def until(self, seconds: float) -> Iterator[SimulatedConsultation]:
        """Draw consultations in order of time."""
        pending: list[SimulatedConsultation] = []
        at_s, checkout = 0.0, 0
        while True:
            at_s += self._random.expovariate(self._touches_per_s)
            while pending and pending[0].at_s < at_s:
                consultation = heapq.heappop(pending)
                if consultation.at_s > seconds:
                    return
                yield consultation
            if at_s > seconds:
                return
            checkout += 1
            for consultation in self._checkout(at_s, checkout):
                heapq.heappush(pending, consultation)

    def _checkout(self, at_s: float, checkout: int) -> Iterator[SimulatedConsultation]:
        random, traffic = self._random, self._traffic
        user, merchant, market = self._users.draw(random), self.merchants.draw(random), self.markets.draw(random)
        before_s = -math.inf if self._alone else at_s - random.expovariate(self._users.share(user) * self._away_per_s)
        drawn = random.random() * self._counts[-1]
        count = next(place for place, bound in enumerate(self._counts, 1) if drawn <= bound)
        # The first consultation at this worker; there is at least one.
        first = random.choices(range(count), [self._away**place for place in range(count)])[0]
        for place in range(count):
            here = place == first or (place > first and random.random() >= self._away)
            yield SimulatedConsultation(at_s, here, user, merchant, market, checkout, before_s)
            at_s += random.lognormvariate(0, traffic.pause_spread) * traffic.pause_s
