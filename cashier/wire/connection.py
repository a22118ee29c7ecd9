"""One kept connection: writes one question, reads one answer, says what became of it. Whose turn it is, the pool decides."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

from cashier.source_errors import Garbled
from cashier.wire.response_parser import ResponseBounds, ResponseParser

if TYPE_CHECKING:
    from cashier.wire.host_pool import HostPool
    from cashier.wire.http1_call import Http1Call


class ConnectionOwner(Protocol):
    """Who keeps connections."""

    def made(self, connection: UpstreamConnection) -> None: ...

    def freed(self, connection: UpstreamConnection) -> None:
        """Its answer is complete and it may be asked again. Called before the answer is handed on."""

    def unfit(self, connection: UpstreamConnection) -> None:
        """It must not be asked again. `lost` follows."""

    def lost(self, connection: UpstreamConnection, error: BaseException | None) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """`call` is who asked, None while it is idle. `idle_since_s` is monotonic. `kept`: it has answered before."""

    __slots__ = ("_answers", "_keeper", "_transport", "call", "idle_since_s", "kept", "lane")

    _transport: asyncio.Transport

    def __init__(self, keeper: ConnectionOwner, lane: HostPool, bounds: ResponseBounds) -> None:
        self._keeper = keeper
        self._answers = ResponseParser(lane.address.name, bounds)
        self.lane = lane
        self.call: Http1Call | None = None
        self.kept = False
        self.idle_since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are transports by their methods only.
        self._transport = cast("asyncio.Transport", transport)
        self._keeper.made(self)

    @property
    def usable(self) -> bool:
        return not self._transport.is_closing()

    @property
    def answered(self) -> bool:
        """Some of the answer to the question under way has come."""
        return self._answers.begun

    def ask(self, call: Http1Call, question: bytes) -> None:
        self.call = call
        self._transport.write(question)

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            self.drop()  # an answer to nobody's question
            return
        try:
            response = self._answers.feed(data)
        except Garbled as garbled:
            self.drop()
            call.finish(garbled)
            return
        if response is None:
            return
        self.call = None
        self.kept = True
        if self._answers.reusable:
            self._keeper.freed(self)
        else:
            self.drop()
        call.finish(response)

    def eof_received(self) -> None:
        # Half a connection is of no use: nothing more will be answered on it.
        self._keeper.unfit(self)
        self._transport.abort()

    def drop(self) -> None:
        """Close at once, whatever is on its way. Whoever asked is not told."""
        self.call = None
        self._keeper.unfit(self)
        self._transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._keeper.lost(self, exc)
        self._answers.end()
