"""What one upstream call costs in CPU: `python -m benchmarks.wire [--quick]`.

A lean server runs in another process on another core, so that the figures are the client's alone, kernel included: user and system time of
this process, divided by calls. `floor` writes the same request and counts the bytes of the answer, without parsing and without a pool:
what asyncio, uvloop and the kernel take, whatever a client does. Rounds of all are interleaved; the median counts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import httptools
import uvloop

from cashier.answer import SourceError
from cashier.wire.exchange import Request, Response, Transport, Trip
from cashier.wire.http1 import Http1
from cashier.wire.via_aiohttp import ViaAiohttp

SIZES = (700, 6400)
WIDTHS = (1, 8)
CLIENT_CORE, SERVER_CORE = 0, 1
HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
    "Server: bench\r\nDate: Mon, 02 Nov 2026 10:00:00 GMT\r\n\r\n"
)
TRIP = Trip("0f3f9c2e-bench")

# Makes `count` calls, `width` of them in flight, for bodies of `size` bytes.
Run = Callable[[int, int, int], Awaitable[None]]


def answer(size: int) -> bytes:
    return HEAD.format(size=size).encode() + b"x" * size


ANSWERS = {f"/{size}".encode(): answer(size) for size in SIZES}


class Server(asyncio.Protocol):
    """Answers `/{size}` with a body of so many bytes."""

    target = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.target = url

    def on_message_complete(self) -> None:
        self.transport.write(ANSWERS[self.target])


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until the client has gone


class Volley:
    """`width` chains of calls, each starting its next one from the callback of the last."""

    def __init__(self, transport: Transport, request: Request, count: int) -> None:
        self.transport = transport
        self.request = request
        self.left = self.pending = count
        self.done = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        if self.left:
            self.left -= 1
            self.transport.send(self.request, TRIP, 150, self.reply)

    def reply(self, outcome: Response | SourceError) -> None:
        assert isinstance(outcome, Response), outcome
        self.pending -= 1
        if self.pending:
            self.start()
        else:
            self.done.set_result(None)


def through(transport: Transport) -> Run:
    async def run(count: int, width: int, size: int) -> None:
        volley = Volley(transport, Request(f"/{size}"), count)
        for _ in range(width):
            volley.start()
        await volley.done

    return run


class Bare(asyncio.Protocol):
    """The floor: one connection that asks again when as many bytes have come as an answer has."""

    def __init__(self, question: bytes, answer_bytes: int, count: int) -> None:
        self.question = question
        self.answer_bytes = self.missing = answer_bytes
        self.count = count
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.question)

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing:
            return
        self.missing = self.answer_bytes
        self.count -= 1
        if self.count:
            self.transport.write(self.question)
        else:
            self.transport.close()
            self.done.set_result(None)


def bare(port: int) -> Run:
    async def run(count: int, width: int, size: int) -> None:
        question = (
            f"GET /{size} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Caller: cashier\r\nAccept: application/json\r\n"
            f"Accept-Encoding: identity\r\nX-Request-Id: {TRIP.request_id}\r\nX-Deadline-Ms: 150\r\n\r\n"
        ).encode()
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: Bare(question, len(answer(size)), count // width), "127.0.0.1", port) for _ in range(width)
        ]
        await asyncio.gather(*(protocol.done for _, protocol in made))

    return run


@contextlib.asynccontextmanager
async def runs(port: int) -> AsyncIterator[dict[str, Run]]:
    url = f"http://127.0.0.1:{port}"
    http1, aiohttp = Http1([url]), ViaAiohttp([url])
    await http1.open()
    await aiohttp.open()
    try:
        yield {"floor": bare(port), "http1": through(http1), "aiohttp": through(aiohttp)}
    finally:
        await http1.close()
        await aiohttp.close()


async def measure(port: int, rounds: int, calls: int) -> None:
    async with runs(port) as ways:
        for size in SIZES:
            for width in WIDTHS:
                spent: dict[str, list[float]] = {name: [] for name in ways}
                for turn in range(rounds + 1):
                    for name, run in ways.items():
                        before = time.process_time()
                        await run(calls, width, size)
                        if turn:  # the first warms up
                            spent[name].append((time.process_time() - before) / calls * 1e6)
                report(size, width, spent)


def report(size: int, width: int, spent: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(figures) for name, figures in spent.items()}
    figures = "   ".join(f"{name} {medians[name]:6.1f} ({min(spent[name]):.1f} to {max(spent[name]):.1f})" for name in spent)
    print(f"{size:5} B, {width} in flight, µs CPU per call:   {figures}   aiohttp/http1 {medians['aiohttp'] / medians['http1']:.1f}")


def pin(core: int) -> None:
    with contextlib.suppress(OSError):  # fewer cores than two: the figures are still those of this process
        os.sched_setaffinity(0, {core})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer calls: to see that it runs, not to quote")
    parser.add_argument("--serve", action="store_true", help="be the server (started by the benchmark itself)")
    options = parser.parse_args()
    pin(SERVER_CORE if options.serve else CLIENT_CORE)
    if options.serve:
        uvloop.run(serve())
        return
    command = [sys.executable, "-m", "benchmarks.wire", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        uvloop.run(measure(port, rounds=3 if options.quick else 9, calls=800 if options.quick else 8000))


if __name__ == "__main__":
    main()
