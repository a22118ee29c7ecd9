"""A client without sockets: the server's real connection protocol on a transport in memory.

Time is the event loop's, so tests of timeouts run in virtual time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any

from uvicorn import Config

from cashier.fanout.load_shedding import DegradationLadder
from cashier.web import CashierApp, app
from cashier.web.connection import ClientConnection, StoppableState
from tests.web.fake_payments import FakePayments
from tests.web.fake_service import FakeService

HIGH_WATER_BYTES = 65_536
LOW_WATER_BYTES = 16_384
# A request through Starlette takes about ten turns of the loop.
TURNS = 40


class VirtualTransport(asyncio.Transport):
    """What the server wrote is `sent` until the client reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.Protocol
        self.sent = bytearray()
        self.is_read = True
        self.received = bytearray()
        self.reading = True
        self.closing = self.aborted = self.eof_written = self.lost = False
        self._write_paused = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self.eof_written, "nothing may follow the end of the stream"
        if self.closing:
            return
        self.sent += data
        self._flush()

    def _flush(self) -> None:
        if self.is_read:
            self.received += self.sent
            self.sent.clear()
        if not self._write_paused and len(self.sent) > HIGH_WATER_BYTES:
            self._write_paused = True
            self.protocol.pause_writing()
        elif self._write_paused and len(self.sent) <= LOW_WATER_BYTES:
            self._write_paused = False
            self.protocol.resume_writing()
        if self.closing and not self.sent:
            self._lose()

    def read(self, count: int) -> None:
        """Let the client read this much, although it does not read on its own."""
        self.received += self.sent[:count]
        del self.sent[:count]
        self._flush()

    def get_write_buffer_size(self) -> int:
        return len(self.sent)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        if not self.sent:
            self._lose()

    def abort(self) -> None:
        self.closing = self.aborted = True
        self.sent.clear()
        self._lose()

    def write_eof(self) -> None:
        self.eof_written = True

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default


class VirtualServer:
    """State and application that its clients share."""

    def __init__(
        self,
        service: FakeService | None = None,
        ladder: DegradationLadder | None = None,
        max_connections: int | None = None,
        application: CashierApp | None = None,
    ) -> None:
        self.service = service or FakeService(FakePayments())
        self.config = Config(
            application or app(self.service, ladder=ladder),
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            limit_concurrency=max_connections,
        )
        self.config.load()
        self.state = StoppableState()
        self.state.default_headers = [(b"date", b"Mon, 04 May 2026 10:00:00 GMT")]

    def connect(self) -> VirtualClient:
        return VirtualClient(self)


class VirtualClient:
    """One connection."""

    def __init__(self, server: VirtualServer) -> None:
        self._server = server
        self.transport = VirtualTransport()
        self.connection = ClientConnection(server.config, server.state, {}, asyncio.get_running_loop())
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)

    async def send(self, *segments: bytes) -> bytes:
        """Send segments one by one, each after the server has dealt with the previous."""
        for segment in segments:
            if not self.transport.closing:
                self.connection.data_received(segment)
                await self.settle()
        return self.received

    async def exchange(self, *segments: bytes) -> bytes:
        """Send segments, and return what is received from then on."""
        before = len(self.received)
        return (await self.send(*segments))[before:]

    async def end(self) -> bytes:
        """Half-close."""
        if not self.transport.closing:
            self.connection.eof_received()
            await self.settle()
        return self.received

    async def settle(self) -> None:
        """Let the server do all that it can do now."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
            if not self._server.state.tasks:
                break
        await asyncio.sleep(0)

    def reset(self) -> None:
        self.transport.abort()

    @property
    def received(self) -> bytes:
        return bytes(self.transport.received)

    @property
    def is_closed(self) -> bool:
        """Whether the server has ended its side."""
        return self.transport.eof_written or self.transport.closing

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 ([2-5]\d\d) ", self.received)]


def without_random(answers: bytes) -> bytes:
    """Without what differs between equal runs: times and ids that the server made."""
    answers = re.sub(rb"dur=[0-9.]+", b"dur=0", answers)
    answers = re.sub(rb'"since":"[^"]*"', b'"since":"start"', answers)
    return re.sub(rb"x-request-id: [0-9a-f]{24}", b"x-request-id: made", answers)


def in_bytes(data: bytes) -> Iterable[bytes]:
    return (data[index : index + 1] for index in range(len(data)))
