"""The sandbox on a socket in the test's process: its ledger is audited, its calls can be held."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from cashier.sandbox import World, weather_named
from cashier.sandbox.decline_rules import SubmitBody
from cashier.sandbox.server import create_app
from cashier.sandbox.upstream_answer import UpstreamAnswer

# Far more than a busy machine needs.
TIMEOUT_S = 30
SOURCE_READS = 8


class Call(StrEnum):
    READ = "a read"
    LOOK_UP = "the look-up"
    DECIDE = "the decision"
    VERIFY = "the verification"
    SUBMIT = "the submit"
    REVERSE = "the reverse"
    RESULT = "the result"


class Moment(StrEnum):
    """Before the call has an effect, or after it and before the answer."""

    BEFORE = "before"
    AFTER = "after"


class HeldCall:
    """One call, held at a moment. `port`: the caller's."""

    def __init__(self, name: Call, nth: int, moment: Moment) -> None:
        self.name, self.moment = name, moment
        self._left = nth
        self._reached, self._released = asyncio.Event(), asyncio.Event()
        self.port = 0
        self.body = b""

    def awaits(self, name: Call, moment: Moment) -> bool:
        """Count this call; True for the one to hold."""
        self._left -= (name, moment) == (self.name, self.moment)
        return self._left == 0 and (name, moment) == (self.name, self.moment)

    async def hold(self, request: web.Request) -> None:
        self.port = port_of(request)
        self.body = await request.read()
        self._reached.set()
        await self._released.wait()

    async def reached(self) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await self._reached.wait()

    def release(self) -> None:
        self._released.set()


class Upstreams:
    """A new world without faults. `calls`: all calls in order. `ports`: the callers' ports."""

    def __init__(self) -> None:
        self.world = World()
        self.weather = weather_named("still")
        self.calls: list[Call] = []
        self.ports: set[int] = set()
        self._meetings: list[HeldCall] = []

    def hold(self, name: Call, moment: Moment, nth: int = 1) -> HeldCall:
        """Hold the nth call of this name from now on."""
        held_call = HeldCall(name, nth, moment)
        self._meetings.append(held_call)
        return held_call

    def arrives_late(self, held_call: HeldCall) -> UpstreamAnswer:
        """Execute the held submit now, without a caller."""
        submission = msgspec.json.decode(held_call.body, type=SubmitBody)
        return self.world.engine.submit(submission, submission.payment_id)

    def assert_paid_once(self, order_id: str) -> None:
        """One payment took money and paid the order, and the ledger passes its audit."""
        self.world.catch_up()
        assert self.world.audit() == []
        what = Counter(entry.what for entry in self.world.ledger.entries if entry.order_id == order_id)
        assert (what["SUCCEEDED"], what["ORDER_PAID"]) == (1, 1), what

    def middleware(self) -> Middleware:
        @web.middleware
        async def hold_calls(request: web.Request, handler: Handler) -> web.StreamResponse:
            name = call_of(request)
            self.calls.append(name)
            self.ports.add(port_of(request))
            await self._hold(name, Moment.BEFORE, request)
            response = await handler(request)
            await self._hold(name, Moment.AFTER, request)
            return response

        return hold_calls

    async def _hold(self, name: Call, moment: Moment, request: web.Request) -> None:
        for held_call in [held_call for held_call in self._meetings if held_call.awaits(name, moment)]:
            await held_call.hold(request)


def call_of(request: web.Request) -> Call:
    match request.method, request.path.split("/")[1:]:
        case "POST", ["risk", "decisions"]:
            return Call.DECIDE
        case "POST", ["risk", "challenges", _, "verify"]:
            return Call.VERIFY
        case "POST", ["payments"]:
            return Call.SUBMIT
        case "POST", ["payments", _, "reverse"]:
            return Call.REVERSE
        case "GET", ["payments", _]:
            return Call.LOOK_UP
        case "GET", ["orders", _, "result"]:
            return Call.RESULT
    return Call.READ


def port_of(request: web.Request) -> int:
    """The caller's port; 0 after a disconnect."""
    transport = request.transport
    peer = None if transport is None else transport.get_extra_info("peername")
    return peer[1] if peer else 0


def listening_socket() -> socket.socket:
    """A socket for all sandboxes in turn, so that services started ahead know their port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    return listener


@asynccontextmanager
async def served(listener: socket.socket) -> AsyncIterator[Upstreams]:
    upstreams = Upstreams()
    app = create_app(upstreams.world, upstreams.weather)
    app.middlewares.append(upstreams.middleware())
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.SockSite(runner, listener.dup()).start()
        yield upstreams
    finally:
        await runner.cleanup()
