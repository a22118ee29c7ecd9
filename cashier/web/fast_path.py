"""A consultation that came in one piece, answered in one piece: the same question and the same answer as by way of ASGI, for less.

Most requests of a gateway are such. A parser's callbacks, a scope and messages are what they are spared; whatever else may happen on a
connection is left to the connection, for which this stands where uvicorn keeps its cycle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

if TYPE_CHECKING:
    from cashier.web.application import CashierApp
    from cashier.web.connection import ClientConnection


class FastPath:
    """One request, until it is answered. `headers` by name in lower case. What is public is what uvicorn asks of a cycle."""

    __slots__ = (
        "_body", "_connection", "_headers", "_read", "disconnected", "keep_alive", "message_event", "response_complete", "response_started",
    )  # fmt: skip

    def __init__(self, connection: ClientConnection, headers: dict[bytes, bytes], body: bytes) -> None:
        self._connection = connection
        self._headers = headers
        self._body = body
        self._read = False
        self.disconnected = False
        self.keep_alive = True
        self.response_started = False
        self.response_complete = False
        self.message_event = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        """ASGI's: the body, and then that the client has gone or was answered."""
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        if not self.disconnected and not self.response_complete:
            await self.message_event.wait()
        return {"type": "http.disconnect"}

    async def run(self, door: CashierApp, always: Sequence[tuple[bytes, bytes]]) -> None:
        """`always`: headers that every answer has."""
        connection = self._connection
        try:
            answer = await door.whole(self._headers, self.receive)
            if connection.flow.write_paused and not self.disconnected:
                await connection.flow.drain()
        except BaseException:
            # Cancelled, or a bug: a connection without an answer is of no use to anybody.
            connection.transport.close()
            raise
        if answer is None or self.disconnected:
            return
        status, headers, body = answer
        lines = [b"%b: %b\r\n" % header for header in (*always, *headers)]
        if (b"connection", b"close") in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        connection.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], b"".join(lines), body))
        self.response_started = self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            connection.transport.close()
        connection.on_response_complete()
