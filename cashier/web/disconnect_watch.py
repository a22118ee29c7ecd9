"""Who takes too long to send a body, and who went away while we were working. Knows tasks and receivers, nothing of payments.

Most requests are over before anybody could lose patience, so they pay for a set entry only: no timer, no task, no second `receive()`.
One sweep for all looks at what is left over.
"""

from __future__ import annotations

import asyncio
import math

from starlette.types import Receive

# A request is looked at between one and two sweeps after it came: late enough that hardly any is, early enough to save most of a hang.
SWEEP_S = 0.05


class WatchedRequest:
    """One request under way."""

    __slots__ = ("gone", "overdue", "receive", "sweeps", "task", "watcher", "whole")

    def __init__(self, task: asyncio.Task[object] | None, receive: Receive) -> None:
        self.task = task
        self.receive = receive
        self.sweeps = 0
        self.whole = False
        self.overdue = False
        self.gone = False
        self.watcher: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def forgives(self) -> bool:
        """Whether the cancellation of the task was this vigil's doing, and nobody else's on top of it. To be asked once."""
        return (self.overdue or self.gone) and self.task is not None and self.task.uncancel() == 0

    def __repr__(self) -> str:
        return f"<Visit whole={self.whole} overdue={self.overdue} gone={self.gone} watched={self.watcher is not None}>"


class DisconnectWatch:
    """Cancels the task of a request whose body is not whole after `body_timeout_s`, or whose client has gone. Belongs to one loop."""

    def __init__(self, body_timeout_s: float) -> None:
        self._body_sweeps = math.ceil(body_timeout_s / SWEEP_S)
        self._under_way: set[WatchedRequest] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Vigil under_way={len(self._under_way)} sweeping={self._timer is not None}>"

    def enter(self, receive: Receive) -> WatchedRequest:
        """To be called in the task that serves the request."""
        loop = asyncio.get_running_loop()
        visit = WatchedRequest(asyncio.current_task(loop), receive)
        self._under_way.add(visit)
        if self._timer is None:
            self._timer = loop.call_later(SWEEP_S, self._sweep)
        return visit

    def leave(self, visit: WatchedRequest) -> None:
        self._under_way.discard(visit)
        if visit.watcher is not None:
            visit.watcher.cancel()

    def _sweep(self) -> None:
        # Age is counted in sweeps: nobody has to read a clock for it.
        loop = asyncio.get_running_loop()
        for visit in self._under_way:
            visit.sweeps += 1
            if not visit.whole:
                if visit.sweeps > self._body_sweeps and not visit.overdue:
                    visit.overdue = True
                    visit.cancel()
            elif visit.watcher is None and visit.sweeps >= 2:
                visit.watcher = loop.create_task(_watch(visit))
        self._timer = loop.call_later(SWEEP_S, self._sweep) if self._under_way else None


async def _watch(visit: WatchedRequest) -> None:
    """The body is whole, so the next thing to be received is that the client has gone."""
    message = await visit.receive()
    if message["type"] == "http.disconnect":
        visit.gone = True
        visit.cancel()
