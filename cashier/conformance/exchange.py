"""One connection to a service, with what production's client hides: framing, reuse, who closes.

The request bytes and the parser of the answers are those of `wire`. No pool, retry or hedge, and
never a request before the answer to the one before it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from cashier.conformance.redaction import described_error, described_request, described_response
from cashier.source_errors import FailureReason, SourceError, TimedOut, Unreachable
from cashier.sources.auth.authenticator import Authenticator
from cashier.wire.address_parser import UpstreamAddress
from cashier.wire.request_writer import RequestWriter, check_request
from cashier.wire.response_parser import ResponseBounds, make_parser
from cashier.wire.transport import CallHeaders, Request, Response

_READ_BYTES = 1 << 16
Result = TypeVar("Result")


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where a service answers. `headers`: added to every request, such as `Authorization`.

    `auth`: completes every request, and judges the answers. `patience_s`: for a connection, and for
    an answer.
    """

    address: UpstreamAddress
    bounds: ResponseBounds
    tls: ssl.SSLContext | None = None
    headers: tuple[tuple[str, str], ...] = ()
    auth: Authenticator | None = None
    patience_s: float = 10.0


class Exchange(Struct, frozen=True):
    """A request and what came. `reused`: of a connection that had an answer before.

    `kept`: another request may follow on the connection. `elapsed_ms`: without the connection.
    `closing`: how the answer announced that its connection ends; None if it did not.
    """

    sent: str
    outcome: Response | SourceError
    elapsed_ms: float
    reused: bool
    kept: bool
    closing: str | None

    @property
    def came(self) -> str:
        outcome = self.outcome
        return described_response(outcome) if isinstance(outcome, Response) else described_error(outcome)


class Connection:
    """Opened by the first exchange. `connect_ms`: how long that took, TLS included."""

    def __init__(self, endpoint: Endpoint, call_headers: CallHeaders) -> None:
        self._endpoint = endpoint
        self._call_headers = call_headers
        self._writer_of_requests = RequestWriter(endpoint.address)
        self._parser = make_parser(endpoint.address.name, endpoint.bounds)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._answers = 0
        self._is_http_1_0 = False
        self.connect_ms = 0.0

    async def exchange(self, request: Request, deadline_ms: int) -> Exchange:
        """Send one request and wait for its answer; `deadline_ms` goes into `X-Deadline-Ms`."""
        request = replace(request, headers=(*self._endpoint.headers, *request.headers))
        check_request(request, self._call_headers)
        sent = described_request(self._endpoint.address.prefix, request, deadline_ms)
        reused, started_s, auth = self._answers > 0, time.perf_counter(), self._endpoint.auth
        try:
            if auth is not None:
                request = auth.authenticate(request)
            reader, writer = await self._opened()
            started_s = time.perf_counter()
            outcome = await self._answer(reader, writer, request, deadline_ms)
        except SourceError as error:
            outcome = error.with_traceback(None)
        elapsed_ms = (time.perf_counter() - started_s) * 1000
        kept = isinstance(outcome, Response) and self._parser.reusable
        self._answers += isinstance(outcome, Response)
        if auth is not None and isinstance(outcome, Response):
            outcome = auth.judge(request, outcome)
        return Exchange(sent, outcome, elapsed_ms, reused, kept, self._closing(outcome))

    async def unasked(self, seconds: float) -> str | None:
        """What comes within `seconds` without a request: `closed`, or a number of bytes."""
        assert self._streams is not None, "nothing was exchanged yet"  # noqa: S101
        try:
            async with asyncio.timeout(seconds):
                data = await self._streams[0].read(_READ_BYTES)
        except TimeoutError:
            return None
        except OSError:
            return "closed"
        return f"{len(data)} bytes" if data else "closed"

    def close(self) -> None:
        """At once: a TLS shutdown waits for the service, beyond the end of the event loop."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    def _closing(self, outcome: Response | SourceError) -> str | None:
        if isinstance(outcome, SourceError):
            return None
        given = outcome.headers.get("connection", "").lower()
        if "close" in given:
            return "Connection: close"
        return "HTTP/1.0" if self._is_http_1_0 and "keep-alive" not in given else None

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            started_s = time.perf_counter()
            self._streams = await self._within("no connection", self._connect, FailureReason.CONNECT_TIMEOUT)
            self.connect_ms = (time.perf_counter() - started_s) * 1000
        return self._streams

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address, tls = self._endpoint.address, self._endpoint.tls
        if address.socket_path is not None:
            return await asyncio.open_unix_connection(address.socket_path)
        name = address.server_name if tls else None
        return await asyncio.open_connection(address.host, address.port, ssl=tls, server_hostname=name)

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request, deadline_ms: int
    ) -> Response | SourceError:
        async def send_and_read() -> Response:
            writer.write(self._writer_of_requests.encode(request, self._call_headers, deadline_ms))
            await writer.drain()
            while True:
                data = await reader.read(_READ_BYTES)
                if not data:
                    when = "within its answer" if self._parser.started else "before an answer"
                    raise Unreachable(f"the connection was closed {when}", reason=FailureReason.RESET)
                self._is_http_1_0 = self._is_http_1_0 or (not self._parser.started and data.startswith(b"HTTP/1.0"))
                response = self._parser.feed(data)
                if response is not None:
                    return response

        return await self._within("no complete answer", send_and_read, FailureReason.TIMEOUT)

    async def _within(self, lack: str, work: Callable[[], Awaitable[Result]], reason: FailureReason) -> Result:
        """The result of `work`. Raises `SourceError`."""
        try:
            async with asyncio.timeout(self._endpoint.patience_s):
                return await work()
        except TimeoutError:
            raise TimedOut(f"{lack} within {self._endpoint.patience_s * 1000:.0f} ms", reason=reason) from None
        except ssl.SSLError as error:
            text = getattr(error, "verify_message", None) or error.reason or type(error).__name__
            raise Unreachable(f"TLS: {text}", reason=FailureReason.TLS) from None
        except ConnectionRefusedError:
            raise Unreachable("nothing listens there", sent=False, reason=FailureReason.REFUSED) from None
        except OSError as error:
            reset = isinstance(error, ConnectionError)
            text = "the connection was reset" if reset else f"no connection: {error.strerror or error}"
            raise Unreachable(text, reason=FailureReason.RESET if reset else FailureReason.UNREACHABLE) from None
