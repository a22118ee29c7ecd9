"""The fast path: answers a plain consultation request without an ASGI scope and messages.

Most requests of a gateway arrive in one read and qualify: one complete consultation request with no
unusual headers, recognized by searching bytes. They save the parser's callbacks, the scope and the
messages; the response is the same as over ASGI. `FastPath` takes the place of uvicorn's
request-response cycle in the connection. Everything unusual goes to the parser, which settles what
it means.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

if TYPE_CHECKING:
    from cashier.web.application import CashierApp
    from cashier.web.connection import ClientConnection

_LINE = b"POST /v1/consult HTTP/1.1\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,6})[ \t]*\r\n")
# RFC 9110, section 5: the characters of a header name and of a header value.
_NAME_CHARACTERS = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VALUE_CHARACTERS = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))


class PlainRequest(NamedTuple):
    """`head` is in lower case, `data` is the request as received, `body` the offset of its body."""

    head: bytes
    data: bytes
    body: int

    def header(self, name: bytes) -> bytes | None:
        """The original value, the first if there are several. `name` must be in lower case."""
        mark = b"\r\n" + name + b":"
        at = self.head.find(mark)
        if at < 0:
            return None
        begin = at + len(mark)
        return self.data[begin : self.head.find(b"\r\n", begin)].strip(b" \t")

    def headers(self) -> dict[bytes, bytes] | None:
        """All headers by lower-case name, the last value of each. None if a line is no header."""
        lines = self.data[len(_LINE) : self.body - 4].split(b"\r\n")
        if b"".join(lines).translate(None, _VALUE_CHARACTERS):
            return None
        headers = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not name or name.translate(None, _NAME_CHARACTERS):
                return None
            headers[name.lower()] = value.strip(b" \t")
        return headers


def parse_plain_request(data: bytes) -> PlainRequest | None:
    """None unless `data` is exactly one complete plain request."""
    if not data.startswith(_LINE):
        return None
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[: end + 2].lower()
    # Headers that change the framing or the connection. Unrolled: a loop would double the cost.
    if b"transfer-encoding" in head or b"\nexpect" in head or b"\nupgrade" in head or b"close" in head:
        return None
    # Two lengths could disagree, which the parser settles.
    if head.count(b"content-length") != 1:
        return None
    length = _LENGTH.search(head)
    if length is None or end + 4 + int(length[1]) != len(data):
        return None
    return PlainRequest(head, data, end + 4)


class FastPath:
    """One request until its response is written. Public attributes are those of uvicorn's cycle."""

    __slots__ = (
        "_body", "_body_received", "_connection", "_headers", "disconnected", "keep_alive", "message_event",
        "response_complete", "response_started",
    )  # fmt: skip

    def __init__(self, connection: ClientConnection, headers: dict[bytes, bytes], body: bytes) -> None:
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
