"""An event loop in virtual time: `looptime`, made cheap for thousands of simulations.

No sockets, no threads, no signals: a wait for those raises RuntimeError.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple, Unpack

Arguments = TypeVarTuple("Arguments")


class _Clock(selectors.SelectSelector):
    """A selector that returns at once and advances the clock by the timeout."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("a task waits, and no event is scheduled")
        self.now_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`coarse`: timers count whole milliseconds and may fire early, as in libuv."""

    def __init__(self, began_s: float, *, coarse: bool) -> None:
        self._clock = _Clock()
        self._clock.now_s = began_s
        self._coarse = coarse
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        now_s = self._clock.now_s
        due_s = now_s + delay
        if self._coarse:
            due_s = max(now_s, (math.floor(now_s * 1000) + round(delay * 1000)) / 1000)
        return self.call_at(due_s, callback, *args, context=context)

    def timers(self) -> list[asyncio.TimerHandle]:
        """The timers that are set."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined] # no public access
        return [timer for timer in scheduled if not timer.cancelled()]
