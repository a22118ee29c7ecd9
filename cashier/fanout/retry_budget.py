"""The budget of extra calls (hedges and retries) to a source. Pure: the caller passes the time.

A share of the first calls of the last ten seconds, but at least one extra call a second, or
`least_per_s`, so that a quiet source gets help too (Finagle's RetryBudget, with a smaller share).
An empty budget forbids extra calls only; it never fails a first call.

The budget counts whole seconds: first calls only if certainly within ten seconds, extra calls if
possibly within. No window of ten seconds ever exceeds the share.
"""

from __future__ import annotations

from collections import deque

# Extra calls a second that a quiet source gets, of each worker.
LEAST_PER_S = 1
_MEMORY_S = 10
_SECOND_NS = 1_000_000_000


class RetryBudget:
    """The caller increments `first_calls` directly."""

    __slots__ = ("_extra_by_second", "_first_by_second", "_least", "_second", "extra_calls", "first_calls", "share_bps")

    def __init__(self, share_bps: int, least_per_s: int = LEAST_PER_S) -> None:
        self.share_bps = share_bps
        self._least = least_per_s * _MEMORY_S
        self._first_by_second: deque[int] = deque([0] * (_MEMORY_S - 1), _MEMORY_S - 1)
        self._extra_by_second: deque[int] = deque([0] * _MEMORY_S, _MEMORY_S)
        self._second = 0
        self.first_calls = 0
        self.extra_calls = 0

    def roll(self, now_ns: int) -> None:
        """Start a new second if one has begun. Call it at least once a second during traffic."""
        second = now_ns // _SECOND_NS
        for _ in range(min(second - self._second, _MEMORY_S + 1)):
            self._first_by_second.append(self.first_calls)
            self._extra_by_second.append(self.extra_calls)
            self.first_calls = self.extra_calls = 0
        self._second = second

    def left_ratio(self, now_ns: int) -> float:
        """The unused part of the budget, from 0 to 1."""
        self.roll(now_ns)
        return max(0.0, 1 - self.used / self.allowed)

    def take(self, now_ns: int) -> bool:
        """Take one extra call from the budget. False if none is left."""
        self.roll(now_ns)
        if self.used + 1 > self.allowed:
            return False
        self.extra_calls += 1
        return True

    @property
    def used(self) -> int:
        """Extra calls of the last ten seconds, as of the last `roll`."""
        return self.extra_calls + sum(self._extra_by_second)

    @property
    def allowed(self) -> float:
        """How many extra calls ten seconds may have at the present number of first calls."""
        return max(self._least, (self.first_calls + sum(self._first_by_second)) * self.share_bps / 10_000)

    def __repr__(self) -> str:
        return f"<RetryBudget {self.used} extra for {self.first_calls + sum(self._first_by_second)} first calls>"
