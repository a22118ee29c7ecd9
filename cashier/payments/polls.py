"""Polls: many wait for news of a payment, and one look is taken for all of them. Payment-blind: a key, a time, and what to look with.

There is one timer for a key, however many wait; it rings when the most impatient of them wants to know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

News = TypeVar("News")


class _Next(Generic[News]):
    """The next look under one key. `looking`: it has begun, so that nobody can leave it undone any more."""

    __slots__ = ("due_s", "future", "looking", "timer", "waiting")

    def __init__(self, future: asyncio.Future[News | None]) -> None:
        self.future = future
        self.due_s = float("inf")
        self.timer: asyncio.TimerHandle | None = None
        self.looking: asyncio.Task[None] | None = None
        self.waiting = 0


class Polls(Generic[News]):
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._next: dict[str, _Next[News]] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self.waiting = 0
        self.stopped = False

    def __repr__(self) -> str:
        return f"<Polls keys={len(self._next)} waiting={self.waiting} stopped={self.stopped}>"

    async def next(self, key: str, after_ms: float, look: Callable[[], Awaitable[News]]) -> News | None:
        """News of a look that begins in `after_ms`, or sooner where somebody else is less patient. None once nobody shall wait any more.

        Raises what the look raises, to all who wait for it. Who is cancelled goes away alone, and the last one takes the timer along.
        """
        if self.stopped:
            return None
        loop = asyncio.get_running_loop()
        found = self._next.get(key)
        if found is None:
            found = self._next[key] = _Next(loop.create_future())
        due_s = loop.time() + after_ms / 1000
        if due_s < found.due_s:
            found.due_s = due_s
            if found.timer is not None:
                found.timer.cancel()
            found.timer = loop.call_at(due_s, self._begin, key, found, look)
        found.waiting += 1
        self.waiting += 1
        try:
            return await asyncio.shield(found.future)
        finally:
            found.waiting -= 1
            self.waiting -= 1
            if not found.waiting and found.looking is None:
                self._forget(key, found)

    def stop(self) -> None:
        """Whoever waits hears None, now and from now on."""
        self.stopped = True
        for found in self._next.values():
            if found.timer is not None:
                found.timer.cancel()
            if not found.future.done():
                found.future.set_result(None)
        self._next.clear()

    async def ended(self) -> None:
        """When no look is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _begin(self, key: str, found: _Next[News], look: Callable[[], Awaitable[News]]) -> None:
        # From here on whoever comes waits for the next look: this one may be older than what they know.
        del self._next[key]
        found.looking = asyncio.get_running_loop().create_task(_look(found, look))
        self._under_way.add(found.looking)
        found.looking.add_done_callback(lambda task: self._looked(found, task))

    def _looked(self, found: _Next[News], task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not found.future.done():  # cancelled by a stop, perhaps before it could begin
            found.future.cancel()

    def _forget(self, key: str, found: _Next[News]) -> None:
        if found.timer is not None:
            found.timer.cancel()
        if self._next.get(key) is found:
            del self._next[key]


async def _look(found: _Next[News], look: Callable[[], Awaitable[News]]) -> None:
    try:
        news = await look()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is for those who wait
        if not found.future.done() and found.waiting:
            found.future.set_exception(error)
    else:
        if not found.future.done():
            found.future.set_result(news)
