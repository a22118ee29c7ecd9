"""An event loop of selectors that never waits: when nothing is ready, its clock jumps to the next timer. One machine, many workers."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from contextvars import Context
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)


class _Impatient(selectors.SelectSelector):
    """What it is asked to wait for, it skips."""

    def __init__(self, skip: Callable[[float], None]) -> None:
        super().__init__()
        self._skip = skip

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        if not ready and timeout is not None and timeout > 0:
            self._skip(timeout)
        return ready


class SkippingLoop(asyncio.SelectorEventLoop):
    """`told`: what reached the exception handler, which nobody heard otherwise."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self.told: list[dict[str, Any]] = []
        super().__init__(_Impatient(self._pass))
        self.set_exception_handler(lambda _, context: self.told.append(context))

    def time(self) -> float:
        return self._now_s

    def time_ns(self) -> int:
        return round(self._now_s * 1e9)

    def day(self) -> datetime:
        """The time of day."""
        return START + timedelta(seconds=self._now_s)

    def turn(self, turns: int) -> None:
        """So many turns of the loop, in which time passes only where nothing else is to do."""

        async def turned() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run_until_complete(self.create_task(turned(), context=Context()))

    def spend(self, seconds: float) -> None:
        self.run_until_complete(self.create_task(asyncio.sleep(seconds), context=Context()))

    @property
    def timers(self) -> int:
        """Those that would still ring."""
        return sum(not timer.cancelled() for timer in self._scheduled)  # type: ignore[attr-defined]  # typeshed has no private parts

    def _pass(self, seconds: float) -> None:
        self._now_s += seconds
