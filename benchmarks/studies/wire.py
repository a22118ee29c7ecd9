"""CPU of one upstream call: our client `http1`, aiohttp, and the floor.

`http1` is measured over TCP and over a Unix socket.
A lean server runs on core 1; this process is the client, on core 0, so that the figures are the
client's alone, kernel included: user and system time of this process ÷ calls. The floor writes the
same request and counts the bytes of the answer, without a parser or a pool: the minimum of asyncio,
uvloop and the kernel. Rounds interleave.

`python -m benchmarks.studies.wire SOCKET` is the server: it answers `/{size}` with a body of that
many bytes, prints its port, also listens on the Unix socket, and serves until its standard input
ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias, cast

import httptools
import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.process import LOAD_CORE, PROGRAM_CORE, pinned, process, python
from benchmarks.results import BarChart, Figure, Finding, Row, Table
from cashier.source_errors import SourceError
from cashier.wire.aiohttp_client import AiohttpClient
from cashier.wire.http1 import Http1Client
from cashier.wire.transport import CallHeaders, Request, Response, Transport

SIZES = (700, 6400)
WIDTHS = (1, 8)
CALLS = 4_000
CALL_HEADERS = CallHeaders("0f3f9c2e-bench")
TITLES = {"floor": "the floor", "http1": "http1, ours", "unix": "http1 over unix:", "aiohttp": "aiohttp"}

# Makes `count` calls, `width` of them in flight, for bodies of `size` bytes.
Run: TypeAlias = Callable[[int, int, int], Awaitable[None]]
CallTimes: TypeAlias = dict[tuple[int, int], dict[str, list[float]]]
HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
    "Server: bench\r\nDate: Mon, 02 Nov 2026 10:00:00 GMT\r\n\r\n"
)
ANSWERS = {size: HEAD.format(size=size).encode() + b"x" * size for size in SIZES}
ANSWERS_BY_TARGET = {f"/{size}".encode(): answer for size, answer in ANSWERS.items()}


class Volley:
    """Chains of calls, each starting its next one from the callback of the last."""

    def __init__(self, transport: Transport, request: Request, count: int) -> None:
        self.transport = transport
        self.request = request
        self.left = self.pending = count
        self.done = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        if self.left:
            self.left -= 1
            self.transport.send(self.request, CALL_HEADERS, 150, self.reply)

    def reply(self, outcome: Response | SourceError) -> None:
        if not isinstance(outcome, Response):
            self.left = 0
            if not self.done.done():
                self.done.set_exception(outcome)
            return
        self.pending -= 1
        if self.pending:
            self.start()
        elif not self.done.done():
            self.done.set_result(None)


def through(transport: Transport) -> Run:
    async def run(count: int, width: int, size: int) -> None:
        volley = Volley(transport, Request(f"/{size}"), count)
        for _ in range(width):
            volley.start()
        await volley.done

    return run


class FloorConnection(asyncio.Protocol):
    """The floor: one connection that sends again after as many bytes as an answer has."""

    def __init__(self, request: bytes, answer_bytes: int, count: int) -> None:
        self.request = request
        self.answer_bytes = self.missing = answer_bytes
        self.count = count
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport does not subclass asyncio.Transport
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing:
            return
        self.missing = self.answer_bytes
        self.count -= 1
        if self.count:
            self.transport.write(self.request)
        else:
            self.transport.close()
            self.done.set_result(None)


def floor(port: int) -> Run:
    async def run(count: int, width: int, size: int) -> None:
        request = (
            f"GET /{size} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Caller: cashier\r\nAccept: application/json\r\n"
            f"Accept-Encoding: identity\r\nX-Request-Id: {CALL_HEADERS.request_id}\r\nX-Deadline-Ms: 150\r\n\r\n"
        ).encode()
        loop = asyncio.get_running_loop()
        connections = [
            await loop.create_connection(
                lambda: FloorConnection(request, len(ANSWERS[size]), count // width), "127.0.0.1", port
            )
            for _ in range(width)
        ]
        await asyncio.gather(*(protocol.done for _, protocol in connections))

    return run


@contextlib.asynccontextmanager
async def open_runs(port: int, socket_path: Path) -> AsyncIterator[dict[str, Run]]:
    url = f"http://127.0.0.1:{port}"
    transports: dict[str, Transport] = {
        "http1": Http1Client([url]),
        "unix": Http1Client([f"unix:{socket_path}"]),
        "aiohttp": AiohttpClient([url]),
    }
    async with contextlib.AsyncExitStack() as opened:
        for transport in transports.values():
            await transport.open()
            opened.push_async_callback(transport.close)
        yield {"floor": floor(port)} | {name: through(transport) for name, transport in transports.items()}


async def measure_clients(lab: Lab, port: int, socket_path: Path) -> CallTimes:
    calls = lab.count(CALLS) // max(WIDTHS) * max(WIDTHS)
    times_by_case: CallTimes = {(size, width): {name: [] for name in TITLES} for size in SIZES for width in WIDTHS}
    async with open_runs(port, socket_path) as clients:
        for turn in range(lab.rounds + 1):  # the first is the warm-up
            for (size, width), times in times_by_case.items():
                for name, run in clients.items():
                    before_s = time.process_time()
                    await run(calls, width, size)
                    if turn:
                        times[name].append((time.process_time() - before_s) / calls * 1e6)
            lab.report(f"round {turn} of {lab.rounds}" if turn else "warm")
    return times_by_case


class SizedConnection(asyncio.Protocol):
    """The server's side of a connection."""

    target = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # as above
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.target = url

    def on_message_complete(self) -> None:
        self.transport.write(ANSWERS_BY_TARGET[self.target])


async def serve(socket_path: str) -> None:
    loop = asyncio.get_running_loop()
    async with (
        await loop.create_unix_server(SizedConnection, socket_path),
        await loop.create_server(SizedConnection, "127.0.0.1", 0) as server,
    ):
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


def measure(lab: Lab) -> Finding:
    socket_path = lab.directory / "sized.sock"
    with pinned(PROGRAM_CORE), process(LOAD_CORE, *python("benchmarks.studies.wire", str(socket_path))) as child:
        return finding(uvloop.run(measure_clients(lab, int(child.first_line), socket_path)))


def finding(times_by_case: CallTimes) -> Finding:
    rows, key = [], {}
    groups: dict[str, list[Figure | None]] = {title: [] for title in TITLES.values()}
    for (size, width), times in times_by_case.items():
        us = {name: Figure.by_round(rounds) for name, rounds in times.items()}
        over_http1, over_tcp = us["aiohttp"].over(us["http1"]), us["unix"].over(us["http1"])
        columns = {f"{title} µs": us[name] for name, title in TITLES.items()}
        ratios = {"aiohttp ÷ http1": over_http1, "unix: ÷ TCP": over_tcp}
        rows.append(Row(f"{size:,} B, {width} in flight", columns | ratios))
        key[f"wire.us_{size}_{width}"] = us["http1"]
        key[f"wire.ratio_unix_{size}_{width}"] = over_tcp
        key[f"wire.ratio_aiohttp_{size}_{width}"] = over_http1
        for name, title in TITLES.items():
            groups[title].append(us[name])
    labels, ours = [row.label for row in rows], [TITLES["http1"], TITLES["unix"]]
    return Finding(
        "CPU of one upstream call",
        key=key,
        tables=[Table("CPU per call, kernel included", rows)],
        drawings=[BarChart("CPU per upstream call", "CPU µs", labels, groups, ours=ours)],
    )


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
