"""An upstream made of raw sockets. The test scripts both sides in one sequence of events."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from math import inf
from typing import NamedTuple

# A watchdog only: a test that takes this long has failed.
WATCHDOG_S = 5.0


class ReceivedRequest(NamedTuple):
    """A received request. Header names are in lower case; `head` is the raw head."""

    line: str
    headers: dict[str, str]
    body: bytes
    head: bytes


class Peer:
    """One accepted connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read_request(self) -> ReceivedRequest:
        async with asyncio.timeout(WATCHDOG_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            line, *lines = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
            pairs = [line.split(": ", 1) for line in lines]
            assert len({name.lower() for name, _ in pairs}) == len(pairs), "a header was sent twice"
            headers = {name.lower(): value for name, value in pairs}
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return ReceivedRequest(line, headers, body, head)

    @property
    def has_unread(self) -> bool:
        """Data has arrived that was not read yet."""
        return bool(self._reader._buffer)  # type: ignore[attr-defined]  # a reader has no public way to peek

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def write_slowly(self, data: bytes) -> None:
        """Write byte by byte and let the client run after each."""
        for byte in data:
            self._writer.write(bytes((byte,)))
            await self._writer.drain()
            await asyncio.sleep(0)

    async def flood(self, data: bytes, times: float = inf) -> None:
        """Write the same data until the client closes, or the given number of times."""
        async with asyncio.timeout(WATCHDOG_S):
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while not self._reader.at_eof() and not self._writer.transport.is_closing() and times > 0:
                    times -= 1
                    self._writer.write(data)
                    await self._writer.drain()
                    await asyncio.sleep(0)

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Close with RST instead of FIN, if the address family has it."""
        raw = self._writer.get_extra_info("socket")
        if raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the client has closed its end. Data before that is a mistake of the test."""
        async with asyncio.timeout(WATCHDOG_S):
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                assert await self._reader.read() == b""
        self._writer.transport.abort()

    async def abort(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Upstream:
    """Accepts connections. The test does the rest."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.port = 0
        self.server: asyncio.Server | None = None
        self._untaken: asyncio.Queue[Peer] = asyncio.Queue()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self._untaken.put_nowait(peer)

    async def peer(self) -> Peer:
        """The next new connection."""
        async with asyncio.timeout(WATCHDOG_S):
            return await self._untaken.get()

    async def peer_with_request(self) -> Peer:
        """The connection on which a request has arrived."""
        async with asyncio.timeout(WATCHDOG_S):
            # A reader signals no arrival.
            while not (peers := [peer for peer in self.peers if peer.has_unread]):  # noqa: ASYNC110
                await asyncio.sleep(0)
        (peer,) = peers
        return peer

    def refuse(self) -> None:
        """Accept no new connections from now on."""
        assert self.server is not None
        self.server.close()

    @property
    def untaken(self) -> int:
        """Connections that no test has taken with `peer`."""
        return self._untaken.qsize()


@contextlib.asynccontextmanager
async def tcp_upstream(
    tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Upstream]:
    upstream = Upstream()
    server = await asyncio.start_server(upstream.accept, host, port, ssl=tls)
    upstream.server, upstream.port = server, server.sockets[0].getsockname()[1]
    async with _ending(upstream, server):
        yield upstream


@contextlib.asynccontextmanager
async def unix_upstream(path: str) -> AsyncIterator[Upstream]:
    upstream = Upstream()
    async with _ending(upstream, await asyncio.start_unix_server(upstream.accept, path)):
        yield upstream


@contextlib.asynccontextmanager
async def _ending(upstream: Upstream, server: asyncio.Server) -> AsyncIterator[None]:
    try:
        yield
    finally:
        server.close()
        for peer in upstream.peers:
            await peer.abort()
        await server.wait_closed()


@contextlib.contextmanager
def silent_listener(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port whose backlog is full: the kernel drops further SYNs. Yields the port."""
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deaf.bind((host, port))
        deaf.listen(0)
        address = deaf.getsockname()
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield address[1]


def unused_port() -> int:
    """A port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
