"""A bound on what one caller does within a time, per worker."""

from __future__ import annotations

from collections.abc import Callable

_MOST_CALLERS = 10_000


class RateLimit:
    """At most `most` in `window_s`, from the first on. `now_s`: a monotonic clock."""

    def __init__(self, most: int, window_s: float, now_s: Callable[[], float]) -> None:
        self._most = most
        self._window_s = window_s
        self._now_s = now_s
        self._counts: dict[str, tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"<RateLimit callers={len(self._counts)}>"

    def admits(self, caller: str) -> bool:
        """Whether this one is within the bound. Counts it."""
        now_s = self._now_s()
        since_s, count = self._counts.pop(caller, (now_s, 0))
        if now_s - since_s >= self._window_s:
            since_s, count = now_s, 0
        if len(self._counts) >= _MOST_CALLERS:
            del self._counts[next(iter(self._counts))]
        self._counts[caller] = (since_s, count + 1)
        return count < self._most
