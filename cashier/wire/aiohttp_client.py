"""A client over aiohttp, for proxies and for servers that need a full-featured client.

It costs a task per call and several times the CPU of `http1`. `aiohttp_guards` prevents unwanted
behaviour of aiohttp.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from random import uniform
from time import monotonic
from typing import Annotated, cast
from weakref import WeakSet

import aiohttp
from aiohttp.helpers import get_env_proxy_for_url
from msgspec import Meta, Struct
from yarl import URL

from cashier.source_errors import FailureReason, Garbled, Overloaded, Shed, SourceError, Unreachable, WrongIdentity
from cashier.wire.address_parser import UpstreamAddress, parse_addresses
from cashier.wire.aiohttp_guards import (
    CheckedConnection,
    CheckedRequest,
    CheckedResponse,
    ConnectionLost,
    StaleConnection,
    TCPConnector,
    UnixConnector,
    fail_when_closed,
    not_connected_reason,
    note_connected,
    note_reused,
    report_loss,
)
from cashier.wire.aiohttp_resolver import SharedResolver
from cashier.wire.call_completion import deliver, describe_failure, loss_reason
from cashier.wire.connection_health import RequestIdEcho, SickClosings
from cashier.wire.file_watch import FileWatch
from cashier.wire.load_balancing import BackOff, LatencyEstimate, LoadBalancer
from cashier.wire.request_writer import CALLER, JSON_MEDIA_TYPE, check_request
from cashier.wire.resolver import Resolver, is_literal
from cashier.wire.response_headers import NO_HEADERS, ResponseHeaders
from cashier.wire.response_parser import BODILESS_STATUSES, ResponseBounds, parse_retry_after
from cashier.wire.tls import ClientTls
from cashier.wire.transport import MAX_UNSAFE_IDLE_S, CallHeaders, DiscoveredList, OnResponse, Request, Response

Positive = Annotated[int, Meta(ge=1)]


class AiohttpSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`connections` counts per address, `queue` bounds the waiting calls per source.

    Unsafe requests have as many connections again of their own: see `AiohttpHostPool`. `resolve_s`
    and `max_age_s` as in `Http1Settings`.
    `trust_env`: take proxies and their passwords from the environment.
    """

    connections: Positive = 64
    queue: Positive = 256
    connect_timeout_ms: Positive = 1000
    idle_s: Annotated[float, Meta(gt=0, le=86_400)] = 50.0
    resolve_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    max_age_s: Annotated[float, Meta(ge=1, le=86_400)] = 300.0
    max_head_bytes: Positive = 16384
    max_headers: Positive = 100
    max_body_bytes: Positive = 1 << 20
    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None
    trust_env: bool = False


class NotConnected(Unreachable):
    """Nothing was sent, so another address may be tried."""


class AiohttpCall:
    """A `TransportCall`. `reused`: its connection had answered before. `avoid`: see `Transport`."""

    __slots__ = ("address_index", "avoid", "on_response", "reused", "sent", "task")

    def __init__(self, on_response: OnResponse, avoid: int) -> None:
        self.avoid = avoid
        self.address_index = 0
        self.on_response: OnResponse | None = on_response
        self.task: asyncio.Task[None] | None = None
        self.reused = False
        self.sent = False

    def finish(self, outcome: Response | SourceError) -> None:
        on_response, self.on_response = self.on_response, None
        if on_response is not None:
            deliver(on_response, outcome)

    def abandon(self) -> None:
        if self.on_response is not None:
            self.on_response = None
            if self.task is not None:
                self.task.cancel()


class AgingSession:
    """A session until its connections are too old. `calls`: those that still use it."""

    __slots__ = ("calls", "expires_s", "session")

    def __init__(self, session: aiohttp.ClientSession, max_age_s: float) -> None:
        self.session = session
        self.calls = 0
        # The jitter keeps sessions that were opened together from ending together.
        self.expires_s = monotonic() + max_age_s * uniform(0.8, 1.0)


class AiohttpHostPool:
    """One URL with sessions of its own. All addresses of its name are one: aiohttp chooses.

    Connections to one address must not starve another, and a socket file needs its own connector.
    There are two sessions, because the permitted idle time belongs to a session and is short for
    unsafe requests. aiohttp bounds no connection's age, so a session is replaced as a whole.
    """

    weight = 1.0
    priority = 0

    def __init__(
        self,
        address_index: int,
        address: UpstreamAddress,
        settings: AiohttpSettings,
        tls: ClientTls | None,
        resolver: Resolver,
        *,
        keep_headers: bool,
    ) -> None:
        self.address_index = address_index
        self.address = address
        self.back_off = BackOff()
        self.latency = LatencyEstimate()
        self.load = 0
        self.echo = RequestIdEcho()
        self._sick_closings = SickClosings()
        self._open: WeakSet[CheckedConnection] = WeakSet()
        self._settings = settings
        self._tls = tls
        self._resolver = SharedResolver(resolver, settings.resolve_s, settings.connect_timeout_ms / 1000)
        self._sessions: dict[bool, AgingSession] = {}
        self._expired: set[AgingSession] = set()
        self._bounds = ResponseBounds(
            settings.max_head_bytes, settings.max_headers, settings.max_body_bytes, keep_headers
        )

    def session(self, *, safe: bool = True) -> AgingSession:
        aging = self._sessions.get(safe)
        if aging is None or aging.expires_s <= monotonic():
            if aging is not None:
                self._expired.add(aging)
            idle_s = self._settings.idle_s
            session = self._make_session(idle_s if safe else min(idle_s, MAX_UNSAFE_IDLE_S))
            aging = self._sessions[safe] = AgingSession(session, self._settings.max_age_s)
        return aging

    async def _close_expired(self) -> None:
        for aging in [aging for aging in self._expired if not aging.calls]:
            self._expired.discard(aging)
            await aging.session.close()

    def _make_session(self, idle_s: float) -> aiohttp.ClientSession:
        settings = self._settings
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(note_reused)
        trace.on_connection_create_end.append(note_connected)
        connector = self._connector(idle_s)
        connector._factory = self._make_connection  # type: ignore[assignment]  # aiohttp has no public way
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_ms / 1000),
            auto_decompress=False,
            trust_env=settings.trust_env,
            skip_auto_headers=("User-Agent",),
            max_headers=settings.max_headers,
            max_line_size=settings.max_head_bytes,
            max_field_size=settings.max_head_bytes,
            request_class=CheckedRequest,
            response_class=CheckedResponse,
            middlewares=(report_loss,),
            trace_configs=[trace],
        )

    def _connector(self, idle_s: float) -> aiohttp.BaseConnector:
        limit = self._settings.connections
        if self.address.socket_path is not None:
            return UnixConnector(self.address.socket_path, limit=limit, keepalive_timeout=idle_s)
        return TCPConnector(
            limit=limit,
            keepalive_timeout=idle_s,
            resolver=self._resolver,
            use_dns_cache=False,  # the resolver keeps the addresses
        )

    def _context(self) -> ssl.SSLContext | None:
        return self._tls.context if self._tls is not None and self.address.tls else None

    def _make_connection(self) -> CheckedConnection:
        connection = CheckedConnection(asyncio.get_running_loop())
        self._open.add(connection)
        return connection

    async def is_reachable(self) -> bool:
        """Connect beside aiohttp, which connects only for a request, and close again."""
        address, timeout_s = self.address, self._settings.connect_timeout_ms / 1000
        try:
            async with asyncio.timeout(timeout_s):
                if address.socket_path is not None:
                    _, writer = await asyncio.open_unix_connection(address.socket_path)
                elif proxy := self._proxy():
                    writer = await self._connect(proxy.host or "", proxy.port or 0)
                else:
                    writer = await self._connect(address.host, address.port, self._context())
        except OSError:
            return False
        writer.close()
        return True

    async def _connect(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> asyncio.StreamWriter:
        """To the first address of the name that accepts. Raises OSError."""
        ips = [host] if is_literal(host) else [found["host"] for found in await self._resolver.resolve(host, port)]
        server_name = self.address.server_name if tls else None
        for ip in ips[:-1]:
            with suppress(OSError):
                return (await asyncio.open_connection(ip, port, ssl=tls, server_hostname=server_name))[1]
        return (await asyncio.open_connection(ips[-1], port, ssl=tls, server_hostname=server_name))[1]

    def _proxy(self) -> URL | None:
        if self._settings.trust_env:
            with suppress(LookupError):
                return get_env_proxy_for_url(URL(self.address.origin))[0]
        return None

    async def send(self, request: Request, headers: dict[str, str], call: AiohttpCall) -> Response:
        """Raises SourceError, including NotConnected, StaleConnection and ConnectionLost."""
        name = self.address.name
        url = URL(f"{self.address.origin}{self.address.prefix}{request.target}", encoded=True)
        aging = self.session(safe=request.safe)
        self.load += 1
        aging.calls += 1
        try:
            async with aging.session.request(
                request.method,
                url,
                data=request.body or None,
                headers=headers,
                # A changed certificate is another context, which no older connection serves.
                ssl=self._context() or True,
                allow_redirects=False,
                trace_request_ctx=call,
            ) as response:
                self._check(response)
                body = await self._body(response)
            return self._judged(request, headers, cast("CheckedResponse", response), body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            reason = not_connected_reason(error, tls=self.address.tls)
            raise NotConnected(f"{name}: {describe_failure(error)}", sent=call.sent, reason=reason) from error
        except aiohttp.ClientResponseError as error:
            # Its message may quote the line that could not be parsed.
            raise Garbled(f"{name}: not an HTTP/1.1 answer") from error
        except aiohttp.ClientPayloadError as error:
            raise Unreachable(f"{name}: closed before a complete answer", reason=FailureReason.RESET) from error
        except (aiohttp.ClientError, OSError) as error:
            detail, reason = f"{name}: {describe_failure(error)}", loss_reason(error)
            raise Unreachable(detail, sent=call.sent, reason=reason) from error
        finally:
            self.load -= 1
            aging.calls -= 1
            if self._expired:
                await self._close_expired()

    def _check(self, response: aiohttp.ClientResponse) -> None:
        """Raise Garbled for answers that aiohttp accepts and `response_parser` refuses."""
        name, headers, bounds = self.address.name, response.headers, self._bounds
        encodings = [value.strip().lower() for value in headers.getall("Transfer-Encoding", ())]
        if response.status < 200:
            raise Garbled(f"{name}: status {response.status} instead of an answer")
        if sum(len(key) + len(value) for key, value in response.raw_headers) > bounds.max_head_bytes:
            raise Garbled(f"{name}: more than {bounds.max_head_bytes} bytes outside the body")
        if encodings not in ([], ["chunked"]):
            raise Garbled(f"{name}: a transfer encoding that is not chunked")
        if headers.get("Content-Encoding", "").strip().lower() not in ("", "identity"):
            raise Garbled(f"{name}: a content encoding that was not requested")
        if (response.content_length or 0) > bounds.max_body_bytes:
            raise Garbled(f"{name}: a body of more than {bounds.max_body_bytes} bytes announced")
        if response.content_length is None and not encodings and response.status not in BODILESS_STATUSES:
            raise Garbled(f"{name}: a body that only a closed connection would end")

    def _kept_headers(self, response: aiohttp.ClientResponse) -> ResponseHeaders:
        if not self._bounds.keep_headers:
            return NO_HEADERS
        return ResponseHeaders(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers
        )

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        with fail_when_closed(response, Garbled(f"{self.address.name}: a body with broken framing")):
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > self._bounds.max_body_bytes:
                    raise Garbled(f"{self.address.name}: a body of more than {self._bounds.max_body_bytes} bytes")
        return bytes(body)

    def _judged(self, request: Request, headers: dict[str, str], response: CheckedResponse, body: bytes) -> Response:
        """Record what the answer says about its connection. Raises WrongIdentity."""
        connection = response.answered_by
        assert connection is not None, "an answer without a connection"  # noqa: S101 - aiohttp's contract
        connection.answered = True
        self._check_echo(headers["X-Request-Id"].encode(), response, connection)
        retry_after = response.headers.get("Retry-After")
        if response.status < 500 and response.status != 429:
            connection.health.record_success()
        elif response.status == 429 or (response.status == 503 and retry_after is not None):
            connection.health.suspect = True
        elif connection.health.record_failure(request):
            self._close_sick(connection)
        return Response(
            response.status,
            body,
            None if retry_after is None else parse_retry_after(retry_after.strip().encode()),
            AiohttpAnswerer(self, connection),
            self._kept_headers(response),
        )

    def _check_echo(self, expected: bytes, response: CheckedResponse, connection: CheckedConnection) -> None:
        received = tuple(value.strip().encode() for value in response.headers.getall("X-Request-Id", ()))
        if not received:
            return
        previous, connection.previous_id = connection.previous_id, expected
        connection.echoed += expected in received and expected != previous
        if not self.echo.matches(expected, received, previous, connection.echoed):
            connection.close()
            raise WrongIdentity(f"{self.address.name}: an answer to another request")

    def _close_sick(self, connection: CheckedConnection) -> None:
        if self._sick_closings.allow(len(self._connected()), monotonic()):
            connection.close()

    def discredit(self, connection: CheckedConnection, error: SourceError) -> bool:
        """See `Response.discredit`."""
        if isinstance(error, WrongIdentity):
            connection.close()
        elif isinstance(error, Garbled):
            self._close_sick(connection)
        overloaded = isinstance(error, Overloaded) and not connection.health.failing
        return not overloaded and any(
            other.answered and not other.health.suspect for other in self._connected() if other is not connection
        )

    @property
    def connected(self) -> bool:
        """A connection is open."""
        return any(connection.is_connected() for connection in self._open)

    def _connected(self) -> list[CheckedConnection]:
        return [connection for connection in self._open if connection.is_connected()]

    async def close(self) -> None:
        for aging in (*self._sessions.values(), *self._expired):
            await aging.session.close()
        await self._resolver.close()

    def __repr__(self) -> str:
        return f"<{self.address.name}: {self.load} outstanding>"


class AiohttpAnswerer:
    """An `AnsweringConnection`."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: AiohttpHostPool, connection: CheckedConnection) -> None:
        self._pool = pool
        self._connection = connection

    def discredit(self, error: SourceError) -> bool:
        return self._pool.discredit(self._connection, error)


class AiohttpClient:
    """A `Transport`. ValueError for an invalid address or an unusable file.

    aiohttp cannot open connections ahead, so `open` opens none. `resolver`, `keep_headers` and
    `files`: see `Http1Client`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        settings: AiohttpSettings | None = None,
        resolver: Resolver | None = None,
        *,
        keep_headers: bool = False,
        files: FileWatch | None = None,
    ) -> None:
        self._settings = settings = settings or AiohttpSettings()
        addresses = parse_addresses(urls)
        encrypted = any(address.tls for address in addresses)
        names = (settings.ca_file, settings.client_cert_file, settings.client_key_file)
        tls = ClientTls(*names, files) if encrypted else None
        resolver = resolver or Resolver()
        self._pools = [
            AiohttpHostPool(address_index, address, settings, tls, resolver, keep_headers=keep_headers)
            for address_index, address in enumerate(addresses)
        ]
        self.addresses = tuple(address.name for address in addresses)
        self._balancer = LoadBalancer(self._pools)
        self._calls: dict[asyncio.Task[None], AiohttpCall] = {}
        self._closed = False

    async def open(self) -> None:
        for pool in self._pools:
            pool.session()

    @property
    def connected(self) -> bool | None:
        """See `NetworkTransport`."""
        if any(pool.connected for pool in self._pools):
            return True
        return False if all(pool.back_off.failures for pool in self._pools) else None

    @property
    def endpoints(self) -> int:
        """One per URL: see `AiohttpHostPool`."""
        return len(self._pools)

    def discovered(self) -> DiscoveredList | None:
        """See `NetworkTransport`."""
        return None

    async def is_reachable(self) -> bool:
        return any(await asyncio.gather(*(pool.is_reachable() for pool in self._pools)))

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> AiohttpCall:
        """See `Transport`. ValueError for an invalid request, which is a bug of the caller."""
        check_request(request, call_headers)
        call = AiohttpCall(on_response, avoid)
        refusal = self._refusal()
        if refusal is not None:
            asyncio.get_running_loop().call_soon(call.finish, refusal)
            return call
        pool = self._pick_pool(call)
        call.task = task = asyncio.get_running_loop().create_task(
            self._run(call, pool, request, _headers(request, call_headers, budget_ms))
        )
        self._calls[task] = call
        task.add_done_callback(self._done)
        return call

    def _done(self, task: asyncio.Task[None]) -> None:
        """Raise an error other than `SourceError`, which is a bug, for the loop to report.

        The caller gets an outcome in any case.
        """
        call = self._calls.pop(task)
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            call.finish(Unreachable(f"{self._names()}: {describe_failure(bug)}", sent=call.sent))
            raise bug

    def _refusal(self) -> SourceError | None:
        if self._closed:
            return self._closed_error(sent=False)
        if len(self._calls) >= len(self._pools) * self._settings.connections + self._settings.queue:
            full = f"{self._names()}: {self._settings.queue} calls already wait for a connection"
            return Shed(full, reason=FailureReason.QUEUE_FULL)
        return None

    def _closed_error(self, *, sent: bool) -> Unreachable:
        return Unreachable(f"{self._names()}: closed", sent=sent, reason=FailureReason.CLOSED)

    def _pick_pool(self, call: AiohttpCall) -> AiohttpHostPool:
        pool = self._balancer.pick(monotonic(), call.avoid)
        call.address_index = pool.address_index
        return pool

    async def _run(self, call: AiohttpCall, pool: AiohttpHostPool, request: Request, headers: dict[str, str]) -> None:
        try:
            outcome: Response | SourceError = await self._send(call, pool, request, headers)
        except SourceError as error:
            outcome = error
        call.finish(outcome)

    async def _send(
        self, call: AiohttpCall, pool: AiohttpHostPool, request: Request, headers: dict[str, str]
    ) -> Response:
        attempts, retried = 0, False
        while True:
            call.reused = False
            started_s = monotonic()
            try:
                response = await pool.send(request, headers, call)
            except asyncio.CancelledError:
                pool.latency.record_at_least(monotonic() - started_s, monotonic())
                raise
            except NotConnected:
                pool.back_off.record_failure(monotonic())
                attempts += 1
                if attempts >= len(self._pools):
                    raise
            except StaleConnection as error:
                call.sent = retried
                # Of the reused ones, the next is tried until none is left; a new one broke as soon
                # as it was open.
                if not call.reused:
                    raise Unreachable(error.detail, sent=retried, reason=FailureReason.RESET) from error
            except ConnectionLost:
                if retried or not call.reused or not request.safe:
                    self._record(pool, started_s, failed=True)
                    raise
                attempts, retried = 0, True
                if request.renew is not None:
                    request = request.renew()
                    headers |= request.headers
            except SourceError:
                self._record(pool, started_s, failed=True)
                raise
            else:
                pool.back_off.record_success()
                self._record(pool, started_s, failed=response.status >= 500 or response.status == 429)
                return response
            pool = self._pick_pool(call)

    def _record(self, pool: AiohttpHostPool, started_s: float, *, failed: bool) -> None:
        now_s = monotonic()
        self._balancer.record(pool, now_s - started_s, now_s, failed=failed)

    async def close(self) -> None:
        self._closed = True
        tasks, calls = list(self._calls), list(self._calls.values())
        for task, call in zip(tasks, calls, strict=True):
            task.cancel()
            call.finish(self._closed_error(sent=call.sent))
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in self._pools:
            await pool.close()

    def _names(self) -> str:
        return ", ".join(self.addresses)

    def __repr__(self) -> str:
        return f"<AiohttpClient {' '.join(map(repr, self._pools))}>"


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
        if call_headers.tracestate:
            headers["tracestate"] = call_headers.tracestate
    if request.body or request.method not in ("GET", "DELETE"):
        headers["Content-Type"] = JSON_MEDIA_TYPE
    for name, _ in request.headers:
        headers.pop(name.title(), None)  # a default that the request replaces
    headers.update(request.headers)
    return headers
