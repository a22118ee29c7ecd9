"""A lean upstream for all sources: encoded answers of the sandbox for a crowd of users.

It must cost little, because it is not the program under test. It serves single requests and
batches, and takes exported spans. `python -m benchmarks.lean_upstream` prints the port of each
source as JSON and serves until its standard input ends; every port answers for all sources.
`GET /-/seen` returns the counts, and `POST /-/behave` sets delays and hangs: see `lab/upstream.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import httptools
import msgspec
import uvloop

from benchmarks.lab.load_results import Histogram
from benchmarks.lab.precise_timer import PreciseTimer
from benchmarks.lab.upstream import (
    BATCHES,
    BEHAVE,
    COUNTS,
    FIRST_USER,
    SOURCE_NAMES,
    STRAGGLING,
    TRACES,
    Behaviour,
    HoldTimes,
    UpstreamCounts,
)
from cashier.sandbox import LocalUpstreams, World, weather_named

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"
# The source and the single request behind each element of a batch, by path.
BATCH_ELEMENTS = {path.encode(): (name, element) for name, (path, element) in BATCHES.items()}


class Source:
    """Behaviour and counts of one source."""

    def __init__(self, name: str, behaviour: Behaviour) -> None:
        self.calls = self.keys = 0
        self.held = Histogram()
        self.hangs = name in behaviour.hanging
        self.at_once = not self.hangs and not behaviour.delay_ms.get(name)
        self._delay_s = behaviour.delay_ms.get(name, 0.0) / 1000
        self._straggling_bps = behaviour.straggling_bps.get(name, 0)
        # Own random numbers for each source, so that not all straggle in the same consultation.
        self._random = random.Random(name)

    def draw_s(self) -> float:
        straggles = self._straggling_bps and self._random.random() * 10_000 < self._straggling_bps
        return self._delay_s * (STRAGGLING if straggles else 1)


class Sources:
    """All sources, and their answers with the source's name, by target."""

    def __init__(self, answers: Mapping[bytes, tuple[str, bytes]], behaviour: Behaviour) -> None:
        self.answers = answers
        self.timer = PreciseTimer(asyncio.get_running_loop())
        self.connections = self.opened = self.exports = 0
        self.behave(behaviour)

    def behave(self, behaviour: Behaviour) -> None:
        unknown = {*behaviour.delay_ms, *behaviour.straggling_bps, *behaviour.hanging} - {*SOURCE_NAMES}
        if unknown:
            raise ValueError(f"no such sources: {', '.join(sorted(unknown))}")
        self.by_name = {name: Source(name, behaviour) for name in SOURCE_NAMES}

    def seen(self) -> UpstreamCounts:
        sources = self.by_name.items()
        return UpstreamCounts(
            calls={name: source.calls for name, source in sources},
            keys={name: source.keys for name, source in sources},
            exports=self.exports,
            held={name: hold_times(source.held) for name, source in sources if source.held.count},
            cpu_s=time.process_time(),
            connections=self.connections,
            opened=self.opened,
        )

    def batch_answer(self, target: bytes, body: bytes) -> bytes:
        """Answer a batch."""
        requests, (name, element) = msgspec.json.decode(body)["requests"], BATCH_ELEMENTS[target]
        self.by_name[name].keys += len(requests)
        answers = (self.answers.get(element.format_map(fields).encode()) for fields in requests)
        parts = (
            b'{"error":{"status":404}}' if answer is None else b'{"ok":%b}' % answer[1].partition(b"\r\n\r\n")[2]
            for answer in answers
        )
        return with_head(b'{"answers":[%b]}' % b",".join(parts))


class SourceConnection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._parser = httptools.HttpRequestParser(self)
        self._parsing = False
        self._target = self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport does not subclass asyncio.Transport
        self._transport = cast("asyncio.Transport", transport)
        self._sources.connections += 1
        self._sources.opened += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._sources.connections -= 1

    def data_received(self, data: bytes) -> None:
        # Nearly all requests are one whole GET and need no parser.
        if not self._parsing and data.startswith(b"GET ") and data.find(b"\r\n\r\n") == len(data) - 4:
            self._respond(data[4 : data.index(b" ", 4)])
        else:
            self._parsing = True
            self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._parsing = False
        target, self._target = self._target, b""
        self._respond(target)

    def _respond(self, target: bytes) -> None:
        answer = self._sources.answers.get(target)
        if answer is not None:
            self._answer_for(self._sources.by_name[answer[0]], answer[1])
            return
        body, self._body = self._body, b""
        if target in BATCH_ELEMENTS:
            name, _ = BATCH_ELEMENTS[target]
            self._answer_for(self._sources.by_name[name], self._sources.batch_answer(target, body))
        else:
            self._transport.write(control_response(self._sources, target, body))

    def _answer_for(self, source: Source, answer: bytes) -> None:
        source.calls += 1
        if source.at_once:
            self._transport.write(answer)
        elif not source.hangs:
            received_s = time.perf_counter()
            self._sources.timer.at(received_s + source.draw_s(), partial(self._answer, source, received_s, answer))

    def _answer(self, source: Source, received_s: float, answer: bytes) -> None:
        if not self._transport.is_closing():  # the client may have disconnected meanwhile
            self._transport.write(answer)
            source.held.record(time.perf_counter() - received_s)


def hold_times(histogram: Histogram) -> HoldTimes:
    return HoldTimes(histogram.count, histogram.at(0.5), histogram.at(0.99), histogram.at(1))


def control_response(sources: Sources, target: bytes, body: bytes) -> bytes:
    if target == TRACES.encode():
        sources.exports += 1
        return with_head(b"{}")
    if target == COUNTS.encode():
        return encoded_response(sources.seen())
    if target != BEHAVE.encode():
        return NOT_FOUND
    try:
        sources.behave(msgspec.json.decode(body, type=Behaviour))
    except ValueError as error:
        message = str(error).encode()
        return b"HTTP/1.1 422 Unprocessable Content\r\nContent-Length: %d\r\n\r\n%b" % (len(message), message)
    return with_head(b"{}")


async def encode_answers(users: int) -> dict[bytes, tuple[str, bytes]]:
    """Encode all answers that consultations of the first `users` users of the crowd need.

    By target, with the source's name.
    """
    upstreams = LocalUpstreams(World(), weather_named("still"))
    market = {"currency": "CNY", "country": "CN"}
    answers = {
        b"/channels?currency=CNY&country=CN": ("channel", encoded_response(await upstreams["channel"](**market)))
    }
    for n in range(FIRST_USER, FIRST_USER + users):
        user, order = f"u_{n}", await upstreams["order"](order_id=f"o_{n}")
        assert order is not None
        asked = {
            "order": {"order_id": f"o_{n}"},
            "merchant": {"merchant_id": order["merchant_id"]},
            **{name: {"user_id": user} for name in ("member", "card", "balance")},
            "quota": {"user_id": user, "currency": "CNY"},
            "marketing": {"user_id": user, "merchant_id": order["merchant_id"], "amount": order["amount"]},
        }
        for name, inputs in asked.items():
            target = BATCHES[name][1].format_map({**order["amount"], **inputs})
            answers[target.encode()] = name, encoded_response(await upstreams[name](**inputs))
    return answers


def encoded_response(answer: Any) -> bytes:
    return with_head(msgspec.json.encode(answer))


def with_head(body: bytes) -> bytes:
    return HEAD % len(body) + body


async def serve(users: int, behaviour: Behaviour) -> None:
    loop = asyncio.get_running_loop()
    sources = Sources(await encode_answers(users), behaviour)
    ports = {}
    for name in SOURCE_NAMES:
        server = await loop.create_server(lambda: SourceConnection(sources), "127.0.0.1", 0, backlog=4096)
        ports[name] = server.sockets[0].getsockname()[1]
    gc.collect()
    gc.freeze()
    print(msgspec.json.encode(ports).decode(), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--delay-ms", type=float, default=0, help="delay of every answer")
    args = parser.parse_args()
    uvloop.run(serve(args.users, Behaviour(dict.fromkeys(SOURCE_NAMES, args.delay_ms))))


if __name__ == "__main__":
    main()
