"""A small client of a running service and of its sandbox, for the command line. A checkout would use its own."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import aiohttp
import msgspec

_PATIENCE = aiohttp.ClientTimeout(total=70)
_JSON = {"Content-Type": "application/json"}
_LONGEST_LINE_BYTES = 2**20


class NoAnswer(Exception):
    """Nobody answered there. The text is for whoever typed the command."""


async def consult(url: str, request: dict[str, Any]) -> tuple[dict[str, Any], float, bytes]:
    """The answer to a consultation, whatever its status; how long it took in ms; and the bytes it came as. Raises `NoAnswer`."""
    async with aiohttp.ClientSession(timeout=_PATIENCE) as session:
        began = time.perf_counter()
        body = await _exchange(session, "POST", f"{url.rstrip('/')}/v1/consult", request)
        return _json(body, url), (time.perf_counter() - began) * 1000, body


class Event(NamedTuple):
    """One event of a stream: `answer`, `end` or `error`; or `problem`, where there was no stream. `after_ms`: since it was asked for."""

    name: str
    told: dict[str, Any]
    after_ms: float


async def stream(url: str, request: dict[str, Any]) -> AsyncGenerator[Event, None]:
    """A consultation as it unfolds. Raises `NoAnswer`."""
    headers = {**_JSON, "Accept": "text/event-stream"}
    path = f"{url.rstrip('/')}/v1/consult"
    began, name = time.perf_counter(), ""
    with _reaching(path):
        async with (
            aiohttp.ClientSession(timeout=_PATIENCE, read_bufsize=_LONGEST_LINE_BYTES) as session,
            session.post(path, data=msgspec.json.encode(request), headers=headers) as response,
        ):
            if response.content_type != "text/event-stream":
                yield Event("problem", _json(await response.read(), url), (time.perf_counter() - began) * 1000)
                return
            async for line in response.content:
                field, _, value = line.decode().strip().partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield Event(name, _json(value.encode(), url), (time.perf_counter() - began) * 1000)


class Told(NamedTuple):
    """What was said of a payment, a problem too: the HTTP status, the body, how long it took, and when it says to ask again."""

    status: int
    body: dict[str, Any]
    took_ms: float
    retry_after_s: float | None = None


class Payments:
    """The payments of a service. Every call answers whatever the status was, and raises `NoAnswer`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/v1/payments"

    async def submit(self, request: dict[str, Any], idempotency_key: str) -> Told:
        return await self._tell("POST", "", request, {"Idempotency-Key": idempotency_key})

    async def prove(self, payment_id: str, token: str, value: str) -> Told:
        """Answer a challenge."""
        return await self._tell("POST", f"/{payment_id}/challenge", {"payment_token": token, "value": value}, {})

    async def look(self, payment_id: str, token: str, wait_ms: int = 0) -> Told:
        """How it stands, as soon as it shows something else, or after `wait_ms`."""
        return await self._tell("GET", f"/{payment_id}?wait_ms={wait_ms}", None, {"X-Payment-Token": token})

    async def cancel(self, payment_id: str, token: str) -> Told:
        return await self._tell("POST", f"/{payment_id}/cancel", {"payment_token": token}, {})

    async def _tell(self, method: str, path: str, told: dict[str, Any] | None, headers: dict[str, str]) -> Told:
        url, body = f"{self._url}{path}", None if told is None else msgspec.json.encode(told)
        began = time.perf_counter()
        with _reaching(self._url):
            async with self._session.request(
                method, url, data=body, headers=(_JSON if body else {}) | headers
            ) as response:
                answer = _json(await response.read(), self._url)
                after = response.headers.get("Retry-After", "")
        return Told(
            response.status, answer, (time.perf_counter() - began) * 1000, float(after) if after.isdecimal() else None
        )


@asynccontextmanager
async def payments(url: str) -> AsyncIterator[Payments]:
    async with aiohttp.ClientSession(timeout=_PATIENCE) as session:
        yield Payments(session, url)


async def befall_next(url: str, source: str, fault: str, call: str | None) -> dict[str, Any]:
    """One fault more that waits for the next call of a source, or for its next of that name. What else its weather is stays so."""
    forecast = dict((await read(url, "/weather")).get(source) or {})
    waits = {"fault": fault} | ({"on": call} if call else {})
    return await change_weather(url, source, forecast | {"next": [*forecast.get("next", ()), waits]})


async def read(url: str, path: str) -> dict[str, Any]:
    """What a sandbox shows under one of its own paths. Raises `NoAnswer`."""
    async with aiohttp.ClientSession(timeout=_PATIENCE) as session:
        return _json(await _exchange(session, "GET", url.rstrip("/") + path, None), url)


async def settle(url: str, payment_id: str) -> dict[str, Any]:
    """At a sandbox: the payer does what they were sent elsewhere for, and pays. Raises `NoAnswer`."""
    async with aiohttp.ClientSession(timeout=_PATIENCE) as session:
        return _json(
            await _exchange(
                session, "POST", f"{url.rstrip('/')}/payments/{payment_id}/settle", {"result": "SUCCEEDED"}
            ),
            url,
        )


async def change_weather(url: str, source: str | None, forecast: dict[str, Any] | None) -> dict[str, Any]:
    """Change one source's weather in a sandbox; without a `forecast` restore it, or all without a `source`. Raises `NoAnswer`."""
    path = f"{url.rstrip('/')}/weather" + (f"/{source}" if source else "")
    async with aiohttp.ClientSession(timeout=_PATIENCE) as session:
        return _json(await _exchange(session, "PUT" if forecast is not None else "DELETE", path, forecast), url)


async def _exchange(session: aiohttp.ClientSession, method: str, url: str, told: dict[str, Any] | None) -> bytes:
    with _reaching(url):
        async with session.request(
            method, url, data=None if told is None else msgspec.json.encode(told), headers=_JSON
        ) as response:
            return await response.read()


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    try:
        yield
    except aiohttp.ClientConnectorError as fault:
        raise NoAnswer(f"no answer from {url}: {fault.strerror or 'no connection'}") from None
    except (aiohttp.ClientError, TimeoutError) as fault:
        raise NoAnswer(f"no answer from {url}: {fault or type(fault).__name__}") from None
    except ValueError:
        raise NoAnswer(f"{url} is not an address; http://127.0.0.1:8080 would be one") from None


def _json(body: bytes, url: str) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(body)
    except msgspec.DecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise NoAnswer(f"what answers at {url} is not what was asked for: {body[:60]!r}")
    return answer
