"""Applies the drawn conditions of a call to its HTTP answer.

The runner must cancel the handlers of disconnected clients (`handler_cancellation`); otherwise a
hang outlives its client.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from aiohttp import web

from cashier.sandbox.source_table import SOURCES
from cashier.sandbox.upstream_answer import UpstreamAnswer, error_answer
from cashier.sandbox.weather import (
    RETRY_AFTER_S,
    SLOW_BODY_PAUSE_S,
    SLOW_BODY_PIECES,
    CallConditions,
    Fault,
    PaymentFault,
)

_JSON = "application/json"
_ERROR = error_answer(500, "INTERNAL")
_OVERLOAD = error_answer(503, "OVERLOADED")
# Closing with a zero linger time drops unsent bytes and resets the connection (socket(7)).
_NO_LINGER = struct.pack("ii", 1, 0)


def json_response(answer: UpstreamAnswer) -> web.Response:
    """The answer without any fault."""
    return web.Response(body=answer.encoded, status=answer.status, content_type=_JSON)


def refusal_response(fault: Fault | PaymentFault) -> web.Response:
    """The response of ERROR or OVERLOAD."""
    if fault is Fault.ERROR:
        return json_response(_ERROR)
    return web.Response(
        body=_OVERLOAD.encoded, status=503, content_type=_JSON, headers={"Retry-After": str(RETRY_AFTER_S)}
    )


async def respond_without_answer(
    request: web.Request, fault: Fault | PaymentFault, closing: asyncio.Event
) -> web.StreamResponse:
    """Respond to a request that has no answer: an error, silence, or a closed connection."""
    match fault:
        case Fault.ERROR | Fault.OVERLOAD:
            return refusal_response(fault)
        case Fault.HANG:
            await closing.wait()
        case _:
            _reset_on_close(request)
    return _abort(request)


async def deliver(
    request: web.Request, source: str, answer: UpstreamAnswer, conditions: CallConditions, closing: asyncio.Event
) -> web.StreamResponse:
    """Send the answer under the drawn fault. `closing` ends all waits when the server stops."""
    match conditions.fault:
        case Fault.HANG | Fault.RESET:
            return await respond_without_answer(request, conditions.fault, closing)
        case Fault.GARBAGE:
            return web.Response(body=_garbage(answer.encoded, conditions.variant), content_type=_JSON)
        case Fault.WRONG_IDENTITY:
            return json_response(answer.with_wrong_identity(SOURCES[source].identity))
        case Fault.TRUNCATE:
            return await _send_truncated(request, answer)
        case Fault.SLOW_BODY:
            return await _send_slowly(request, answer, closing)
    return json_response(answer)


def _garbage(body: bytes, variant: int) -> bytes:
    """Broken JSON, invalid UTF-8, or JSON without the agreed fields."""
    forms = (body[: len(body) // 2], b"\xff\xfe" + body, b'{"unexpected": []}')
    return forms[variant % len(forms)]


async def _send_truncated(request: web.Request, answer: UpstreamAnswer) -> web.StreamResponse:
    response = await _send_head(request, answer)
    await response.write(answer.encoded[: len(answer.encoded) // 2])
    if request.transport:
        request.transport.close()
    return response


async def _send_slowly(request: web.Request, answer: UpstreamAnswer, closing: asyncio.Event) -> web.StreamResponse:
    response = await _send_head(request, answer)
    step = max(1, -(-len(answer.encoded) // SLOW_BODY_PIECES))
    for start in range(0, len(answer.encoded), step):
        await response.write(answer.encoded[start : start + step])
        if not closing.is_set():
            await asyncio.sleep(SLOW_BODY_PAUSE_S)
    return response


async def _send_head(request: web.Request, answer: UpstreamAnswer) -> web.StreamResponse:
    """Send the head, which announces the full body."""
    response = web.StreamResponse(status=answer.status)
    response.content_type = _JSON
    response.content_length = len(answer.encoded)
    await response.prepare(request)
    return response


def _reset_on_close(request: web.Request) -> None:
    connection: socket.socket | None = request.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def _abort(request: web.Request) -> web.Response:
    """Abort the connection. aiohttp still expects a response object."""
    if request.transport:
        request.transport.abort()
    return web.Response()
