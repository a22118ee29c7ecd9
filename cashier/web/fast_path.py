"""The fast path: answers a plain consultation request without an ASGI scope and messages.

Most requests of a gateway arrive in one read and qualify. They save the parser's callbacks, the
scope and the messages; the response is the same as over ASGI. Takes the place of uvicorn's
request-response cycle in the connection, which deals with everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from cashier.web.application import CashierApp


class FastPath:
    """One request until its response is written. Public attributes are those of uvicorn's cycle."""

    __slots__ = (
        "_body", "_body_received", "_connection", "_headers", "disconnected", "keep_alive", "message_event",
        "response_complete", "response_started",
    )  # fmt: skip

    def __init__(self, connection: HttpToolsProtocol, headers: dict[bytes, bytes], body: bytes) -> None:
        """`headers` by lower-case name."""
        self._connection = connection
        self._headers = headers
        self._body = body
        self._body_received = False
        self.disconnected = False
        self.keep_alive = True
        self.response_started = False
        self.response_complete = False
        self.message_event = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        """ASGI `receive`: the body, then a disconnect when the client or the response is gone."""
        if not self._body_received:
            self._body_received = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        if not self.disconnected and not self.response_complete:
            await self.message_event.wait()
        return {"type": "http.disconnect"}

    async def run(self, application: CashierApp, default_headers: Sequence[tuple[bytes, bytes]]) -> None:
        connection = self._connection
        try:
            response = await application.respond(self._headers, self.receive)
            if connection.flow.write_paused and not self.disconnected:
                await connection.flow.drain()
        except BaseException:
            # Cancelled, or a bug: without a response the connection cannot go on.
            connection.transport.close()
            raise
        if response is None or self.disconnected:
            return
        status, headers, body = response
        lines = [b"%b: %b\r\n" % header for header in (*default_headers, *headers)]
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
