"""HTTP of the operations port: uvicorn's protocol with bounds of time.

uvicorn bounds the size of a head and the pause between two requests. A client that never ends its
request, or does not read the response, would keep its connection, and with it one of the few that
the port has.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# From the opening of a connection, or the first byte of a later request, to the request's end.
REQUEST_S = 10.0
# How long a client may read nothing while more is to be sent.
STALLED_S = 10.0

# A client could fill the log with what is wrong with its requests. Bugs are errors.
_log = logging.getLogger("cashier.ops.http")
_log.setLevel(logging.ERROR)


class BoundedHttp(H11Protocol):
    """Cuts the connection of a client that exceeds a bound."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.logger = _log
        self._unfinished: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        self._unfinished = self.loop.call_later(REQUEST_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        is_unfinished = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if is_unfinished and self._unfinished is None:
            self._unfinished = self.loop.call_later(REQUEST_S, self.transport.abort)
        elif not is_unfinished:
            self._unfinished = _cancelled(self._unfinished)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = _cancelled(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unfinished = _cancelled(self._unfinished)
        self._unread = _cancelled(self._unread)


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """None, in the place of the timer."""
    if timer is not None:
        timer.cancel()
    return None
