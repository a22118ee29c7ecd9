"""HTTP of the operations port: uvicorn's protocol with bounds of time and of open connections.

uvicorn bounds the size of a head and the pause between two requests. A client that never ends its
request, or does not read the response, would keep its connection, and with it one of the few that
the port has. Clients without a request, which need no token, could take every file that the process
may open, and with these the connections of payers and sources: the port may share it with a worker.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any, cast

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
    """Cuts the connection of a client that exceeds a bound.

    `config.limit_concurrency` limits the open connections. At the limit the one without a request
    for the longest time makes room for a new one.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.logger = _log
        # uvicorn would accept any number, and refuse requests instead.
        self._most_connections = self.limit_concurrency or math.inf
        self.limit_concurrency = None
        self._idle_since_s = 0.0
        self._unfinished: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        self._idle_since_s = self.loop.time()
        self._unfinished = self.loop.call_later(REQUEST_S, transport.abort)
        others = [other for other in cast("set[BoundedHttp]", self.connections) if other.is_open and other is not self]
        if len(others) >= self._most_connections:
            # The new one only if all others wait for their responses.
            idle = (other for other in others if other.is_idle)
            min(idle, key=lambda other: other._idle_since_s, default=self).transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        is_unfinished = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if is_unfinished and self._unfinished is None:
            self._unfinished = self.loop.call_later(REQUEST_S, self.transport.abort)
        elif not is_unfinished:
            self._unfinished = _cancelled(self._unfinished)

    def send_400_response(self, msg: str) -> None:
        """Only to an invalid head: its body proves invalid when the application has the request."""
        if self.conn.our_state is h11.IDLE:
            super().send_400_response(msg)
            return
        # What the application still sends would be a second response, and its failure a line.
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._idle_since_s = self.loop.time()

    @property
    def is_open(self) -> bool:
        """False once it is cut, also before its end is reported."""
        return not self.transport.is_closing()

    @property
    def is_idle(self) -> bool:
        """Whether no whole request waits for its response."""
        return self._unfinished is not None or self.cycle is None or self.cycle.response_complete

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
