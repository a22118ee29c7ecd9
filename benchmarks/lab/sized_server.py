"""A server that answers `/{size}` with a body of that many bytes, for the study of the wire.

`python -m benchmarks.lab.sized_server SOCKET` prints its port, also listens on the Unix socket, and
serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop

SIZES = (700, 6400)
HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
    "Server: bench\r\nDate: Mon, 02 Nov 2026 10:00:00 GMT\r\n\r\n"
)


def answer(size: int) -> bytes:
    return HEAD.format(size=size).encode() + b"x" * size


ANSWERS = {f"/{size}".encode(): answer(size) for size in SIZES}


class SizedConnection(asyncio.Protocol):
    """One connection of a client."""

    target = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport does not subclass asyncio.Transport
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.target = url

    def on_message_complete(self) -> None:
        self.transport.write(ANSWERS[self.target])


async def serve(socket_path: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_unix_server(SizedConnection, socket_path)
    server = await loop.create_server(SizedConnection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
