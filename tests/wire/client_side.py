"""The client's side of a wire test: sends requests, records outcomes, checks for leaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

from cashier.source_errors import SourceError
from cashier.wire.transport import CallHeaders, Request, Response, Transport
from tests.support.process_files import open_sockets

from .scripted_upstream import WATCHDOG_S

CALL_HEADERS = CallHeaders("r-1")
# Settings of a client under test: only a hang is a connect that takes too long.
PATIENT: dict[str, Any] = {"connect_timeout_ms": 30_000}
OK = b"HTTP/1.1 200 OK\r\n"


def answer(body: bytes) -> bytes:
    return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body


class RecordedCall:
    """One call. Records every callback, so that a second one shows."""

    def __init__(
        self, transport: Transport, request: Request, call_headers: CallHeaders = CALL_HEADERS, budget_ms: int = 150
    ) -> None:
        self.outcomes: list[Response | SourceError] = []
        self._ended = asyncio.Event()
        self.call = transport.send(request, call_headers, budget_ms, self._on_response)
        assert not self.outcomes, "the callback was called before send returned"

    def _on_response(self, outcome: Response | SourceError) -> None:
        self.outcomes.append(outcome)
        self._ended.set()

    @property
    def sent(self) -> bool:
        return self.call.sent

    @property
    def address_index(self) -> int:
        return self.call.address_index

    def abandon(self) -> None:
        self.call.abandon()

    async def outcome(self) -> Response | SourceError:
        async with asyncio.timeout(WATCHDOG_S):
            await self._ended.wait()
        assert len(self.outcomes) == 1
        return self.outcomes[0]


def send(
    transport: Transport, target: str = "/thing", *, safe: bool = True, method: str = "GET", body: bytes = b""
) -> RecordedCall:
    return RecordedCall(transport, Request(target, method=method, body=body, safe=safe))


async def until(holds: Callable[[], bool]) -> None:
    """Run the loop until a condition holds that has no event."""
    async with asyncio.timeout(WATCHDOG_S):
        while not holds():  # noqa: ASYNC110 — a closed socket sets no event
            await asyncio.sleep(0)


async def settle() -> None:
    """Run the loop until written data has been read.

    Loopback delivers at once and both ends share the loop, so a few turns suffice.
    """
    for _ in range(50):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """No more tasks, sockets or, if the loop shows them, timers than before."""
    loop = asyncio.get_running_loop()
    # Other files do not count: libuv opens /dev/null once.
    tasks, sockets = asyncio.all_tasks(), open_sockets(os.getpid())
    yield
    await until(lambda: asyncio.all_tasks() - {asyncio.current_task()} <= tasks)
    await until(lambda: open_sockets(os.getpid()) <= sockets)
    assert all(timer.cancelled() for timer in getattr(loop, "_scheduled", ()))
