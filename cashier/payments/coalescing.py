"""Coalescing: concurrent callers with one key share one run of the work.

In memory, one event loop. No result is kept after a run has ended.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

from msgspec import Struct

from cashier.payments.errors import InFlight, TooManyPayments

T = TypeVar("T")

Work = Callable[[], Coroutine[Any, Any, T]]


class FingerprintMismatch(Exception):
    """The key is in use by work with another fingerprint. Nothing was started.

    Not `KeyReused`: that is final, and the work itself may raise it.
    """


class _Run(Struct, Generic[T], eq=False):
    """One run: not due (`timer`), due, or under way (`task`).

    `following`: the next run of the key, for callers that came after the work had begun.
    """

    result: asyncio.Future[T]
    work: Work[T]
    fingerprint: str
    due_s: float = math.inf
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[T] | None = None
    begun: bool = False
    following: _Run[T] | None = None
    waiters: int = 0


class SingleFlight(Generic[T]):
    """At most `max_keys` keys at a time, each with at most one run under way.

    A run that is due belongs to none of its callers: it may move money, so it continues when all of
    them have gone.

    `join_running`: a caller joins a run that has begun: for work that must happen once, such as a
    submit. Without it, a caller shares the next run: for reads, which must not be older than the
    call.
    `expected`: exceptions that are ordinary results; others are reported when no caller is left.
    """

    def __init__(
        self, max_keys: float = math.inf, *, join_running: bool = False, expected: tuple[type[Exception], ...] = ()
    ) -> None:
        self._max_keys = max_keys
        self._join_running = join_running
        self._expected = expected
        self._runs: dict[str, _Run[T]] = {}
        self._stopped = False
        self.waiters = 0

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        return f"<SingleFlight keys={len(self)} waiters={self.waiters} stopped={self._stopped}>"

    async def run(self, key: str, work: Work[T], *, fingerprint: str = "", after_s: float = 0.0) -> T:
        """Return the result of a run under `key`; start one if there is none to join.

        The run is due in `after_s`, or sooner if another caller is due first. The last caller to be
        cancelled before that withdraws it.

        Raises what the work raises, to every caller; `FingerprintMismatch`; `TooManyPayments`
        beyond `max_keys`; `InFlight` if a stop cancelled the run: then its progress is unknown.
        """
        if self._stopped:
            raise InFlight
        run = self._joined(key, work, fingerprint)
        self._schedule(key, run, work, after_s)
        run.waiters += 1
        self.waiters += 1
        try:
            # `wait` passes neither a result nor our cancellation through.
            await asyncio.wait((run.result,))
        finally:
            run.waiters -= 1
            self.waiters -= 1
            if not run.waiters and run.timer is not None:
                self._withdraw(key, run)
        if run.result.cancelled():
            raise InFlight
        return run.result.result()

    def stop(self) -> None:
        """Release the callers of runs that have not started, and start no further run."""
        self._stopped = True
        for key, run in list(self._runs.items()):
            waiting = run if run.task is None else run.following
            if waiting is not None:
                self._withdraw(key, waiting)

    async def drain(self) -> None:
        """Wait until no run is under way, including runs that start meanwhile.

        The caller bounds the time.
        """
        while tasks := [run.task for run in self._runs.values() if run.task is not None]:
            await asyncio.wait(tasks)

    def _joined(self, key: str, work: Work[T], fingerprint: str) -> _Run[T]:
        run = self._runs.get(key)
        if run is None:
            if len(self._runs) >= self._max_keys:
                raise TooManyPayments
            run = self._runs[key] = _Run(asyncio.get_running_loop().create_future(), work, fingerprint)
        elif run.begun and not self._join_running:
            if run.following is None:
                run.following = _Run(asyncio.get_running_loop().create_future(), work, fingerprint)
            run = run.following
        if run.fingerprint != fingerprint:
            raise FingerprintMismatch
        return run

    def _schedule(self, key: str, run: _Run[T], work: Work[T], after_s: float) -> None:
        """Make the run due in `after_s`, unless it is due sooner or has started."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + after_s
        if due_s >= run.due_s:
            return
        run.due_s, run.work = due_s, work
        if run.timer is not None:
            run.timer.cancel()
        if after_s > 0:
            run.timer = loop.call_at(due_s, self._start_due, key, run)
        else:
            self._start_due(key, run)

    def _start_due(self, key: str, run: _Run[T]) -> None:
        run.timer = None
        if self._runs[key] is run:  # else `_end` of the run before starts it
            run.task = asyncio.get_running_loop().create_task(_begin(run))
            run.task.add_done_callback(partial(self._end, key, run))

    def _withdraw(self, key: str, run: _Run[T]) -> None:
        """Cancel a run that has not started."""
        if run.timer is not None:
            run.timer.cancel()
            run.timer = None
        run.result.cancel()
        if self._runs[key] is run:
            del self._runs[key]
        else:
            self._runs[key].following = None

    def _end(self, key: str, run: _Run[T], task: asyncio.Task[T]) -> None:
        if task.cancelled() and run.following is not None:
            self._withdraw(key, run.following)  # a stop cancelled it: start nothing more
        following = run.following
        if following is None:
            del self._runs[key]
        else:
            self._runs[key] = following
            if following.timer is None:
                self._start_due(key, following)
        self._deliver(run, task)

    def _deliver(self, run: _Run[T], task: asyncio.Task[T]) -> None:
        if task.cancelled():
            run.result.cancel()
            return
        error = task.exception()
        if error is None:
            run.result.set_result(task.result())
            return
        run.result.set_exception(error)
        run.result.exception()  # retrieved, also when no caller is left
        if not run.waiters and not isinstance(error, self._expected):
            task.get_loop().call_exception_handler(
                {"message": "cashier: work without a caller failed", "exception": error, "task": task}
            )


async def _begin(run: _Run[T]) -> T:
    run.begun = True
    return await run.work()
