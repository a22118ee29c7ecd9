"""Server-sent events on one connection: their encoding, and a limit on a reader that stalls.

The next event is requested only after the previous one has been sent, so events do not pile up for
a slow reader.
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
# The longest wait for buffer space for one event. Generous to a phone that changes its network;
# without a limit a client could hold resources forever.
STALL_S = 10.0
# nginx buffers a response unless X-Accel-Buffering forbids it.
_HEADERS = ((b"content-type", EVENT_STREAM), NO_STORE, (b"x-accel-buffering", b"no"))
# A comment line keeps idle connections open in proxies.
COMMENT = b":\n\n"


def encode_event(name: bytes, payload: bytes, event_id: int | None = None) -> bytes:
    """`payload` is JSON without line breaks, so it fits one `data` line."""
    return b"event: %b\n%bdata: %b\n\n" % (name, b"" if event_id is None else b"id: %d\n" % event_id, payload)


async def send_events(
    events: AsyncGenerator[bytes, None], send: Send, watched: WatchedRequest, request_id: str, timing: bytes
) -> None:
    """Send all events, and close `events`, also if the client disconnects or stops reading.

    `timing` is the value of Server-Timing.
    """
    headers = [*_HEADERS, (b"x-request-id", request_id.encode("ascii")), (b"server-timing", timing)]
    try:
        async with aclosing(events):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for event in events:
                await _send(send, event, more=True)
            await _send(send, b"", more=False)
    except TimeoutError:
        _log.warning("event stream reader stalled", request_id=request_id, seconds=STALL_S)
    except asyncio.CancelledError:
        if not watched.absorb_cancellation():
            raise


async def _send(send: Send, body: bytes, *, more: bool) -> None:
    async with asyncio.timeout(STALL_S):
        await send({"type": "http.response.body", "body": body, "more_body": more})
