"""The circuit breaker of one address: opens on too many failures or slow calls, recovers by probes.

Pure: the caller passes the time.

Hystrix's window with three additions: slow calls count as failures, even while still in progress; a
probe has a lease, so that one that never ends cannot keep the breaker open for ever; failures of
one key count once in ten seconds, and other keys probe before it, so that one bad record does not
shut out all others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from enum import StrEnum
from random import Random
from typing import Annotated

from msgspec import Meta, Struct

from cashier.fanout.failing_keys import WINDOW_S, FailingKeys

_SECOND_NS = 1_000_000_000
_BUCKETS = WINDOW_S
# After this long closed, the next opening starts with the short pause again.
_FORGIVEN_NS = 30 * _SECOND_NS
_GROWTH = 1.5
# Bounds the exponent: beyond any pause, and the power still fits into a float.
_MAX_GROWTHS = 100
_JITTER = 0.1
_STOPPED_BPS = 9_000
# So few failing keys are bad records rather than a sick source: another key may probe at once.
_FEW_KEYS = 8
# How much later than any other the key of a failed probe may probe again.
_FAILED_PROBE_NS = _SECOND_NS


class BreakerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`breaker`: when to open, and for how long.

    It opens if of at least `calls` calls in ten seconds `failed_bps` failed or were slow, or nine
    in ten within the last two seconds. It stays open for `open_s`, then 1.5 times longer each time,
    at most `open_max_s`. Further failures of a key count only if nothing succeeded in that time.
    """

    calls: Annotated[int, Meta(ge=1)] = 20
    failed_bps: Annotated[int, Meta(ge=1, le=10_000)] = 5_000
    open_s: Annotated[float, Meta(gt=0, le=3600)] = 2.0
    open_max_s: Annotated[float, Meta(gt=0, le=3600)] = 5.0


class BreakerState(StrEnum):
    """The best first. OPEN: no call passes. HALF_OPEN: one call at a time may, as a probe."""

    CLOSED = "CLOSED"
    HALF_OPEN = "HALF_OPEN"
    OPEN = "OPEN"

    @property
    def badness(self) -> int:
        """The value of the metric: the worse, the higher."""
        return tuple(BreakerState).index(self)


class Breaker:
    """Hot-path callers read `closed` before `admits`, and increment `successes` while closed."""

    __slots__ = (
        "_bad_keys", "_closed_ns", "_failed_probe", "_failing_keys", "_failures_by_second", "_lease_ns",
        "_open_until_ns", "_openings", "_other_keys_probe", "_probe_ns", "_random", "_repeats", "_repeats_by_second",
        "_second", "_since_ns", "_successes_by_second", "closed", "failures", "opened_ns", "settings", "successes",
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
        # `_bad_keys`: the few that opened it, and of failed probes. `_other_keys_probe`: only those
        # have failed, so any other may probe at once.
        self._bad_keys: set[Hashable] = set()
        self._failed_probe: Hashable = None  # the key of the last one
        self._other_keys_probe = False
        self.closed = True
        self.opened_ns = 0  # when it opened for the last time after having been closed
        self._forget()

    def _forget(self) -> None:
        self._successes_by_second: deque[int] = deque([0] * (_BUCKETS - 1), _BUCKETS - 1)
        self._failures_by_second: deque[int] = deque([0] * (_BUCKETS - 1), _BUCKETS - 1)
        self._failing_keys = FailingKeys()
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

    def admits(self, now_ns: int, lease_ns: int, key: Hashable = None) -> bool:
        """Whether a call may start now. `key` as in `record_failure`.

        While open: one probe after the pause, another if the probe has no outcome within
        `lease_ns`. A probe of another key than those that failed proves more.
        """
        if self.closed:
            return True
        if now_ns < self._lease_ns:
            return False
        if now_ns < self._open_until_ns:
            if key is None or key in self._bad_keys or not self._other_keys_probe:
                return False
        elif key is not None and key == self._failed_probe and now_ns < self._open_until_ns + _FAILED_PROBE_NS:
            return False
        self._lease_ns = now_ns + lease_ns
        self._probe_ns = now_ns
        return True

    def state(self, now_ns: int) -> BreakerState:
        """HALF_OPEN: the pause is over, so the next call is a probe, or one is under way."""
        if self.closed:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if now_ns >= self._open_until_ns else BreakerState.OPEN

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
                self._distrust(key)
                # Before the end of the pause it shows that one more key fails, and no outage.
                if self._probe_ns < self._open_until_ns:
                    self._lease_ns = self._probe_ns = 0
                else:
                    self._open(now_ns, self.settings)
            return
        if started_ns < self._since_ns:
            return
        self.roll(now_ns)
        if self._failing_keys.counts(key, now_ns):
            self.failures += 1
        else:
            self._repeats += 1
        if self._too_many(self.settings):
            if now_ns - self._closed_ns > _FORGIVEN_NS:
                self._openings = 0
            self._note_failing_keys(now_ns)
            self.opened_ns = now_ns
            self._open(now_ns, self.settings)

    def _too_many(self, settings: BreakerSettings) -> bool:
        """Too many in ten seconds, or nearly all calls of this second and the last.

        The second rule finds an outage before it outweighs ten good seconds.
        """
        good, bad = self.successes + self._successes_by_second[-1], self.failures + self._failures_by_second[-1]
        if not good:
            bad += self._repeats + self._repeats_by_second[-1]
        if good + bad >= settings.calls and bad * 10_000 >= (good + bad) * _STOPPED_BPS:
            return True
        good, bad = self.successes + sum(self._successes_by_second), self.failures + sum(self._failures_by_second)
        if not good:
            bad += self._repeats + sum(self._repeats_by_second)
        return good + bad >= settings.calls and bad * 10_000 >= (good + bad) * settings.failed_bps

    def _is_probe(self, started_ns: int) -> bool:
        """False for calls from before it opened: their outcomes are no news."""
        return self._probe_ns > 0 and started_ns >= self._probe_ns

    def _note_failing_keys(self, now_ns: int) -> None:
        keys = self._failing_keys.of(now_ns)
        # As many as failures: none of these had no key.
        few = len(keys) == self.failures + sum(self._failures_by_second) <= _FEW_KEYS
        self._bad_keys, self._other_keys_probe = set(keys) if few else set(), few
        self._failed_probe = None

    def _distrust(self, key: Hashable) -> None:
        """A probe of this key failed."""
        self._failed_probe = key
        if key is not None and len(self._bad_keys) < _FEW_KEYS:
            self._bad_keys.add(key)
        else:
            self._other_keys_probe = False

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
