"""Bounds on how often one caller does something, in each worker."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Annotated

from msgspec import Meta, Struct

from cashier.web.caller import Owned
from cashier.web.problem import ProblemCode, RequestRefused

_MOST_CALLERS = 10_000

PerSecond = Annotated[float, Meta(ge=0, le=1_000_000)]


class RateLimit:
    """At most `most` at once, and as many in `window_s` from then on. `now_s`: a monotonic clock.

    Each one takes up `window_s / most` seconds; a caller may be ahead of time by the whole window
    (the generic cell rate algorithm).
    """

    def __init__(self, most: float, window_s: float, now_s: Callable[[], float]) -> None:
        self._each_s = window_s / most
        self._ahead_s = window_s
        self._now_s = now_s
        # When all that a caller has done is paid off, the one that was here longest ago first.
        self._free_at_s: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<RateLimit callers={len(self._free_at_s)}>"

    def admits(self, caller: str) -> bool:
        """Whether this one is within the bound. Counts it if so."""
        if self.wait_s(caller):
            return False
        self.count(caller)
        return True

    def wait_s(self, caller: str) -> float:
        """0 if one more is within the bound; else the time after which it is."""
        now_s = self._now_s()
        early_s = self._free_at_s.get(caller, now_s) + self._each_s - now_s - self._ahead_s
        # Sums of binary fractions: a caller that comes in time must not be early by a rounding.
        return min(early_s, self._each_s) if early_s > 1e-6 else 0

    def count(self, caller: str) -> None:
        now_s = self._now_s()
        free_at_s = max(self._free_at_s.pop(caller, now_s), now_s)
        if len(self._free_at_s) >= _MOST_CALLERS:
            del self._free_at_s[next(iter(self._free_at_s))]
        self._free_at_s[caller] = free_at_s + self._each_s


class LimitSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[limits]`, in each worker: consultations and submits of one user and of one merchant.

    Per second; 0: no limit. `burst_s`: the requests of this many seconds may come at once.
    """

    user_rate: PerSecond = 0
    merchant_rate: PerSecond = 0
    burst_s: Annotated[float, Meta(ge=1, le=3600)] = 10

    @property
    def on(self) -> bool:
        return bool(self.user_rate or self.merchant_rate)


def limit_faults(settings: LimitSettings) -> Iterator[str]:
    for key in ("user_rate", "merchant_rate"):
        per_s = getattr(settings, key)
        if per_s and per_s * settings.burst_s < 1:
            yield (
                f"[limits] {key} = {per_s:g} permits not even one in burst_s = {settings.burst_s:g}:"
                f" burst_s must be at least {math.ceil(1 / per_s)}"
            )


class CallerLimits:
    """The limits of `[limits]`."""

    def __init__(self, settings: LimitSettings, now_s: Callable[[], float] = monotonic) -> None:
        self._users = _limit(settings.user_rate, settings.burst_s, now_s)
        self._merchants = _limit(settings.merchant_rate, settings.burst_s, now_s)

    def __repr__(self) -> str:
        return f"<CallerLimits users={self._users!r} merchants={self._merchants!r}>"

    def admit(self, owned: Owned) -> None:
        """Count a request, unless it is refused. Raises `RequestRefused`: RATE_LIMITED."""
        users, merchants = self._users, self._merchants
        if users is not None and owned.user_id is not None:
            _require(users.wait_s(owned.user_id), "user")
        if merchants is not None:
            _require(merchants.wait_s(owned.merchant_id), "merchant")
            merchants.count(owned.merchant_id)
        if users is not None and owned.user_id is not None:
            users.count(owned.user_id)


def _limit(per_s: float, burst_s: float, now_s: Callable[[], float]) -> RateLimit | None:
    return RateLimit(per_s * burst_s, burst_s, now_s) if per_s else None


def _require(wait_s: float, of: str) -> None:
    if wait_s:
        raise RequestRefused(
            ProblemCode.RATE_LIMITED,
            f"This {of} has sent too many requests. The request was not processed.",
            headers=((b"retry-after", str(math.ceil(wait_s)).encode()),),
        )
