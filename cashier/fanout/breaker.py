"""The circuit breaker of one address: opens on too many failures or slow calls, recovers by probes.

Pure: the caller passes the time.

Hystrix's window with three additions: slow calls count as failures, even while still in progress; a
probe has a lease, so that one that never ends cannot keep the breaker open for ever; failures of
one key count once in ten seconds, so that one bad record does not shut out all others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from random import Random
from typing import Annotated

from msgspec import Meta, Struct

_SECOND_NS = 1_000_000_000
_BUCKETS = 10
# After this long closed, the next opening starts with the short pause again.
_FORGIVEN_NS = 30 * _SECOND_NS
_GROWTH = 1.5
# Bounds the exponent: beyond any pause, and the power still fits into a float.
_MAX_GROWTHS = 100
_JITTER = 0.1
_STOPPED_BPS = 9_000
# Beyond this number of failing keys in ten seconds, every failure counts.
_MAX_KEYS = 1024


class BreakerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`breaker`: when to open, and for how long.

    It opens if of at least `calls` calls in ten seconds `failed_bps` failed or were slow, or nine
    in ten within the last two seconds. It stays open for `open_s`, then 1.5 times longer each time,
    at most `open_max_s`. Further failures of a key count only if nothing succeeded in ten seconds.
    """

    calls: Annotated[int, Meta(ge=1)] = 20
    failed_bps: Annotated[int, Meta(ge=1, le=10_000)] = 5_000
    open_s: Annotated[float, Meta(gt=0)] = 2.0
    open_max_s: Annotated[float, Meta(gt=0)] = 30.0


class Breaker:
    """Hot-path callers read `closed` before `admits`, and increment `successes` while closed."""

    __slots__ = (
        "_closed_ns", "_failed_at", "_failures_by_second", "_lease_ns", "_open_until_ns", "_openings", "_probe_ns",
        "_random", "_repeats", "_repeats_by_second", "_second", "_since_ns", "_successes_by_second", "closed",
        "failures", "settings", "successes",
    )  # fmt: skip

    def __init__(self, settings: BreakerSettings | None, random: Random) -> None:
        """None: it never opens."""
        self.settings = settings
        self._random = random
        self._openings = 0
        self._closed_ns = 0
        self._open_until_ns = 0
        self._lease_ns = 0
        self._probe_ns = 0
        self._since_ns = 0  # calls that started earlier belong to the open period
        self.closed = True
        self._forget()

    def _forget(self) -> None:
        self._successes_by_second: deque[int] = deque([0] * (_BUCKETS - 1), _BUCKETS - 1)
        self._failures_by_second: deque[int] = deque([0] * (_BUCKETS - 1), _BUCKETS - 1)
        self._failed_at: dict[Hashable, int] = {}  # by key, the second of its counted failure
        self._repeats_by_second: deque[int] = deque([0] * (_BUCKETS - 1), _BUCKETS - 1)
        self._repeats = 0  # failures of those keys beyond the first
        self._second = 0
        self.successes = 0
        self.failures = 0

    def reconfigure(self, settings: BreakerSettings | None) -> None:
        """Apply other settings. Turned off, it closes."""
        self.settings = settings
        if settings is None and not self.closed:
            self.closed = True
            self._forget()

    def roll(self, now_ns: int) -> None:
        """Start a new second if one has begun. Call it at least once a second while calls end."""
        second = now_ns // _SECOND_NS
        for _ in range(min(second - self._second, _BUCKETS)):
            self._successes_by_second.append(self.successes)
            self._failures_by_second.append(self.failures)
            self._repeats_by_second.append(self._repeats)
            self.successes = self.failures = self._repeats = 0
        self._second = second
        failed_at = self._failed_at
        while failed_at and next(iter(failed_at.values())) <= second - _BUCKETS:
            del failed_at[next(iter(failed_at))]

    def admits(self, now_ns: int, lease_ns: int) -> bool:
        """Whether a call may start now.

        While open: one probe after the pause, another if the probe has no outcome within
        `lease_ns`.
        """
        if self.closed:
            return True
        if now_ns < self._open_until_ns or now_ns < self._lease_ns:
            return False
        self._lease_ns = now_ns + lease_ns
        self._probe_ns = now_ns
        return True

    def probe_soon(self, now_ns: int) -> None:
        """End the pause: something that may share the trouble answers again.

        A probe that fails opens it for the next, longer pause.
        """
        self._open_until_ns = min(self._open_until_ns, now_ns)

    @property
    def probe_due_ns(self) -> int:
        """When the next probe may start, while open."""
        return max(self._open_until_ns, self._lease_ns)

    def record_success(self, started_ns: int, now_ns: int) -> bool:
        """Record a success while open; increment `successes` otherwise.

        Returns whether this closed the breaker.
        """
        if self.closed or not self._is_probe(started_ns):
            return False
        self.closed = True
        self._closed_ns = now_ns
        self._since_ns = self._probe_ns
        self._forget()
        self.roll(now_ns)
        return True

    def record_failure(self, started_ns: int, now_ns: int, key: Hashable = None) -> None:
        """Record a call that failed, was slow, or is slow while still in progress.

        `key`: what the failure may be specific to; None: nothing, every failure counts.
        """
        if self.settings is None:
            return
        if not self.closed:
            if self._is_probe(started_ns):
                self._open(now_ns, self.settings)
            return
        if started_ns < self._since_ns:
            return
        self.roll(now_ns)
        if self._counts(key):
            self.failures += 1
        if self._too_many(self.settings):
            if now_ns - self._closed_ns > _FORGIVEN_NS:
                self._openings = 0
            self._open(now_ns, self.settings)

    def _counts(self, key: Hashable) -> bool:
        if key is None:
            return True
        if key in self._failed_at:
            self._repeats += 1
            return False
        if len(self._failed_at) < _MAX_KEYS:
            self._failed_at[key] = self._second
        return True

    def _too_many(self, settings: BreakerSettings) -> bool:
        """Too many in ten seconds, or nearly all calls of this second and the last.

        The second rule finds an outage before it outweighs ten good seconds.
        """
        good, bad = self.successes + self._successes_by_second[-1], self.failures + self._failures_by_second[-1]
        if good + bad >= settings.calls and bad * 10_000 >= (good + bad) * _STOPPED_BPS:
            return True
        good, bad = self.successes + sum(self._successes_by_second), self.failures + sum(self._failures_by_second)
        if not good:
            bad += self._repeats + sum(self._repeats_by_second)
        return good + bad >= settings.calls and bad * 10_000 >= (good + bad) * settings.failed_bps

    def _is_probe(self, started_ns: int) -> bool:
        """False for calls from before it opened: their outcomes are no news."""
        return self._probe_ns > 0 and started_ns >= self._probe_ns

    def _open(self, now_ns: int, settings: BreakerSettings) -> None:
        growth = _GROWTH ** min(self._openings, _MAX_GROWTHS)
        pause_s = min(settings.open_max_s, settings.open_s * growth * (1 + self._random.uniform(-_JITTER, _JITTER)))
        self._openings += 1
        self._open_until_ns = now_ns + round(pause_s * _SECOND_NS)
        self._lease_ns = self._probe_ns = 0
        self.closed = False

    def __repr__(self) -> str:
        good, bad = self.successes + sum(self._successes_by_second), self.failures + sum(self._failures_by_second)
        state = "closed" if self.closed else f"open, opened {self._openings} times"
        return f"<Breaker {state}: {bad} bad, {good} good>"
