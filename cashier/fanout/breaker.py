"""Breaker: leaves an address alone that fails or is slow too often, and tries it again with one call at a time. Pure: time is told.

Hystrix's window, with what its users missed: slow calls count as failures, also while they are still under way, and a trial call has a
lease, so that one that never ends cannot keep the breaker open for ever.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Annotated

from msgspec import Meta, Struct

_SECOND_NS = 1_000_000_000
_BUCKETS = 10
# Opened again after so long closed, it begins with the short pause again.
_FORGIVEN_NS = 30 * _SECOND_NS
_GROWTH = 1.5
_GROWS = 100  # so often at most: beyond any pause, and a power that a float still holds however long an address is dead
_JITTER = 0.1
_STOPPED_BPS = 9_000


class BreakerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`breaker`. It opens when of at least `calls` in ten seconds `failed_bps` failed or were slow, or nine in ten of so many within the
    last two: first for `open_s`, then 1.5 times as long, at most `open_max_s`."""

    calls: Annotated[int, Meta(ge=1)] = 20
    failed_bps: Annotated[int, Meta(ge=1, le=10_000)] = 5_000
    open_s: Annotated[float, Meta(gt=0)] = 2.0
    open_max_s: Annotated[float, Meta(gt=0)] = 30.0


class Breaker:
    """`closed`, the usual state, may be read instead of asking `admits`. `good` is counted up by whoever hears of a call that was."""

    __slots__ = (
        "_bads", "_closed_ns", "_goods", "_lease_ns", "_openings", "_random", "_second", "_since_ns", "_trial_ns", "_until_ns", "bad",
        "closed", "good", "settings",
    )  # fmt: skip

    def __init__(self, settings: BreakerSettings | None, random: Random) -> None:
        """None: it never opens."""
        self.settings = settings
        self._random = random
        self._openings = 0
        self._closed_ns = 0
        self._until_ns = 0
        self._lease_ns = 0
        self._trial_ns = 0
        self._since_ns = 0  # calls that began before are of the time when it was open
        self.closed = True
        self._forget()

    def _forget(self) -> None:
        self._goods: deque[int] = deque([0] * (_BUCKETS - 1), _BUCKETS - 1)
        self._bads: deque[int] = deque([0] * (_BUCKETS - 1), _BUCKETS - 1)
        self._second = 0
        self.good = 0
        self.bad = 0

    def reconfigure(self, settings: BreakerSettings | None) -> None:
        """Other numbers from now on. Turned off, it is closed."""
        self.settings = settings
        if settings is None and not self.closed:
            self.closed = True
            self._forget()

    def roll(self, now_ns: int) -> None:
        """Begin a new second where one has begun. To be called at least once a second while calls end."""
        second = now_ns // _SECOND_NS
        for _ in range(min(second - self._second, _BUCKETS)):
            self._goods.append(self.good)
            self._bads.append(self.bad)
            self.good = self.bad = 0
        self._second = second

    def admits(self, now_ns: int, lease_ns: int) -> bool:
        """Whether a call may be made now. While it is open, one trial call after the pause; another when `lease_ns` brought no outcome."""
        if self.closed:
            return True
        if now_ns < self._until_ns or now_ns < self._lease_ns:
            return False
        self._lease_ns = now_ns + lease_ns
        self._trial_ns = now_ns
        return True

    @property
    def trial_due_ns(self) -> int:
        """When, while it is open, the next trial call may be made."""
        return max(self._until_ns, self._lease_ns)

    def worked(self, began_ns: int, now_ns: int) -> bool:
        """A call that began then was answered well. To be called while it is open; else count `good` up. Whether that has closed it."""
        if self.closed or not self._is_trial(began_ns):
            return False
        self.closed = True
        self._closed_ns = now_ns
        self._since_ns = self._trial_ns
        self._forget()
        self.roll(now_ns)
        return True

    def failed(self, began_ns: int, now_ns: int) -> None:
        """A call that began then failed, or was slow, or is slow while still under way."""
        if self.settings is None:
            return
        if not self.closed:
            if self._is_trial(began_ns):
                self._open(now_ns, self.settings)
            return
        if began_ns < self._since_ns:
            return
        self.roll(now_ns)
        self.bad += 1
        if self._too_many(self.settings):
            if now_ns - self._closed_ns > _FORGIVEN_NS:
                self._openings = 0
            self._open(now_ns, self.settings)

    def _too_many(self, settings: BreakerSettings) -> bool:
        """In ten seconds, or nearly all of this second and the one before: what has stopped altogether need not outweigh its good past."""
        good, bad = self.good + self._goods[-1], self.bad + self._bads[-1]
        if good + bad >= settings.calls and bad * 10_000 >= (good + bad) * _STOPPED_BPS:
            return True
        good, bad = self.good + sum(self._goods), self.bad + sum(self._bads)
        return good + bad >= settings.calls and bad * 10_000 >= (good + bad) * settings.failed_bps

    def _is_trial(self, began_ns: int) -> bool:
        """Calls from before it opened say nothing new."""
        return self._trial_ns > 0 and began_ns >= self._trial_ns

    def _open(self, now_ns: int, settings: BreakerSettings) -> None:
        pause_s = (
            settings.open_s * _GROWTH ** min(self._openings, _GROWS) * (1 + self._random.uniform(-_JITTER, _JITTER))
        )
        pause_s = min(settings.open_max_s, pause_s)
        self._openings += 1
        self._until_ns = now_ns + round(pause_s * _SECOND_NS)
        self._lease_ns = self._trial_ns = 0
        self.closed = False

    def __repr__(self) -> str:
        count = f"{self.bad + sum(self._bads)} bad, {self.good + sum(self._goods)} good"
        return f"<Breaker {'closed' if self.closed else f'open, opened {self._openings} times'}: {count}>"
