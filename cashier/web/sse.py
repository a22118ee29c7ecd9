"""Server-sent events on one connection: how one is written, and how long a reader may leave us no room for it. What they tell is not known.

The next part is asked for when the one before is off our hands, so a slow reader gets what is new then, and never a heap.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog
from starlette.types import Send

from cashier.web.disconnect_watch import WatchedRequest
from cashier.web.response import NO_STORE

_log = structlog.get_logger("cashier.web")

EVENT_STREAM = b"text/event-stream"
# How long a reader may leave us no room for one event. Generous to a phone that changes its network; endless would be a way to tie us up.
STALL_S = 10.0
# The last is for nginx, which else keeps an answer back until it has enough of it.
_HEADERS = ((b"content-type", EVENT_STREAM), NO_STORE, (b"x-accel-buffering", b"no"))
# A line that says nothing, for those between us who close what is silent.
COMMENT = b":\n\n"


def encode_event(name: bytes, told: bytes, number: int | None = None) -> bytes:
    """JSON has no line break outside of its strings, and in them it is escaped, so it is one line of `data`."""
    return b"event: %b\n%bdata: %b\n\n" % (name, b"" if number is None else b"id: %d\n" % number, told)


async def send_events(
    parts: AsyncGenerator[bytes, None], send: Send, visit: WatchedRequest, identity: str, timing: bytes
) -> None:
    """Send all parts, until the end or until the client has gone or stopped reading; then `parts` is closed too.

    `identity`: of the request; `timing`: the value of Server-Timing.
    """
    headers = [*_HEADERS, (b"x-request-id", identity.encode("ascii")), (b"server-timing", timing)]
    try:
        async with aclosing(parts):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for part in parts:
                await _send(send, part, more=True)
            await _send(send, b"", more=False)
    except TimeoutError:
        _log.warning("the reader of a stream stalled", request_id=identity, seconds=STALL_S)
    except asyncio.CancelledError:
        if not visit.forgives():
            raise


async def _send(send: Send, body: bytes, *, more: bool) -> None:
    async with asyncio.timeout(STALL_S):
        await send({"type": "http.response.body", "body": body, "more_body": more})
