"""Calls an ASGI application without a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette.types import ASGIApp, Message

from tests.web.fake_service import BODY

JSON = {"content-type": "application/json"}


class CapturedResponse:
    """The messages that the application sent. `status` is None if it sent none."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            assert self.status is None, "a response starts once"
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            assert len(self.headers) == len(message["headers"]), "no header twice"
        else:
            assert not self.ended, "a response ends once"
            self.body += message.get("body", b"")
            self.ended = not message.get("more_body", False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def problem(self) -> tuple[int | None, str]:
        assert self.headers["content-type"] == "application/problem+json"
        assert self.json["status"] == self.status
        assert self.json["type"] == f"urn:cashier:problem:{self.json['code']}"
        return self.status, self.json["code"]


class IncomingMessages:
    """The ASGI `receive` of a client: the messages in order, then nothing until `disconnect`."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self.received = 0
        for message in messages:
            self._messages.put_nowait(message)

    def put(self, message: Message) -> None:
        self._messages.put_nowait(message)

    def disconnect(self) -> None:
        self.put({"type": "http.disconnect"})

    async def receive(self) -> Message:
        message = await self._messages.get()
        self.received += 1
        return message


class PendingRequest:
    """A request in a task of its own; the test controls its messages and its reading.

    Clear `reads` to read nothing more; `blocked` is set when the application waits for that.
    """

    def __init__(
        self, application: ASGIApp, request_scope: Mapping[str, Any], body: bytes, *, more: bool = False
    ) -> None:
        self.incoming = IncomingMessages([request(body, more=more)])
        self.response = CapturedResponse()
        self.reads = asyncio.Event()
        self.reads.set()
        self.blocked = asyncio.Event()
        self._sent = asyncio.Event()
        self.task = asyncio.ensure_future(application(dict(request_scope), self.incoming.receive, self._send))

    async def finished(self) -> None:
        """Wait for the end, at most 30 s of virtual time."""
        await asyncio.wait_for(self.task, 30)

    async def wait_for(self, reached: Callable[[bytes], bool]) -> bytes:
        """Wait until the received body meets a condition, at most 30 s of virtual time."""
        async with asyncio.timeout(30):
            while not reached(self.response.body):
                self._sent.clear()
                await self._sent.wait()
        return self.response.body

    async def _send(self, message: Message) -> None:
        if not self.reads.is_set():
            self.blocked.set()
            await self.reads.wait()
        await self.response.send(message)
        self._sent.set()


def request(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def scope(
    method: str, path: str, headers: Mapping[str, str], root_path: str = "", query: bytes = b""
) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": root_path,
        "query_string": query,
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }


async def call(
    application: ASGIApp,
    body: bytes = BODY,
    *,
    headers: Mapping[str, str] = JSON,
    method: str = "POST",
    path: str = "/v1/consult",
    root_path: str = "",
    query: bytes = b"",
    extra_header: tuple[str, str] | None = None,
) -> CapturedResponse:
    """`extra_header`: an additional header, which may have the name of another."""
    response = CapturedResponse()
    request_scope = scope(method, path, headers, root_path, query)
    if extra_header is not None:
        name, value = extra_header
        request_scope["headers"].append((name.lower().encode(), value.encode("latin-1")))
    await application(request_scope, IncomingMessages([request(body)]).receive, response.send)
    return response
