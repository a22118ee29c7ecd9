"""Detects a body that is overdue and a client that disconnected while its request is being served.

Most requests end before either can happen, so each costs one set entry: no timer, no task, no
second `receive()`. One periodic sweep examines the requests that take longer.
"""

from __future__ import annotations

import asyncio
import math

from starlette.types import Receive

# A request is examined one to two sweeps after its start: late enough that few are, early enough to
# save most of the work when an upstream hangs.
SWEEP_S = 0.05


class WatchedRequest:
    """One request being served."""

    __slots__ = ("body_complete", "disconnected", "overdue", "receive", "sweeps", "task", "watcher")

    def __init__(self, task: asyncio.Task[object] | None, receive: Receive) -> None:
        self.task = task
        self.receive = receive
        self.sweeps = 0
        self.body_complete = False
        self.overdue = False
        self.disconnected = False
        self.watcher: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def absorb_cancellation(self) -> bool:
        """Whether only this watch cancelled the task. Uncancels the task: call once."""
        return (self.overdue or self.disconnected) and self.task is not None and self.task.uncancel() == 0

    def __repr__(self) -> str:
        return (
            f"<WatchedRequest body_complete={self.body_complete} overdue={self.overdue}"
            f" disconnected={self.disconnected} watched={self.watcher is not None}>"
        )


class DisconnectWatch:
    """Cancels the task of a request if its client disconnects or its body is overdue.

    A body is overdue if it is incomplete after `body_timeout_s`. Belongs to one event loop.
    """

    def __init__(self, body_timeout_s: float) -> None:
        self._body_sweeps = math.ceil(body_timeout_s / SWEEP_S)
        self._requests: set[WatchedRequest] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<DisconnectWatch requests={len(self._requests)} sweeping={self._timer is not None}>"

    def enter(self, receive: Receive) -> WatchedRequest:
        """Start to watch a request. Call in the task that serves it."""
        loop = asyncio.get_running_loop()
        request = WatchedRequest(asyncio.current_task(loop), receive)
        self._requests.add(request)
        if self._timer is None:
            self._timer = loop.call_later(SWEEP_S, self._sweep)
        return request

    def leave(self, request: WatchedRequest) -> None:
        self._requests.discard(request)
        if request.watcher is not None:
            request.watcher.cancel()

    def _sweep(self) -> None:
        # Ages are counted in sweeps, which saves reading the clock per request.
        loop = asyncio.get_running_loop()
        for request in self._requests:
            request.sweeps += 1
            if not request.body_complete:
                if request.sweeps > self._body_sweeps and not request.overdue:
                    request.overdue = True
                    request.cancel()
            elif request.watcher is None and request.sweeps >= 2:
                request.watcher = loop.create_task(_watch(request))
        self._timer = loop.call_later(SWEEP_S, self._sweep) if self._requests else None


async def _watch(request: WatchedRequest) -> None:
    """After a complete body the next message can only be the disconnect."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        request.disconnected = True
        request.cancel()
