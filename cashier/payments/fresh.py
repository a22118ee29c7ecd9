"""Fresh: one piece of work for all who ask for it before it begins. Who asks while it is under way gets the next one: what has begun before
they asked may be older than what they know already. Payment-blind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Work = Callable[[], Coroutine[Any, Any, T]]


class Full(Exception):
    """As many keys as there may be have work under way. Nothing was begun."""


class _Slot(Generic[T]):
    """What is under way under one key, and what comes after it, if anybody wants that."""

    __slots__ = ("after", "running", "work")

    def __init__(self) -> None:
        self.running: asyncio.Task[None] | None = None
        self.after: asyncio.Future[T] | None = None
        self.work: Work[T] | None = None


class Fresh(Generic[T]):
    """Work under keys, at most `most` at a time; at most one piece under way and one to come of each. Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._slots: dict[str, _Slot[T]] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def __repr__(self) -> str:
        return f"<Fresh {len(self)} of {self._most}>"

    async def run(self, key: str, work: Work[T]) -> T:
        """What came of work that began no sooner than now. Raises what it raised, to everybody alike, and `Full`.

        Who is cancelled goes away alone.
        """
        slot = self._slots.get(key)
        if slot is None:
            if len(self._slots) >= self._most:
                raise Full
            slot = self._slots[key] = _Slot()
        if slot.after is None:  # else that one has not begun
            slot.after, slot.work = asyncio.get_running_loop().create_future(), work
        told = slot.after
        if slot.running is None:
            self._begin(key, slot)
        return await asyncio.shield(told)

    async def ended(self) -> None:
        """When nothing is under way any more."""
        while self._slots:
            await asyncio.wait([slot.running for slot in self._slots.values() if slot.running is not None])

    def _begin(self, key: str, slot: _Slot[T]) -> None:
        slot.running = asyncio.get_running_loop().create_task(_do(slot))
        slot.running.add_done_callback(lambda task: self._end(key, slot, task))

    def _end(self, key: str, slot: _Slot[T], task: asyncio.Task[None]) -> None:
        slot.running = None
        if task.cancelled() and slot.after is not None:
            # By a stop, perhaps before it could begin: whoever still waits waits for nothing, and nothing more is begun.
            slot.after.cancel()
            slot.after = slot.work = None
        if slot.after is None:
            del self._slots[key]
        else:
            self._begin(key, slot)


async def _do(slot: _Slot[T]) -> None:
    """From here on whoever comes is too late for this one."""
    told, work = slot.after, slot.work
    slot.after = slot.work = None
    assert told is not None  # noqa: S101  somebody asked
    assert work is not None  # noqa: S101  with it
    try:
        found = await work()
    except asyncio.CancelledError:
        told.cancel()
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is for those who asked
        told.set_exception(error)
        told.exception()  # heard, also where nobody is left to hear
    else:
        told.set_result(found)
