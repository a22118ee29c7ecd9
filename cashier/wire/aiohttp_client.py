"""The same wire over aiohttp: for proxies and for servers that only a big client gets along with. Costs a task and several times the CPU.

What aiohttp does by itself and must not is in `aiohttp_guards`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from time import monotonic
from typing import Annotated

import aiohttp
from msgspec import Meta, Struct
from yarl import URL

from cashier.source_errors import Garbled, Shed, SourceError, Unreachable
from cashier.wire.addresses import UpstreamAddress, parse_addresses
from cashier.wire.aiohttp_guards import (
    CheckedRequest,
    ConnectionLost,
    StaleConnection,
    fail_when_closed,
    note_connected,
    note_reused,
    report_loss,
)
from cashier.wire.delivery import deliver, describe_failure
from cashier.wire.load_balancing import BackOff, LoadBalancer
from cashier.wire.request_writer import CALLER, JSON_MEDIA_TYPE, check_request
from cashier.wire.response_parser import BODILESS_STATUSES, ResponseBounds, parse_retry_after
from cashier.wire.tls import client_tls
from cashier.wire.transport import MAX_UNSAFE_IDLE_S, CallHeaders, OnResponse, Request, Response

Positive = Annotated[int, Meta(ge=1)]


class AiohttpSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`connections` counts per address, `queue` per source. `trust_env`: take proxies and their passwords from the environment.

    What is not safe has as many connections again, for itself: see `AiohttpHostPool`.
    """

    connections: Positive = 64
    queue: Positive = 256
    connect_timeout_ms: Positive = 1000
    idle_s: Annotated[float, Meta(gt=0)] = 50.0
    max_head_bytes: Positive = 16384
    max_headers: Positive = 100
    max_body_bytes: Positive = 1 << 20
    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None
    trust_env: bool = False


class NotConnected(Unreachable):
    """Nothing was sent: another address may be tried."""


class AiohttpCall:
    """A request under way. `kept`: it went out on a connection that had answered before. The others as in `Transport` and `Exchange`."""

    __slots__ = ("avoid", "kept", "place", "reply", "sent", "task")

    def __init__(self, reply: OnResponse, avoid: int) -> None:
        self.avoid = avoid
        self.place = 0
        self.reply: OnResponse | None = reply
        self.task: asyncio.Task[None] | None = None
        self.kept = False
        self.sent = False

    def finish(self, outcome: Response | SourceError) -> None:
        reply, self.reply = self.reply, None
        if reply is not None:
            deliver(reply, outcome)

    def abandon(self) -> None:
        if self.reply is not None:
            self.reply = None
            if self.task is not None:
                self.task.cancel()


class AiohttpHostPool:
    """One address with sessions of its own: connections to one must not starve another, and a socket file needs its own connector.

    There are two, because how long a connection may have been idle is a session's to say: not long for what is not safe.
    """

    def __init__(
        self, place: int, address: UpstreamAddress, settings: AiohttpSettings, tls: ssl.SSLContext | None
    ) -> None:
        self.place = place
        self.address = address
        self.back_off = BackOff()
        self.load = 0
        self._settings = settings
        self._tls = tls
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._bounds = ResponseBounds(settings.max_head_bytes, settings.max_headers, settings.max_body_bytes)

    def session(self, *, safe: bool = True) -> aiohttp.ClientSession:
        if safe not in self._sessions:
            idle_s = self._settings.idle_s
            self._sessions[safe] = self._make_session(idle_s if safe else min(idle_s, MAX_UNSAFE_IDLE_S))
        return self._sessions[safe]

    def _make_session(self, idle_s: float) -> aiohttp.ClientSession:
        settings = self._settings
        connected = aiohttp.TraceConfig()
        connected.on_connection_reuseconn.append(note_reused)
        connected.on_connection_create_end.append(note_connected)
        return aiohttp.ClientSession(
            connector=self._connector(idle_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_ms / 1000),
            auto_decompress=False,
            trust_env=settings.trust_env,
            skip_auto_headers=("User-Agent",),
            max_headers=settings.max_headers,
            max_line_size=settings.max_head_bytes,
            max_field_size=settings.max_head_bytes,
            request_class=CheckedRequest,
            middlewares=(report_loss,),
            trace_configs=[connected],
        )

    def _connector(self, idle_s: float) -> aiohttp.BaseConnector:
        limit = self._settings.connections
        if self.address.socket_path is not None:
            return aiohttp.UnixConnector(self.address.socket_path, limit=limit, keepalive_timeout=idle_s)
        return aiohttp.TCPConnector(limit=limit, keepalive_timeout=idle_s, ssl=self._tls or True)

    async def ask(self, request: Request, headers: dict[str, str], call: AiohttpCall) -> Response:
        """Raises SourceError; NotConnected and Lost among them."""
        name = self.address.name
        url = URL(f"{self.address.origin}{self.address.prefix}{request.target}", encoded=True)
        self.load += 1
        try:
            async with self.session(safe=request.safe).request(
                request.method,
                url,
                data=request.body or None,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=call,
            ) as answer:
                self._check(answer)
                return Response(
                    answer.status,
                    await self._body(answer),
                    parse_retry_after(answer.headers.get("Retry-After", "").strip().encode()),
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotConnected(f"{name}: {describe_failure(error)}", sent=call.sent) from error
        except aiohttp.ClientResponseError as error:
            # Its message may quote the line that it could not read.
            raise Garbled(f"{name}: not an answer in HTTP/1.1") from error
        except aiohttp.ClientPayloadError as error:
            raise Unreachable(f"{name}: closed before a whole answer") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{name}: {describe_failure(error)}", sent=call.sent) from error
        finally:
            self.load -= 1

    def _check(self, answer: aiohttp.ClientResponse) -> None:
        """The same verdicts as in `framing`, on what aiohttp lets pass."""
        name, headers, bounds = self.address.name, answer.headers, self._bounds
        encodings = [value.strip().lower() for value in headers.getall("Transfer-Encoding", ())]
        if answer.status < 200:
            raise Garbled(f"{name}: status {answer.status} in the place of an answer")
        if sum(len(key) + len(value) for key, value in answer.raw_headers) > bounds.max_head_bytes:
            raise Garbled(f"{name}: more than {bounds.max_head_bytes} bytes around the body")
        if encodings not in ([], ["chunked"]):
            raise Garbled(f"{name}: a transfer encoding that is not chunked")
        if headers.get("Content-Encoding", "").strip().lower() not in ("", "identity"):
            raise Garbled(f"{name}: a content encoding that was not accepted")
        if (answer.content_length or 0) > bounds.max_body_bytes:
            raise Garbled(f"{name}: a body of more than {bounds.max_body_bytes} bytes announced")
        if answer.content_length is None and not encodings and answer.status not in BODILESS_STATUSES:
            raise Garbled(f"{name}: a body whose end cannot be told from a broken connection")

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        with fail_when_closed(answer, Garbled(f"{self.address.name}: a body in no known framing")):
            async for part in answer.content.iter_any():
                body += part
                if len(body) > self._bounds.max_body_bytes:
                    raise Garbled(f"{self.address.name}: a body of more than {self._bounds.max_body_bytes} bytes")
        return bytes(body)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def __repr__(self) -> str:
        return f"<{self.address.name}: {self.load} outstanding>"


class AiohttpClient:
    """The transport. ValueError for an address or a file that is not understood. aiohttp opens no connection ahead, so `open` does not."""

    def __init__(self, urls: Sequence[str], settings: AiohttpSettings | None = None) -> None:
        self._settings = settings = settings or AiohttpSettings()
        addresses = parse_addresses(urls)
        encrypted = any(address.tls for address in addresses)
        tls = client_tls(settings.ca_file, settings.client_cert_file, settings.client_key_file) if encrypted else None
        self._lanes = [AiohttpHostPool(place, address, settings, tls) for place, address in enumerate(addresses)]
        self.places = tuple(address.name for address in addresses)
        self._choice = LoadBalancer(self._lanes)
        self._calls: dict[asyncio.Task[None], AiohttpCall] = {}
        self._closed = False

    async def open(self) -> None:
        for lane in self._lanes:
            lane.session()

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, reply: OnResponse, avoid: int = 0
    ) -> AiohttpCall:
        """See `Transport`. ValueError for a request that could not be one on the wire: a bug of who made it."""
        check_request(request, call_headers)
        call = AiohttpCall(reply, avoid)
        refusal = self._refusal()
        if refusal is not None:
            asyncio.get_running_loop().call_soon(call.finish, refusal)
            return call
        lane = self._next_lane(call)
        call.task = task = asyncio.get_running_loop().create_task(
            self._run(call, lane, request, _headers(request, call_headers, budget_ms))
        )
        self._calls[task] = call
        task.add_done_callback(self._over)
        return call

    def _over(self, task: asyncio.Task[None]) -> None:
        """Raises what is no `SourceError`, for the loop to report: a bug, of which the caller hears all the same."""
        call = self._calls.pop(task)
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            call.finish(Unreachable(f"{self._names()}: {describe_failure(bug)}", sent=call.sent))
            raise bug

    def _refusal(self) -> SourceError | None:
        if self._closed:
            return Unreachable(f"{self._names()}: closed", sent=False)
        if len(self._calls) >= len(self._lanes) * self._settings.connections + self._settings.queue:
            return Shed(f"{self._names()}: {self._settings.queue} calls wait for a connection already")
        return None

    def _next_lane(self, call: AiohttpCall) -> AiohttpHostPool:
        lane = self._choice.next(monotonic(), call.avoid)
        call.place = lane.place
        return lane

    async def _run(self, call: AiohttpCall, lane: AiohttpHostPool, request: Request, headers: dict[str, str]) -> None:
        try:
            outcome: Response | SourceError = await self._answer(call, lane, request, headers)
        except SourceError as error:
            outcome = error
        call.finish(outcome)

    async def _answer(
        self, call: AiohttpCall, lane: AiohttpHostPool, request: Request, headers: dict[str, str]
    ) -> Response:
        attempts, retried = 0, False
        while True:
            call.kept = False
            try:
                answer = await lane.ask(request, headers, call)
            except NotConnected:
                lane.back_off.failed(monotonic())
                attempts += 1
                if attempts >= len(self._lanes):
                    raise
            except StaleConnection as error:
                call.sent = retried
                if not call.kept:  # broken as soon as it was open; of kept ones the next is tried, until none is left
                    raise Unreachable(error.detail, sent=retried) from error
            except ConnectionLost:
                if retried or not call.kept or not request.safe:
                    raise
                attempts, retried = 0, True
            else:
                lane.back_off.worked()
                return answer
            lane = self._next_lane(call)

    async def close(self) -> None:
        self._closed = True
        tasks, calls = list(self._calls), list(self._calls.values())
        for task, call in zip(tasks, calls, strict=True):
            task.cancel()
            call.finish(Unreachable(f"{self._names()}: closed", sent=call.sent))
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self._lanes:
            await lane.close()

    def _names(self) -> str:
        return ", ".join(self.places)

    def __repr__(self) -> str:
        return f"<ViaAiohttp {' '.join(map(repr, self._lanes))}>"


def _headers(request: Request, call_headers: CallHeaders, budget_ms: int) -> dict[str, str]:
    headers = {
        "X-Caller": CALLER,
        "Accept": JSON_MEDIA_TYPE,
        "Accept-Encoding": "identity",
        "X-Request-Id": call_headers.request_id,
        "X-Deadline-Ms": str(budget_ms),
    }
    if call_headers.traceparent:
        headers["traceparent"] = call_headers.traceparent
    if request.body or request.method not in ("GET", "DELETE"):
        headers["Content-Type"] = JSON_MEDIA_TYPE
    headers.update(request.headers)
    return headers
