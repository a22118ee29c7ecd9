"""A small client of a running service and of its sandbox, for the command line. A checkout would use its own."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
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


async def change_weather(url: str, source: str | None, forecast: dict[str, Any] | None) -> dict[str, Any]:
    """Change one source's weather in a sandbox; without a `forecast` restore it, or all without a `source`. Raises `NoAnswer`."""
    path = f"{url.rstrip('/')}/weather" + (f"/{source}" if source else "")
    async with aiohttp.ClientSession(timeout=_PATIENCE) as session:
        return _json(await _exchange(session, "PUT" if forecast is not None else "DELETE", path, forecast), url)


async def _exchange(session: aiohttp.ClientSession, method: str, url: str, told: dict[str, Any] | None) -> bytes:
    with _reaching(url):
        async with session.request(method, url, data=None if told is None else msgspec.json.encode(told), headers=_JSON) as response:
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
