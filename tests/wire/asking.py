"""The client's side of a test: asking, waiting for the reply, and seeing that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable

from cashier.source_errors import SourceError
from cashier.wire.transport import CallHeaders, Request, Response, Transport

from .hostile import WATCHDOG_S

CALL_HEADERS = CallHeaders("r-1")
OK = b"HTTP/1.1 200 OK\r\n"


def answer(body: bytes) -> bytes:
    return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Asked:
    """One call. Every reply is noted, so that a second one shows."""

    def __init__(
        self, wire: Transport, request: Request, call_headers: CallHeaders = CALL_HEADERS, budget_ms: int = 150
    ) -> None:
        self.outcomes: list[Response | SourceError] = []
        self._replied = asyncio.Event()
        self.exchange = wire.send(request, call_headers, budget_ms, self._reply)
        assert not self.outcomes, "replied before send returned"

    def _reply(self, outcome: Response | SourceError) -> None:
        self.outcomes.append(outcome)
        self._replied.set()

    async def outcome(self) -> Response | SourceError:
        async with asyncio.timeout(WATCHDOG_S):
            await self._replied.wait()
        assert len(self.outcomes) == 1
        return self.outcomes[0]


def ask(wire: Transport, target: str = "/thing", *, safe: bool = True, method: str = "GET", body: bytes = b"") -> Asked:
    return Asked(wire, Request(target, method=method, body=body, safe=safe))


async def until(holds: Callable[[], bool]) -> None:
    """Turns of the loop until something holds: waiting for what the test cannot be told of."""
    async with asyncio.timeout(WATCHDOG_S):
        while not holds():  # noqa: ASYNC110 — nobody sets an event when a socket is closed
            await asyncio.sleep(0)


async def arrival() -> None:
    """Until what was said has been read: loopback delivers at once and both ends share the loop, so a few turns of it will do."""
    for _ in range(50):
        await asyncio.sleep(0)


def open_sockets() -> int:
    """Of this process. Other files are none of ours: libuv opens /dev/null once."""
    links = []
    for file in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists
            links.append(os.readlink(f"/proc/self/fd/{file}"))
    return sum(link.startswith("socket:") for link in links)


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """No task, no open socket and, where the loop shows them, no timer more than before."""
    loop = asyncio.get_running_loop()
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    yield
    await until(lambda: asyncio.all_tasks() - {asyncio.current_task()} <= tasks)
    await until(lambda: open_sockets() <= sockets)
    assert all(timer.cancelled() for timer in getattr(loop, "_scheduled", ()))
