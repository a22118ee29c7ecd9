"""An event loop in virtual time: `looptime`, made cheap for thousands of simulations.

No sockets, no threads, no signals: a wait for those raises RuntimeError. Async tests marked
`virtual_time` run on it; `run_in_virtual_time` is for the examples of a property.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")
MS_NS = 1_000_000


class _Clock(selectors.SelectSelector):
    """A selector that returns at once and advances the clock by the timeout."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("a task waits, and no event is scheduled")
        self.now_s = round(self.now_s + max(0.0, timeout), 9)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`coarse`: timers count whole milliseconds and may fire early, as in libuv.

    No task may outlive the work that it runs.
    """

    def __init__(self, *, began_s: float = 0.0, coarse: bool = False) -> None:
        self._clock = _Clock()
        self._clock.now_s = began_s
        self._coarse = coarse
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        result = super().run_until_complete(future)
        for _ in range(3):  # a cancelled task ends after a turn or two
            super().run_until_complete(asyncio.sleep(0))
        # A closing runner waits for one future of all the tasks that are left.
        left = isinstance(future, asyncio.Future) and not isinstance(future, asyncio.Task)
        assert not left, f"a task outlived its test: {future}"
        return result

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


def run_in_virtual_time(main: Coroutine[Any, Any, T], *, coarse: bool = False) -> T:
    """Run on a loop of its own."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(coarse=coarse)) as runner:
        return runner.run(main)


def clock_ns() -> int:
    return round(asyncio.get_running_loop().time() * 1e9)


def now_ms() -> float:
    return clock_ns() / MS_NS


def timers_set() -> list[asyncio.TimerHandle]:
    """Return the set timers, except those of sleeping tasks.

    A cancelled task ends after a turn or two."""
    loop: Any = asyncio.get_running_loop()
    asleep = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined] # the callback of asyncio.sleep
    return [timer for timer in loop._scheduled if not timer.cancelled() and timer._callback is not asleep]
