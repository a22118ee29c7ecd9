"""A lean upstream for all sources: encoded answers of the sandbox for a crowd of users.

It must cost little, because it is not the program under test. It serves single requests and
batches. `python -m benchmarks.lean_upstream` prints the port of each source as JSON and serves
until its standard input ends; every port answers for all sources. `GET /-/seen` returns the counts,
and `POST /-/behave` sets delays and hangs: see `lab/upstream_control.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import re
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import httptools
import msgspec
import uvloop

from benchmarks.lab.histogram import Histogram
from benchmarks.lab.precise_timer import PreciseTimer
from benchmarks.lab.upstream_control import (
    BEHAVE,
    COUNTS,
    SOURCE_NAMES,
    STRAGGLING,
    Behaviour,
    HoldTimes,
    UpstreamCounts,
)
from cashier.sandbox import LocalUpstreams, World, weather_named

FIRST_USER = 100_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"
PROMOTIONS = "/members/{user_id}/promotions?merchant_id={merchant_id}&currency={currency}&value={value}"
# The single request behind each element of a batch.
BATCHES = {
    b"/batch/orders": "/orders/{order_id}",
    b"/batch/merchants": "/merchants/{merchant_id}",
    b"/batch/members": "/members/{user_id}",
    b"/batch/cards": "/members/{user_id}/cards",
    b"/batch/balances": "/members/{user_id}/balances",
    b"/batch/quotas": "/members/{user_id}/quotas?currency={currency}",
    b"/batch/promotions": PROMOTIONS,
}
# The targets of each source.
TARGETS = {
    "order": re.compile(rb"/orders/|/batch/orders"),
    "merchant": re.compile(rb"/merchants/|/batch/merchants"),
    "member": re.compile(rb"/members/[^/]+$|/batch/members"),
    "card": re.compile(rb"/members/[^/]+/cards|/batch/cards"),
    "balance": re.compile(rb"/members/[^/]+/balances|/batch/balances"),
    "quota": re.compile(rb"/members/[^/]+/quotas|/batch/quotas"),
    "marketing": re.compile(rb"/members/[^/]+/promotions|/batch/promotions"),
    "channel": re.compile(rb"/channels"),
}


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
    """All sources and their answers by target."""

    def __init__(self, answers: Mapping[bytes, bytes], behaviour: Behaviour) -> None:
        self.answers = {target: (source_of(target), answer) for target, answer in answers.items()}
        self.timer = PreciseTimer(asyncio.get_running_loop())
        self.connections = self.opened = 0
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
            held={name: hold_times(source.held) for name, source in sources if source.held.count},
            cpu_s=time.process_time(),
            connections=self.connections,
            opened=self.opened,
        )

    def batch_answer(self, target: bytes, body: bytes) -> bytes:
        """Answer a batch."""
        requests = msgspec.json.decode(body)["requests"]
        self.by_name[source_of(target)].keys += len(requests)
        answers = (self.answers.get(BATCHES[target].format_map(fields).encode()) for fields in requests)
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
        if target in BATCHES:
            self._answer_for(self._sources.by_name[source_of(target)], self._sources.batch_answer(target, body))
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


def source_of(target: bytes) -> str:
    return next(name for name, pattern in TARGETS.items() if pattern.match(target))


def hold_times(histogram: Histogram) -> HoldTimes:
    return HoldTimes(histogram.count, histogram.at(0.5), histogram.at(0.99), histogram.at(1))


def control_response(sources: Sources, target: bytes, body: bytes) -> bytes:
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


async def encode_answers(users: int) -> dict[bytes, bytes]:
    """Encode all answers that consultations of the first `users` users of the crowd need, by
    target.
    """
    upstreams = LocalUpstreams(World(), weather_named("still"))
    by_path = {
        b"/channels?currency=CNY&country=CN": encoded_response(await upstreams["channel"](currency="CNY", country="CN"))
    }
    for n in range(FIRST_USER, FIRST_USER + users):
        user, order = f"u_{n}", await upstreams["order"](order_id=f"o_{n}")
        assert order is not None
        amount, merchant = order["amount"], order["merchant_id"]
        promotions = PROMOTIONS.format(user_id=user, merchant_id=merchant, **amount)
        by_target: dict[str, Any] = {
            f"/orders/o_{n}": order,
            f"/merchants/{merchant}": await upstreams["merchant"](merchant_id=merchant),
            f"/members/{user}": await upstreams["member"](user_id=user),
            f"/members/{user}/cards": await upstreams["card"](user_id=user),
            f"/members/{user}/balances": await upstreams["balance"](user_id=user),
            f"/members/{user}/quotas?currency=CNY": await upstreams["quota"](user_id=user, currency="CNY"),
            promotions: await upstreams["marketing"](user_id=user, merchant_id=merchant, amount=amount),
        }
        by_path.update({target.encode(): encoded_response(answer) for target, answer in by_target.items()})
    return by_path


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


def source_delay(text: str) -> tuple[str, float]:
    name, _, ms = text.partition("=")
    return name, float(ms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--delay-ms", type=float, default=0, help="delay of every answer")
    parser.add_argument(
        "--delay", type=source_delay, action="append", default=[], metavar="NAME=MS", help="delay of one source"
    )
    parser.add_argument(
        "--straggling-bps",
        type=int,
        default=0,
        help=f"share of calls that take {STRAGGLING} times the delay, in basis points",
    )
    args = parser.parse_args()
    delays_ms = {**dict.fromkeys(SOURCE_NAMES, args.delay_ms), **dict(args.delay)}
    uvloop.run(serve(args.users, Behaviour(delays_ms, dict.fromkeys(SOURCE_NAMES, args.straggling_bps))))


if __name__ == "__main__":
    main()
