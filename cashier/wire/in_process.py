"""A transport without a network: each call is an async function of this process. For embedded callers, and for tests in virtual time.

It takes whole requests, as a service would. A source that is asked with its parameters by name is `InProcess`, in `sources.call`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cashier.source_errors import SourceError, Unreachable
from cashier.wire.delivery import deliver
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response

LocalFunction = Callable[[Request], Awaitable[Response]]

# How long closing leaves to what was begun and may not be broken off: it moves money, and is mostly done within milliseconds.
CLOSE_GRACE_S = 1.0


class InProcessTransport:
    """A `Transport` over one function.

    The function may raise a `SourceError`, which is handed on as it is; with `sent` False it says that nothing was done. Whatever else it
    raises goes to the event loop's exception handler and comes out as `Unreachable`, and may have been done.

    What is abandoned before the function was called never calls it. Afterwards a GET is cancelled; anything else goes on to its end
    unheard, as it would at a service: a payment that was begun is not undone by who stops waiting.
    """

    places = ("local",)

    def __init__(self, call: LocalFunction) -> None:
        self._call = call
        self._under_way: set[_InProcessCall] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Local {len(self._under_way)} under way{', closed' if self._closed else ''}>"

    async def open(self) -> None:
        """There is nothing to open."""

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, reply: OnResponse, avoid: int = 0
    ) -> _InProcessCall:
        """As of `Transport`. `call_headers`, `budget_ms` and `avoid` are for services elsewhere and go nowhere."""
        work = _InProcessCall(request, reply)
        work.task = asyncio.get_running_loop().create_task(_refused() if self._closed else self._made(work))
        self._under_way.add(work)
        work.task.add_done_callback(lambda _: self._ended(work))
        return work

    async def close(self) -> None:
        """Everybody who waits is told `Unreachable`. What may not be broken off has a second to end; then all is cancelled."""
        self._closed = True
        left = tuple(self._under_way)
        for work in left:
            work.finish(Unreachable("local: closed", sent=work.sent))
            work.let_go()
        if left:
            _, late = await asyncio.wait([work.task for work in left], timeout=CLOSE_GRACE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _made(self, work: _InProcessCall) -> Response:
        """Called inside the task, so that what goes wrong in the calling ends where all its trouble ends."""
        work.sent = True
        return await self._call(work.request)

    def _ended(self, work: _InProcessCall) -> None:
        self._under_way.discard(work)
        if work.task.cancelled():
            work.finish(Unreachable("local: the function was cancelled", sent=work.sent))
            return
        error = work.task.exception()
        if error is None:
            work.finish(work.task.result())
        elif isinstance(error, SourceError):
            work.finish(error)
        else:
            told = {
                "message": "cashier: the function of a local transport raised",
                "exception": error,
                "task": work.task,
            }
            work.task.get_loop().call_exception_handler(told)
            work.finish(Unreachable(f"local: the function raised {type(error).__name__}"))


class _InProcessCall:
    """A call under way: an `Exchange`, and the task that does it. `sent`: the function was called."""

    __slots__ = ("_reply", "request", "sent", "task")

    place = 0
    task: asyncio.Task[Response]

    def __init__(self, request: Request, reply: OnResponse) -> None:
        self.request = request
        self.sent = False
        self._reply: OnResponse | None = reply

    def finish(self, outcome: Response | SourceError) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            deliver(reply, outcome)

    def abandon(self) -> None:
        if self._reply is not None:
            self._reply = None
            self.let_go()

    def let_go(self) -> None:
        """Nobody waits. Cancelled, unless it was begun and may do something."""
        if not self.sent or self.request.method == "GET":
            self.task.cancel()


async def _refused() -> Response:
    raise Unreachable("local: closed", sent=False)
