"""An event loop whose time jumps to whatever happens next: what `looptime` does, for simulations of which there are to be thousands.

No sockets, no threads, no signals: whoever waits for those waits for ever, and is told so.
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
    """In the place of what a loop sleeps by: it says that the time is over."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing can happen any more, and somebody still waits")
        self.now_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`coarse`: timers keep whole milliseconds from the beginning of the current one, as libuv's do, so that they fire early as well."""

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
        """Those that are set."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined] # there is no other way to see them
        return [timer for timer in scheduled if not timer.cancelled()]
