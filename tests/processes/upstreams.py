"""The sandbox on a socket, in the test's own process, so that its ledger can be audited; and whoever calls can be met on the way.

No process is started here, and nothing is known of who calls beyond the port that they call from.
"""

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
from cashier.sandbox.engine_rules import SubmitBody
from cashier.sandbox.server import create_app
from cashier.sandbox.upstream_answer import UpstreamAnswer

# Far beyond what any of it takes, also on a machine that has other things to do.
FOREVER_S = 30
READS = 8


class Call(StrEnum):
    """Of whom what is asked."""

    READ = "a read"
    LOOK_UP = "the look-up"
    DECIDE = "the decision"
    VERIFY = "the verification"
    SUBMIT = "the submit"
    REVERSE = "the reverse"
    RESULT = "the result"


class Moment(StrEnum):
    """Of a call: it is here and nothing was done yet, or it was done and nobody has been told."""

    BEFORE = "before"
    AFTER = "after"


class Meeting:
    """One call, held up where it was to be met. `port`: where it comes from."""

    def __init__(self, name: Call, nth: int, moment: Moment) -> None:
        self.name, self.moment = name, moment
        self._left = nth
        self._reached, self._go_on = asyncio.Event(), asyncio.Event()
        self.port = 0
        self.body = b""

    def awaits(self, name: Call, moment: Moment) -> bool:
        """To be asked of every call: it counts."""
        self._left -= (name, moment) == (self.name, self.moment)
        return self._left == 0 and (name, moment) == (self.name, self.moment)

    async def hold(self, request: web.Request) -> None:
        self.port = port_of(request)
        self.body = await request.read()
        self._reached.set()
        await self._go_on.wait()

    async def reached(self) -> None:
        async with asyncio.timeout(FOREVER_S):
            await self._reached.wait()

    def let_go(self) -> None:
        self._go_on.set()


class Upstreams:
    """A new world, in calm weather. `calls`: what was asked, in the order in which it came; `ports`: by whom."""

    def __init__(self) -> None:
        self.world = World()
        self.weather = weather_named("still")
        self.calls: list[Call] = []
        self.ports: set[int] = set()
        self._meetings: list[Meeting] = []
        self._heard = asyncio.Event()

    def meet(self, name: Call, moment: Moment, nth: int = 1) -> Meeting:
        """The nth call of this name from now on."""
        meeting = Meeting(name, nth, moment)
        self._meetings.append(meeting)
        return meeting

    async def heard(self, name: Call, count: int) -> None:
        """So many calls of this name, since the beginning."""
        async with asyncio.timeout(FOREVER_S):
            while self.calls.count(name) < count:
                self._heard.clear()
                await self._heard.wait()

    def arrives_late(self, meeting: Meeting) -> UpstreamAnswer:
        """The submit that was held up is carried out now, though nobody is left to be told."""
        submission = msgspec.json.decode(meeting.body, type=SubmitBody)
        return self.world.engine.submit(submission, submission.payment_id)

    def assert_paid_once(self, order_id: str) -> None:
        """By one payment, which alone took money for the order; and nothing that the audit finds is wrong."""
        self.world.catch_up()
        assert self.world.audit() == []
        what = Counter(entry.what for entry in self.world.ledger.entries if entry.order_id == order_id)
        assert (what["SUCCEEDED"], what["ORDER_PAID"]) == (1, 1), what

    def middleware(self) -> Middleware:
        @web.middleware
        async def met(request: web.Request, handler: Handler) -> web.StreamResponse:
            name = named(request)
            self.calls.append(name)
            self.ports.add(port_of(request))
            self._heard.set()
            await self._hold(name, Moment.BEFORE, request)
            response = await handler(request)
            await self._hold(name, Moment.AFTER, request)
            return response

        return met

    async def _hold(self, name: Call, moment: Moment, request: web.Request) -> None:
        for meeting in [meeting for meeting in self._meetings if meeting.awaits(name, moment)]:
            await meeting.hold(request)


def named(request: web.Request) -> Call:
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
    """Of the caller; 0 where they have gone already."""
    transport = request.transport
    peer = None if transport is None else transport.get_extra_info("peername")
    return peer[1] if peer else 0


def listening() -> socket.socket:
    """A port for all the sandboxes to come, one after the other: who was started early knows where they will be."""
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    found.listen(1024)
    return found


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
