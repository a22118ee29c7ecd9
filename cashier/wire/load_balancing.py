"""Load balancing across addresses: three choices, by calls in flight and recent latency. Pure.

Of three addresses, one whose turn it is and two at random, the cheapest is used: the cost is a
peak-sensitive, decaying latency times the calls in flight. This is the power of two choices
(Mitzenmacher 2001) with the peak EWMA of Finagle and linkerd, and their time of ten seconds. Other
than theirs, it compares three, because of four addresses two bad ones are every sixth pair; it
counts errors as slow, decays in some answers too, and tries an idle address with one call at a
time. No probe is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf
from random import Random
from typing import Generic, Protocol, TypeVar

# An address that refuses a connection is tried again after 0.1 s, then twice that, finally every 5
# s: a restart is noticed soon, a dead machine costs one connect attempt in 5 s.
FIRST_BACK_OFF_S = 0.1
MAX_BACK_OFF_S = 5.0
# In this time an estimate decays to 1/e: Finagle's and linkerd's default.
DECAY_S = 10.0
# An address is left for another one that costs less than this share of it. Less is noise, and would
# leave all calls of a quiet source to one of several equal addresses.
CLEARLY_CHEAPER = 0.75
# Each answer has at least this part in the mean, and in a fall of the estimate: a stall of our own
# loop makes all addresses look slow, which must not outlast some answers.
LEAST_PART = 1 / 16
# An error counts as a call that takes so many times as long as the slowest address with its load.
# With the decay the address is tried again after some twenty seconds.
ERROR_FACTOR = 8
MIN_ERROR_S = 0.1
MAX_ERROR_S = 10.0
# A new address has its whole share after this time, and a tenth of it at first: Envoy's slow start,
# with its default of 10 %.
WARM_UP_S = 10.0
FIRST_SHARE = 0.1
# Turns of a list with weights: they are kept with a precision of 1/8 of an average address.
_TURNS_PER_HOST = 8
# Of a weight that is next to nothing.
_LEAST_SHARE = 0.001


class BackOff:
    """The time during which an address is avoided after a failed connect.

    Avoided, not excluded: if there is no other address, it is used.
    """

    __slots__ = ("failures", "until_s")

    def __init__(self) -> None:
        self.failures = 0
        self.until_s = 0.0

    def record_failure(self, now_s: float) -> None:
        # Concurrent connects that fail together count as one failure.
        if now_s >= self.until_s:
            self.until_s = now_s + min(MAX_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0 ** min(self.failures, 10))
            self.failures += 1

    def record_success(self) -> None:
        self.failures = 0
        self.until_s = 0.0


class LatencyEstimate:
    """The recent latency of an address: it follows a rise at once, and a fall with time and calls.

    `taken_s`: the estimate at the last call's end; 0 before the first one. `answered_s`: the mean
    of answers alone. `warm_up_s`: when the address began to be used, None once it has its whole
    share.
    """

    __slots__ = ("_stamp_s", "answered_s", "taken_s", "warm_up_s")

    def __init__(self) -> None:
        self.taken_s = self.answered_s = 0.0
        self.warm_up_s: float | None = None
        self._stamp_s = 0.0

    def at(self, now_s: float) -> float:
        """The decayed estimate: an address that is not used is tried again at some time."""
        return self.taken_s * exp(min(0.0, self._stamp_s - now_s) / DECAY_S)

    def restart(self, now_s: float) -> None:
        """The address begins to be used, or to be used again."""
        self.taken_s = 0.0
        self.warm_up_s = now_s

    def record(self, took_s: float, now_s: float) -> None:
        """Record an answer."""
        self.answered_s += (took_s - self.answered_s) * LEAST_PART if self.answered_s else took_s
        kept = exp(min(0.0, self._stamp_s - now_s) / DECAY_S)
        decayed_s = self.taken_s * kept
        if took_s < decayed_s:
            took_s = decayed_s + (took_s - decayed_s) * max(LEAST_PART, 1 - kept)
        self._set(took_s, now_s)

    def record_at_least(self, took_s: float, now_s: float) -> None:
        """Record a call without an answer that ended after this time."""
        if took_s > self.at(now_s):
            self._set(took_s, now_s)

    def _set(self, taken_s: float, now_s: float) -> None:
        self.taken_s = taken_s
        self._stamp_s = now_s

    def share(self, now_s: float) -> float:
        """The part of its calls that an address which is warming up takes."""
        if self.warm_up_s is None:
            return 1.0
        share = max(FIRST_SHARE, (now_s - self.warm_up_s) / WARM_UP_S)
        if share >= 1:
            self.warm_up_s = None
        return share

    def __repr__(self) -> str:
        return f"<LatencyEstimate {self.taken_s * 1000:.1f} ms{'' if self.warm_up_s is None else ', warming up'}>"


class BalancedHost(Protocol):
    """`weight`: its share of calls, relative to others of its `priority`; the lowest is used."""

    @property
    def load(self) -> int: ...

    @property
    def back_off(self) -> BackOff: ...

    @property
    def latency(self) -> LatencyEstimate: ...

    @property
    def weight(self) -> float: ...

    @property
    def priority(self) -> int: ...


Host = TypeVar("Host", bound=BalancedHost)


class LoadBalancer(Generic[Host]):
    """If all are in back-off, the one whose back-off ends first. Call `update` after changes."""

    __slots__ = ("_random", "_shares", "_tiers", "_turn", "hosts")

    def __init__(self, hosts: Sequence[Host], random: Random | None = None) -> None:
        """`hosts` may change between picks; it is never empty."""
        self.hosts = hosts
        self._random = (random or Random()).random
        self._turn = -1
        self.update()

    def update(self) -> None:
        """Take over the hosts, their weights and their priorities."""
        hosts = self.hosts
        # The weight of each host, as a multiple of the mean of its priority.
        self._shares = [1.0] * len(hosts)
        # By priority, the lowest number first: the indexes of its hosts in the order of turns.
        self._tiers: list[list[int]] = []
        for priority in sorted({host.priority for host in hosts}):
            tier = [index for index, host in enumerate(hosts) if host.priority == priority]
            mean = sum(hosts[index].weight for index in tier) / len(tier)
            for index in tier:
                self._shares[index] = max(_LEAST_SHARE, hosts[index].weight / mean)
            self._tiers.append(_turns({index: self._shares[index] for index in tier}))

    def pick(self, now_s: float, avoid: int = 0, unproven: int = 0) -> Host:
        """`avoid`: a bit mask of indexes to leave out; ignored if it covers all hosts.

        `unproven`: those to use only if there is no other. Hosts of a higher priority number are
        used only if there is no other either.
        """
        turns = self._tiers[0] if not (avoid or unproven) else self._left(avoid, unproven)
        count = len(turns)
        self._turn = turn = (self._turn + 1) % count
        best = turns[turn]
        if count > 1:
            second = 1 + int(self._random() * (count - 1))
            candidates = [best, turns[(turn + second) % count]]
            if count > 2:
                third = 1 + int(self._random() * (count - 2))
                candidates.append(turns[(turn + third + (third >= second)) % count])
            best = self._cheapest(candidates, now_s)
        host = self.hosts[best]
        return host if host.back_off.until_s <= now_s else self._least_backed_off(turns, now_s)

    def record(self, host: Host, took_s: float, now_s: float, *, failed: bool) -> None:
        """Learn from the end of a call to `host`. `failed`: it refused, or gave no answer."""
        if failed:  # which is no sign of speed
            # By answers, not by estimates: addresses that fail in turn must not outbid each other.
            slowest_s = max(other.latency.answered_s * (1 + other.load) for other in self.hosts)
            error_s = min(MAX_ERROR_S, max(MIN_ERROR_S, ERROR_FACTOR * slowest_s))
            host.latency.record_at_least(max(took_s, error_s), now_s)
        else:
            host.latency.record(took_s, now_s)

    def _left(self, avoid: int, unproven: int) -> list[int]:
        for left_out in (avoid | unproven, avoid, unproven):
            for tier in self._tiers:
                turns = [index for index in tier if not left_out >> index & 1]
                if turns:
                    return turns
        return self._tiers[0]

    def _cheapest(self, candidates: list[int], now_s: float) -> int:
        """The first, unless another is clearly cheaper. One that warms up only now and then."""
        assumed_s = self._assumed_s(candidates)
        best, best_cost = candidates[0], self._cost(candidates[0], now_s, assumed_s)
        for index in candidates[1:]:
            cost = self._cost(index, now_s, assumed_s)
            if cost < CLEARLY_CHEAPER * best_cost:
                best, best_cost = index, cost
        latency = self.hosts[best].latency
        if latency.warm_up_s is not None and self._random() >= latency.share(now_s):
            others = [index for index in candidates if index != best]
            if others and self._cost(other := self._cheapest(others, now_s), now_s, assumed_s) < inf:
                return other
        return best

    def _assumed_s(self, candidates: list[int]) -> float:
        """The latency of a host that has not answered yet: that of the fastest candidate.

        If none has, any value makes the load decide.
        """
        known = [taken_s for index in candidates if (taken_s := self.hosts[index].latency.taken_s)]
        return min(known) if known else 1.0

    def _cost(self, index: int, now_s: float, assumed_s: float) -> float:
        """While a host is idle its estimate decays, so that one call at a time tries it again."""
        host = self.hosts[index]
        if host.back_off.until_s > now_s:
            return inf
        load, latency = host.load, host.latency
        if load:
            return (latency.taken_s or assumed_s) * (1 + load / self._shares[index])
        return latency.at(now_s) or assumed_s

    def _least_backed_off(self, turns: list[int], now_s: float) -> Host:
        usable = [index for index in turns if self.hosts[index].back_off.until_s <= now_s]
        if usable:
            assumed_s = self._assumed_s(usable)
            return self.hosts[min(usable, key=lambda index: self._cost(index, now_s, assumed_s))]
        return min((self.hosts[index] for index in turns), key=lambda host: host.back_off.until_s)


def _turns(shares: dict[int, float]) -> list[int]:
    """Each index as often as its share, evenly spread: nginx's smooth weighted round robin.

    At least once: of a weight that is very small, RFC 2782 wants a very small chance.
    """
    if len(set(shares.values())) == 1:
        return list(shares)
    turns = []
    credit = dict.fromkeys(shares, 0.0)
    for _ in range(len(shares) * _TURNS_PER_HOST):
        for index, share in shares.items():
            credit[index] += share
        turn = max(credit, key=credit.__getitem__)
        credit[turn] -= len(shares)
        turns.append(turn)
    return turns + [index for index in shares if index not in turns]
