"""CPU of one upstream call: our client `http1`, aiohttp, and the floor.

`http1` is measured over TCP and over a Unix socket.
A lean server runs on core 1; this process is the client, on core 0, so that the figures are the
client's alone, kernel included: user and system time of this process ÷ calls. The floor writes the
same request and counts the bytes of the answer, without a parser or a pool: the minimum of asyncio,
uvloop and the kernel. Rounds interleave.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias, cast

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.process import LOAD_CORE, PROGRAM_CORE, pinned, process, python
from benchmarks.lab.sized_server import SIZES, answer
from benchmarks.results import BarChart, Figure, Finding, Row, Table
from cashier.source_errors import SourceError
from cashier.wire.aiohttp_client import AiohttpClient
from cashier.wire.http1 import Http1Client
from cashier.wire.transport import CallHeaders, Request, Response, Transport

WIDTHS = (1, 8)
CALLS = 4_000
CALL_HEADERS = CallHeaders("0f3f9c2e-bench")
TITLES = {"floor": "the floor", "http1": "http1, ours", "unix": "http1 over unix:", "aiohttp": "aiohttp"}

# Makes `count` calls, `width` of them in flight, for bodies of `size` bytes.
Run: TypeAlias = Callable[[int, int, int], Awaitable[None]]
CallTimes: TypeAlias = dict[tuple[int, int], dict[str, list[float]]]


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
                lambda: FloorConnection(request, len(answer(size)), count // width), "127.0.0.1", port
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


def measure(lab: Lab) -> Finding:
    start_s = time.perf_counter()
    socket_path = lab.directory / "sized.sock"
    with pinned(PROGRAM_CORE), process(LOAD_CORE, *python("benchmarks.lab.sized_server", str(socket_path))) as child:
        times_by_case = uvloop.run(measure_clients(lab, int(child.first_line), socket_path))
    return finding(times_by_case, time.perf_counter() - start_s)


def finding(times_by_case: CallTimes, seconds: float) -> Finding:
    rows, key = [], {}
    groups: dict[str, list[Figure | None]] = {title: [] for title in TITLES.values()}
    for (size, width), times in times_by_case.items():
        figures = {name: Figure(tuple(rounds)) for name, rounds in times.items()}
        ratio = figures["aiohttp"].over(figures["http1"])
        over_unix = figures["unix"].over(figures["http1"])
        ratios = {"aiohttp ÷ http1": ratio, "unix: ÷ TCP": over_unix}
        rows.append(Row(label(size, width), {f"{TITLES[name]} µs": each for name, each in figures.items()} | ratios))
        key[f"wire.us_{size}_{width}"] = figures["http1"]
        key[f"wire.ratio_unix_{size}_{width}"] = over_unix
        key[f"wire.ratio_aiohttp_{size}_{width}"] = ratio
        for name, each in figures.items():
            groups[TITLES[name]].append(each)
    labels = [label(*case) for case in times_by_case]
    return Finding(
        name="wire",
        title="CPU of one upstream call",
        about=__doc__ or "",
        seconds=seconds,
        key=key,
        tables=[Table("CPU per call, kernel included", rows)],
        drawings=[BarChart("CPU per upstream call", "CPU µs", labels, groups, ours=[TITLES["http1"], TITLES["unix"]])],
    )


def label(size: int, width: int) -> str:
    return f"{size:,} B, {width} in flight"
