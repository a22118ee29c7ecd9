"""Budget: how many extra calls, hedges and retries together, a source may be sent. Pure: time is told, nothing is asked.

A share of the first calls of the last ten seconds, but one a second in any case, so that a quiet source may be helped at all (Finagle's
RetryBudget, with a smaller share). An empty budget fails nobody: it only forbids the extra.

Whole seconds are remembered. Of the first calls those that are surely within ten seconds count, of the extra ones all that may be, so that
no ten seconds ever see more than they should.
"""

from __future__ import annotations

from collections import deque

_MEMORY_S = 10
_LEAST = 10
_SECOND_NS = 1_000_000_000


class RetryBudget:
    """`first` is counted up by whoever makes first calls."""

    __slots__ = ("_extras", "_firsts", "_second", "extra", "first", "share_bps")

    def __init__(self, share_bps: int) -> None:
        self.share_bps = share_bps
        self._firsts: deque[int] = deque([0] * (_MEMORY_S - 1), _MEMORY_S - 1)
        self._extras: deque[int] = deque([0] * _MEMORY_S, _MEMORY_S)
        self._second = 0
        self.first = 0
        self.extra = 0

    def roll(self, now_ns: int) -> None:
        """Begin a new second where one has begun. To be called at least once a second while calls are made."""
        second = now_ns // _SECOND_NS
        for _ in range(min(second - self._second, _MEMORY_S + 1)):
            self._firsts.append(self.first)
            self._extras.append(self.extra)
            self.first = self.extra = 0
        self._second = second

    def take(self, now_ns: int) -> bool:
        """Whether one more extra call may be made; if so it is counted."""
        self.roll(now_ns)
        allowed = max(_LEAST, (self.first + sum(self._firsts)) * self.share_bps / 10_000)
        if self.extra + sum(self._extras) + 1 > allowed:
            return False
        self.extra += 1
        return True

    def __repr__(self) -> str:
        return f"<Budget {self.extra + sum(self._extras)} extra for {self.first + sum(self._firsts)} first calls>"
