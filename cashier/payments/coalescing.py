"""Coalescing: concurrent callers with one key share one run of the work.

Payment-blind, in memory, one event loop.

`SingleFlight` joins a run that is under way: for work that must happen once, such as a submit.
`FreshSingleFlight` never joins one that has begun: for reads that must not be older than the call.
`SharedPoll` adds a due time: for long polls, which share the next read.
No result is kept after a run has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")

Work = Callable[[], Coroutine[Any, Any, T]]


class FingerprintMismatch(Exception):
    """The key is in use by work with another fingerprint. Nothing was started."""


class TooManyRuns(Exception):
    """The bound on concurrent runs is reached. Nothing was started."""


class RunCancelled(Exception):
    """A stop cancelled the run. Its progress is unknown: look it up."""


class _Run(Struct, Generic[T]):
    task: asyncio.Task[T]
    fingerprint: str
    waiters: int = 0


class SingleFlight(Generic[T]):
    """At most `max_runs` runs at a time, each under a key.

    A run belongs to none of its callers: it may move money, so it continues when all of them have
    gone.
    `expected`: exceptions that are ordinary results; they are not reported when no caller is left.
    """

    def __init__(self, max_runs: int = 10_000, expected: tuple[type[Exception], ...] = ()) -> None:
        self._max_runs = max_runs
        self._expected = expected
        self._runs: dict[str, _Run[T]] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        waiters = sum(run.waiters for run in self._runs.values())
        return f"<SingleFlight {len(self)} of {self._max_runs} waiters={waiters}>"

    async def run(self, key: str, fingerprint: str, work: Work[T]) -> T:
        """Return the result of the run under `key`; start it if there is none.

        Raises what the work raises, to every caller; `FingerprintMismatch`, `TooManyRuns`,
        `RunCancelled`. A cancelled caller does not cancel the run.
        """
        run = self._runs.get(key)
        if run is None:
            run = self._start(key, fingerprint, work)
        elif run.fingerprint != fingerprint:
            raise FingerprintMismatch
        run.waiters += 1
        try:
            # `wait` passes neither a result nor our cancellation through.
            await asyncio.wait((run.task,))
        finally:
            run.waiters -= 1
        if run.task.cancelled():
            raise RunCancelled
        return run.task.result()

    async def drain(self) -> None:
        """Wait until no run is left, including runs that start meanwhile.

        The caller bounds the time.
        """
        while self._runs:
            await asyncio.wait([run.task for run in self._runs.values()])

    def _start(self, key: str, fingerprint: str, work: Work[T]) -> _Run[T]:
        if len(self._runs) >= self._max_runs:
            raise TooManyRuns
        run = self._runs[key] = _Run(asyncio.get_running_loop().create_task(work()), fingerprint)
        run.task.add_done_callback(lambda _: self._end(key, run))
        return run

    def _end(self, key: str, run: _Run[T]) -> None:
        del self._runs[key]
        # Reading the exception marks it as retrieved, so only where no caller will.
        error = None if run.waiters or run.task.cancelled() else run.task.exception()
        if error is not None and not isinstance(error, self._expected):
            run.task.get_loop().call_exception_handler(
                {"message": "cashier: work without a caller failed", "exception": error, "task": run.task}
            )


class _Slot(Generic[T]):
    """One key: the run under way, and the next one if a caller wants it."""

    __slots__ = ("next_result", "next_work", "running")

    def __init__(self) -> None:
        self.running: asyncio.Task[None] | None = None
        self.next_result: asyncio.Future[T] | None = None
        self.next_work: Work[T] | None = None


class FreshSingleFlight(Generic[T]):
    """At most `max_keys` keys at a time, each with at most one run under way and one to follow."""

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._slots: dict[str, _Slot[T]] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def __repr__(self) -> str:
        return f"<FreshSingleFlight {len(self)} of {self._max_keys}>"

    async def run(self, key: str, work: Work[T]) -> T:
        """Return the result of a run that starts no earlier than this call.

        Raises what the work raises, to every caller; `TooManyRuns`. A cancelled caller does not
        cancel the run.
        """
        slot = self._slots.get(key)
        if slot is None:
            if len(self._slots) >= self._max_keys:
                raise TooManyRuns
            slot = self._slots[key] = _Slot()
        if slot.next_result is None:
            slot.next_result, slot.next_work = asyncio.get_running_loop().create_future(), work
        result = slot.next_result
        if slot.running is None:
            self._start(key, slot)
        return await asyncio.shield(result)

    async def drain(self) -> None:
        """Wait until no run is left."""
        while self._slots:
            await asyncio.wait([slot.running for slot in self._slots.values() if slot.running is not None])

    def _start(self, key: str, slot: _Slot[T]) -> None:
        slot.running = asyncio.get_running_loop().create_task(_run_next(slot))
        slot.running.add_done_callback(lambda task: self._end(key, slot, task))

    def _end(self, key: str, slot: _Slot[T], task: asyncio.Task[None]) -> None:
        slot.running = None
        if task.cancelled() and slot.next_result is not None:
            # A stop cancelled it, perhaps before it could begin: release the callers and start
            # nothing more.
            slot.next_result.cancel()
            slot.next_result = slot.next_work = None
        if slot.next_result is None:
            del self._slots[key]
        else:
            self._start(key, slot)


async def _run_next(slot: _Slot[T]) -> None:
    """Take the next work out of the slot, so that later callers get another run, and do it."""
    result, work = slot.next_result, slot.next_work
    slot.next_result = slot.next_work = None
    assert result is not None  # noqa: S101 - a run starts only when a caller has set both
    assert work is not None  # noqa: S101
    try:
        value = await work()
    except asyncio.CancelledError:
        result.cancel()
        raise
    except Exception as error:  # noqa: BLE001 - every error goes to the callers
        result.set_exception(error)
        result.exception()  # retrieved, also when no caller is left
    else:
        result.set_result(value)


class _Poll(Generic[T]):
    """The next read under one key. `reading`: set once it has begun and cannot be withdrawn."""

    __slots__ = ("due_s", "reading", "result", "timer", "waiters")

    def __init__(self, result: asyncio.Future[T | None]) -> None:
        self.result = result
        self.due_s = float("inf")
        self.timer: asyncio.TimerHandle | None = None
        self.reading: asyncio.Task[None] | None = None
        self.waiters = 0


class SharedPoll(Generic[T]):
    """One timer and one read per key, however many callers wait. The earliest due time counts."""

    def __init__(self) -> None:
        self._polls: dict[str, _Poll[T]] = {}
        self._reads: set[asyncio.Task[None]] = set()
        self.waiters = 0
        self.stopped = False

    def __repr__(self) -> str:
        return f"<SharedPoll keys={len(self._polls)} waiters={self.waiters} stopped={self.stopped}>"

    async def next(self, key: str, after_ms: float, read: Callable[[], Awaitable[T]]) -> T | None:
        """Return the result of a read in `after_ms`, or sooner if another caller is due first.

        None after `stop`. Raises what the read raises, to every caller. The last caller to be
        cancelled also cancels the timer.
        """
        if self.stopped:
            return None
        loop = asyncio.get_running_loop()
        poll = self._polls.get(key)
        if poll is None:
            poll = self._polls[key] = _Poll(loop.create_future())
        due_s = loop.time() + after_ms / 1000
        if due_s < poll.due_s:
            poll.due_s = due_s
            if poll.timer is not None:
                poll.timer.cancel()
            poll.timer = loop.call_at(due_s, self._begin, key, poll, read)
        poll.waiters += 1
        self.waiters += 1
        try:
            return await asyncio.shield(poll.result)
        finally:
            poll.waiters -= 1
            self.waiters -= 1
            if not poll.waiters and poll.reading is None:
                self._forget(key, poll)

    def stop(self) -> None:
        """Give None to every caller, now and from now on."""
        self.stopped = True
        for poll in self._polls.values():
            if poll.timer is not None:
                poll.timer.cancel()
            if not poll.result.done():
                poll.result.set_result(None)
        self._polls.clear()

    async def drain(self) -> None:
        """Wait until no read is under way."""
        while self._reads:
            await asyncio.wait(self._reads)

    def _begin(self, key: str, poll: _Poll[T], read: Callable[[], Awaitable[T]]) -> None:
        # Later callers wait for the next read: this one may be older than what they know.
        del self._polls[key]
        poll.reading = asyncio.get_running_loop().create_task(_read(poll, read))
        self._reads.add(poll.reading)
        poll.reading.add_done_callback(lambda task: self._end(poll, task))

    def _end(self, poll: _Poll[T], task: asyncio.Task[None]) -> None:
        self._reads.discard(task)
        if not poll.result.done():  # a stop cancelled it, perhaps before it could begin
            poll.result.cancel()

    def _forget(self, key: str, poll: _Poll[T]) -> None:
        if poll.timer is not None:
            poll.timer.cancel()
        if self._polls.get(key) is poll:
            del self._polls[key]


async def _read(poll: _Poll[T], read: Callable[[], Awaitable[T]]) -> None:
    try:
        value = await read()
    except Exception as error:  # noqa: BLE001 - every error goes to the callers
        if not poll.result.done() and poll.waiters:
            poll.result.set_exception(error)
    else:
        if not poll.result.done():
            poll.result.set_result(value)
