"""A selector event loop that never waits: its clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from contextvars import Context
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)


class _SkippingSelector(selectors.SelectSelector):
    """Skips each wait."""

    def __init__(self, skip: Callable[[float], None]) -> None:
        super().__init__()
        self._skip = skip

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("deadlock: every task waits and no timer is set")
        if not ready and timeout is not None and timeout > 0:
            self._skip(timeout)
        return ready


class SkippingLoop(asyncio.SelectorEventLoop):
    """`errors`: the contexts that the exception handler received."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self.errors: list[dict[str, Any]] = []
        super().__init__(_SkippingSelector(self._skip))
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self._now_s

    def time_ns(self) -> int:
        return round(self._now_s * 1e9)

    def utc_now(self) -> datetime:
        return START + timedelta(seconds=self._now_s)

    def turn(self, turns: int) -> None:
        """Run this number of loop turns. Time passes only if nothing else is ready."""

        async def take_turns() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run_until_complete(self.create_task(take_turns(), context=Context()))

    def advance(self, seconds: float) -> None:
        self.run_until_complete(self.create_task(asyncio.sleep(seconds), context=Context()))

    @property
    def pending_timers(self) -> int:
        timers = self._scheduled  # type: ignore[attr-defined]  # private in typeshed
        return sum(not timer.cancelled() for timer in timers)

    def _skip(self, seconds: float) -> None:
        self._now_s += seconds
