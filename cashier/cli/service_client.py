"""Client of a running service and its sandbox, for the command line."""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import orjson
from aiohttp.http_exceptions import LineTooLong

from cashier.cli.listening import host_and_port
from cashier.sandbox.weather_parser import parse_source

# Longer than the longest long poll.
_TIMEOUT = aiohttp.ClientTimeout(total=70)
_JSON = {"Content-Type": "application/json"}
_LONGEST_LINE_BYTES = 2**20
# The commands that start what a request needs.
_SERVICE = "cashier serve"
_SANDBOX = "cashier sandbox"
_PAYMENTS = "/v1/payments"


class RequestFailed(Exception):
    """No usable response. The text is for the user of the command line."""


async def consult(url: str, request: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """The JSON of the response and its duration in ms. Raises `RequestFailed`."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        start_s = time.perf_counter()
        body = await _exchange(session, "POST", url, "/v1/consult", request, _SERVICE)
        return _json(body, url), (time.perf_counter() - start_s) * 1000


async def why(url: str, question: dict[str, Any], token: str | None) -> dict[str, Any]:
    """An explanation, or a problem. `token`: of an operator. Raises `RequestFailed`."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        return _json(await _exchange(session, "POST", url, "/v1/why", question, _SERVICE, token), url)


class StreamEvent(NamedTuple):
    """An event of a stream: `answer`, `end` or `error`; `problem` where there is no stream.

    `after_ms`: since the request was sent.
    """

    name: str
    body: dict[str, Any]
    after_ms: float


async def stream(url: str, request: dict[str, Any]) -> AsyncGenerator[StreamEvent, None]:
    """A consultation as server-sent events. Raises `RequestFailed`."""
    headers = {**_JSON, "Accept": "text/event-stream"}
    endpoint = endpoint_address(url, "/v1/consult")
    start_s, name = time.perf_counter(), ""
    with transport_errors(url, _SERVICE):
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, read_bufsize=_LONGEST_LINE_BYTES) as session,
            session.post(endpoint, data=_encode(request), headers=headers) as response,
        ):
            if response.content_type != "text/event-stream":
                body = _json(await response.read(), url)
                yield StreamEvent("problem", body, (time.perf_counter() - start_s) * 1000)
                return
            async for line in response.content:
                field, _, value = line.decode("utf-8", "replace").strip().partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield StreamEvent(name, _json(value.encode(), url), (time.perf_counter() - start_s) * 1000)


class ServiceReply(NamedTuple):
    """A response about a payment, maybe a problem. `retry_after_s`: its `Retry-After`."""

    status: int
    body: dict[str, Any]
    took_ms: float
    retry_after_s: float | None = None


class PaymentsClient:
    """The payment endpoints of a service. Each call may raise `RequestFailed`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def submit(self, request: dict[str, Any], idempotency_key: str) -> ServiceReply:
        return await self._send("POST", _PAYMENTS, request, {"Idempotency-Key": idempotency_key})

    async def answer_challenge(self, payment_id: str, token: str, value: str) -> ServiceReply:
        return await self._send(
            "POST", f"{_PAYMENTS}/{payment_id}/challenge", {"payment_token": token, "value": value}, {}
        )

    async def status(self, payment_id: str, token: str, wait_ms: int = 0) -> ServiceReply:
        """The payment when it changes, or after `wait_ms`."""
        return await self._send("GET", f"{_PAYMENTS}/{payment_id}?wait_ms={wait_ms}", None, {"X-Payment-Token": token})

    async def find(self, order: dict[str, str]) -> ServiceReply:
        """The live or last payment of an order. `order`: its id, merchant, user and locale."""
        with transport_errors(self._url, _SERVICE):
            query = urlencode({name: value for name, value in order.items() if name != "order_id"})
            path = f"/v1/orders/{quote(order['order_id'], safe='')}/payment?{query}"
        return await self._send("GET", path, None, {})

    async def take_over(self, payment_id: str, action: str, request: dict[str, Any]) -> ServiceReply:
        """`action`: resume or replace."""
        return await self._send("POST", f"{_PAYMENTS}/{payment_id}/{action}", request, {})

    async def cancel(self, payment_id: str, token: str) -> ServiceReply:
        return await self._send("POST", f"{_PAYMENTS}/{payment_id}/cancel", {"payment_token": token}, {})

    async def _send(
        self, method: str, path: str, request: dict[str, Any] | None, headers: dict[str, str]
    ) -> ServiceReply:
        url = endpoint_address(self._url, path)
        data = _encode(request)
        headers = (_JSON if data else {}) | headers
        start_s = time.perf_counter()
        with transport_errors(self._url, _SERVICE):
            async with self._session.request(method, url, data=data, headers=headers) as response:
                body = _json(await response.read(), self._url)
                retry_after = response.headers.get("Retry-After", "")
        took_ms = (time.perf_counter() - start_s) * 1000
        return ServiceReply(response.status, body, took_ms, float(retry_after) if retry_after.isdecimal() else None)


@asynccontextmanager
async def payments_client(url: str) -> AsyncIterator[PaymentsClient]:
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        yield PaymentsClient(session, url)


async def queue_fault(url: str, source: str, fault: str, call: str | None) -> dict[str, Any]:
    """Add a fault for the next call of a sandbox's source, or its next call named `call`."""
    profile = dict((await get_json(url, "/weather")).get(source) or {})
    queued = {"fault": fault} | ({"on": call} if call else {})
    return await change_weather(url, source, profile | {"next": [*profile.get("next", ()), queued]})


async def get_json(url: str, path: str) -> dict[str, Any]:
    """A document of a sandbox's own paths. Raises `RequestFailed`."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        return _json(await _exchange(session, "GET", url, path, None, _SANDBOX), url)


async def source_weather(url: str, source: str) -> dict[str, Any]:
    """The present profile by its source. Raises `RequestFailed`, and `BadWeather` if unknown."""
    weather = await get_json(url, "/weather")
    return weather if "code" in weather else {source: weather[parse_source(source)]}


async def settle(url: str, payment_id: str) -> dict[str, Any]:
    """Let the sandbox's payer pay at the wallet, bank or counter. Raises `RequestFailed`."""
    path = f"/payments/{payment_id}/settle"
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        return _json(await _exchange(session, "POST", url, path, {"result": "SUCCEEDED"}, _SANDBOX), url)


async def change_weather(url: str, source: str | None, profile: dict[str, Any] | None) -> dict[str, Any]:
    """Set the weather of a sandbox's source. Without `profile` restore it, without `source`
    restore all.

    Raises `RequestFailed`.
    """
    method, path = "PUT" if profile is not None else "DELETE", "/weather" + (f"/{source}" if source else "")
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        return _json(await _exchange(session, method, url, path, profile, _SANDBOX), url)


async def _exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    path: str,
    request: dict[str, Any] | None,
    server: str,
    token: str | None = None,
) -> bytes:
    """The response's bytes. `server`: the command that starts what answers at `url`."""
    data, headers = _encode(request), _JSON | ({"Authorization": f"Bearer {token}"} if token else {})
    with transport_errors(url, server):
        async with session.request(method, endpoint_address(url, path), data=data, headers=headers) as response:
            return await response.read()


def endpoint_address(url: str, path: str) -> str:
    """Raises `RequestFailed` where `url` is no address of a server."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not (parts.hostname or "").encode("idna") or parts.port == 0:
            raise ValueError
    except ValueError:
        raise RequestFailed(f"{url} is not an address; an example is http://127.0.0.1:8080") from None
    return url.rstrip("/") + path


@contextmanager
def transport_errors(url: str, server: str) -> Iterator[None]:
    """Raise `RequestFailed` in their place. `server`: the command that starts what answers."""
    try:
        yield
    except (aiohttp.InvalidUrlRedirectClientError, aiohttp.NonHttpUrlRedirectClientError, aiohttp.TooManyRedirects):
        # First, because most of these are an InvalidURL too, and that a ClientError.
        raise RequestFailed(f"no answer from {url}: it redirects to no address") from None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        raise RequestFailed(f"{url} is not an address; an example is http://127.0.0.1:8080") from None
    except aiohttp.ClientConnectorError as error:
        if error.os_error.errno == errno.ECONNREFUSED:
            at = host_and_port(error.host, error.port or 80)
            raise RequestFailed(f"nothing listens on {at}; start it with `{server}`") from None
        raise RequestFailed(f"no answer from {url}: {error.strerror or 'no connection'}") from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RequestFailed(f"no answer from {url}: {error or type(error).__name__}") from None
    except LineTooLong:
        raise RequestFailed(f"unexpected response from {url}: a line is too long") from None
    except ValueError:  # without its text, which may have a token
        raise RequestFailed("a token or id cannot be sent: it has a line break or another odd character") from None


def _encode(request: dict[str, Any] | None) -> bytes | None:
    try:
        return None if request is None else orjson.dumps(request)
    except orjson.JSONEncodeError as error:
        raise RequestFailed(f"the request is no JSON: {error}") from None


def _json(body: bytes, url: str) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise RequestFailed(f"unexpected response from {url}: {body[:60]!r}")
    return document
