"""Carries a conditions out over HTTP: the answer late, broken off, dribbled, replaced, or the connection gone.

The runner of the application has to cancel the work of a client that left (`handler_cancellation`), or a hang outlives its client.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from aiohttp import web

from cashier.sandbox.upstream_answer import UpstreamAnswer, error_answer
from cashier.sandbox.weather import (
    IDENTITY_FIELDS,
    RETRY_AFTER_S,
    SLOW_BODY_PAUSE_S,
    SLOW_BODY_PIECES,
    Fault,
    PaymentFault,
    CallConditions,
)

_JSON = "application/json"
_ERROR = error_answer(500, "INTERNAL")
_OVERLOAD = error_answer(503, "OVERLOADED")
# Closing with a linger of zero seconds drops what is unsent and resets the connection (socket(7)).
_NO_LINGER = struct.pack("ii", 1, 0)


def json_response(answer: UpstreamAnswer) -> web.Response:
    """The answer as it is."""
    return web.Response(body=answer.encoded, status=answer.status, content_type=_JSON)


def refusal_response(fault: Fault | PaymentFault) -> web.Response:
    """What ERROR and OVERLOAD say."""
    if fault is Fault.ERROR:
        return json_response(_ERROR)
    return web.Response(
        body=_OVERLOAD.encoded, status=503, content_type=_JSON, headers={"Retry-After": str(RETRY_AFTER_S)}
    )


async def respond_without_answer(
    request: web.Request, fault: Fault | PaymentFault, closing: asyncio.Event
) -> web.StreamResponse:
    """What a client sees of a request without an answer: a refusal, silence, or the end of its connection."""
    match fault:
        case Fault.ERROR | Fault.OVERLOAD:
            return refusal_response(fault)
        case Fault.HANG:
            await closing.wait()
        case _:
            _reset_on_close(request)
    return _gone(request)


async def deliver(
    request: web.Request, source: str, answer: UpstreamAnswer, conditions: CallConditions, closing: asyncio.Event
) -> web.StreamResponse:
    """The answer, as the conditions's fault lets it through. `closing` is set when the server stops: nothing is held back then."""
    match conditions.fault:
        case Fault.HANG | Fault.RESET:
            return await respond_without_answer(request, conditions.fault, closing)
        case Fault.GARBAGE:
            return web.Response(body=_garbage(answer.encoded, conditions.variant), content_type=_JSON)
        case Fault.WRONG_IDENTITY:
            return json_response(answer.with_wrong_identity(IDENTITY_FIELDS[source]))
        case Fault.TRUNCATE:
            return await _truncated(request, answer)
        case Fault.SLOW_BODY:
            return await _dribbled(request, answer, closing)
    return json_response(answer)


def _garbage(whole: bytes, variant: int) -> bytes:
    """Not JSON any more; not even text; JSON, but nothing of what was agreed."""
    sorts = (whole[: len(whole) // 2], b"\xff\xfe" + whole, b'{"unexpected": []}')
    return sorts[variant % len(sorts)]


async def _truncated(request: web.Request, answer: UpstreamAnswer) -> web.StreamResponse:
    response = await _begun(request, answer)
    await response.write(answer.encoded[: len(answer.encoded) // 2])
    if request.transport:
        request.transport.close()
    return response


async def _dribbled(request: web.Request, answer: UpstreamAnswer, closing: asyncio.Event) -> web.StreamResponse:
    response = await _begun(request, answer)
    step = max(1, -(-len(answer.encoded) // SLOW_BODY_PIECES))
    for start in range(0, len(answer.encoded), step):
        await response.write(answer.encoded[start : start + step])
        if not closing.is_set():
            await asyncio.sleep(SLOW_BODY_PAUSE_S)
    return response


async def _begun(request: web.Request, answer: UpstreamAnswer) -> web.StreamResponse:
    """The head is out and promises the whole body."""
    response = web.StreamResponse(status=answer.status)
    response.content_type = _JSON
    response.content_length = len(answer.encoded)
    await response.prepare(request)
    return response


def _reset_on_close(request: web.Request) -> None:
    connection: socket.socket | None = request.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def _gone(request: web.Request) -> web.Response:
    """Ends the connection at once. The server wants a response to see that there is nobody to send it to."""
    if request.transport:
        request.transport.abort()
    return web.Response()
