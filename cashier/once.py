"""Once: of those who ask for the same thing at the same time one has it done, and all get what came of it. In one worker, in memory.

The work belongs to nobody who waits for it. Money may be in it, so it runs to its end though everybody has gone away. Nothing is kept
afterwards: what was done before is for the engine to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")


class KeyReused(Exception):
    """The same key with another fingerprint while the first is under way. Nothing was begun."""


class Crowded(Exception):
    """As many as there may be are under way. Nothing was begun."""


class CutOff(Exception):
    """The work was cancelled from outside, by a stop. How far it came is not known: only looking again tells."""


class _Running(Struct, Generic[T]):
    task: asyncio.Task[T]
    fingerprint: str
    waiting: int = 0


class Once(Generic[T]):
    """At most `most` pieces of work under way at a time, each under a key, on one event loop.

    `ordinary`: what work may well raise. Where nobody is left to hear that, it is no alarm.
    """

    def __init__(self, most: int = 10_000, ordinary: tuple[type[Exception], ...] = ()) -> None:
        self._most = most
        self._ordinary = ordinary
        self._running: dict[str, _Running[T]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def __repr__(self) -> str:
        return f"<Once {len(self)} of {self._most} waiting={sum(each.waiting for each in self._running.values())}>"

    async def run(self, key: str, fingerprint: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What came of the work under this key: begun now, or under way already. Raises what the work raised, to everybody alike.

        Who is cancelled goes away alone. Raises `KeyReused` and `Crowded`, with nothing begun by this call, and `CutOff`.
        """
        running = self._running.get(key)
        if running is None:
            running = self._begin(key, fingerprint, work)
        elif running.fingerprint != fingerprint:
            raise KeyReused
        running.waiting += 1
        try:
            # Neither a result nor a cancellation of ours passes through it in either direction.
            await asyncio.wait((running.task,))
        finally:
            running.waiting -= 1
        if running.task.cancelled():
            raise CutOff
        return running.task.result()

    async def ended(self) -> None:
        """When all that is under way has ended, and what was begun meanwhile. For a stop, which bounds it."""
        while self._running:
            await asyncio.wait([each.task for each in self._running.values()])

    def _begin(self, key: str, fingerprint: str, work: Callable[[], Coroutine[Any, Any, T]]) -> _Running[T]:
        if len(self._running) >= self._most:
            raise Crowded
        running = self._running[key] = _Running(asyncio.get_running_loop().create_task(work()), fingerprint)
        running.task.add_done_callback(lambda _: self._end(key, running))
        return running

    def _end(self, key: str, running: _Running[T]) -> None:
        del self._running[key]
        # Looking at an exception is hearing it, so only where nobody else will.
        error = None if running.waiting or running.task.cancelled() else running.task.exception()
        if error is not None and not isinstance(error, self._ordinary):
            running.task.get_loop().call_exception_handler(
                {
                    "message": "cashier: work that nobody waited for any more failed",
                    "exception": error,
                    "task": running.task,
                }
            )
