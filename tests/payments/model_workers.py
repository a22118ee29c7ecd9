"""Workers over one world: each a whole `Cashier` of its own, that may be killed at any await, as by the machine's power switch.

Everything that a worker begins is known by the context in which it was begun. A killed worker does and says nothing more: its tasks are
cancelled, and whatever their clean-up wants to ask of the shared store or of an upstream reaches nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any
from unittest.mock import patch

import msgspec

from cashier import wiring
from cashier.consultation.flow import ConsultFlow
from cashier.consultation.source_pipeline import SourcePipeline
from cashier.core import Cashier
from cashier.payments import live_attempts
from cashier.sandbox import Fault, LocalUpstreams, UpstreamTrouble, Weather, World
from cashier.settings.loader import configuration
from cashier.source_errors import Overloaded, Unreachable
from cashier.wire.transport import Request, Response
from tests.payments.model_loop import SkippingLoop
from tests.support.sandbox_payments import sandbox_call

CONFIGURATION = configuration({"tokens": {"secrets": ["s" * 32], "ttl_s": 86_400}}, "the model's configuration")


class Trace(msgspec.Struct):
    """One call of a client: the payments that came to be at the engine by what it sent."""

    took: set[str]


WORKER: ContextVar[Worker | None] = ContextVar("WORKER", default=None)
TRACE: ContextVar[Trace | None] = ContextVar("TRACE", default=None)


class Outside:
    """All that outlives a worker. `refusing`: whose next call finds no connection, so that nothing is sent. `trouble` is told
    when something may go wrong."""

    def __init__(
        self, loop: SkippingLoop, world: World, weather: Weather, guarded: bool, trouble: Callable[[], None]
    ) -> None:
        self.loop = loop
        self.world = world
        self.weather = weather
        self.refusing: set[str] = set()
        self.store = Store(loop) if guarded else None
        self._trouble = trouble
        self._payments = sandbox_call(world, weather)
        self._sources = LocalUpstreams(world, weather)

    def service(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        async def call(request: Request) -> Response:
            _alive()
            if any(one.on == _sort(name, request) for one in self.weather.forecast(name).next):
                self._trouble()
            if name in self.refusing and (name != "engine" or request.target == "/payments"):
                self.refusing.discard(name)
                self._trouble()
                raise Unreachable("refused", sent=False)
            if request.target != "/payments":
                return await self._payments(request)
            return await self._submitted(request)

        return call

    def source(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def answer(**asked: Any) -> Any:
            _alive()
            try:
                return await self._sources[name](**asked)
            except UpstreamTrouble as trouble:
                if trouble.fault is Fault.OVERLOAD:
                    raise Overloaded("503", trouble.retry_after_s) from None
                raise Unreachable(trouble.fault.value) from None

        return answer

    async def _submitted(self, request: Request) -> Response:
        payment_id = msgspec.json.decode(request.body)["payment_id"]
        new, trace = self.world.engine.attempt(payment_id) is None, TRACE.get()
        try:
            return await self._payments(request)
        finally:
            if new and trace is not None and self.world.engine.attempt(payment_id) is not None:
                trace.took.add(payment_id)


class Store:
    """What a Valkey does with the two scripts of the early guard. `lost`: it does not answer."""

    def __init__(self, loop: SkippingLoop) -> None:
        self._loop = loop
        self._held: dict[bytes, tuple[str, float]] = {}
        self.lost = False

    def forget(self) -> None:
        self._held.clear()

    async def run_script(self, script: str, key: bytes, *arguments: str | int) -> Any:
        await asyncio.sleep(0.001)
        worker = WORKER.get()
        if self.lost or (worker is not None and not worker.alive):
            return None
        holder, until_s = self._held.get(key, ("", 0.0))
        if until_s <= self._loop.time():
            holder = ""
        asking = str(arguments[0])
        if script == live_attempts._RELEASE:
            return int(holder == asking and bool(self._held.pop(key)))
        if holder in ("", asking):
            self._held[key] = (asking, max(until_s if holder else 0.0, self._loop.time() + int(arguments[1]) / 1000))
        return (holder or asking).encode()


class Worker:
    """One process. To be opened, and then closed or killed."""

    def __init__(self, outside: Outside) -> None:
        self.alive = True
        self.tasks: set[asyncio.Task[Any]] = set()
        self._loop = loop = outside.loop
        sources = {name: outside.source(name) for name in LocalUpstreams(outside.world, outside.weather)}
        services = {name: outside.service(name) for name in ("risk", "engine", "acquirer")}
        # The deadlines of a consultation are by another clock than its loop's, and both have to be the model's.
        with (
            patch.object(wiring, "SourcePipeline", partial(SourcePipeline, clock_ns=loop.time_ns)),
            patch.object(wiring, "ConsultFlow", partial(ConsultFlow, clock_ns=loop.time_ns)),
        ):
            self.cashier = Cashier(config=CONFIGURATION, sources={**sources, **services}, clock=loop.day)
        self.cashier._parts.live_attempts._store = outside.store
        loop.run_until_complete(self.begin(self.cashier.__aenter__(), Trace(set())))

    @property
    def payments(self) -> Any:
        return self.cashier.payments

    def begin(self, work: Coroutine[Any, Any, Any], trace: Trace) -> asyncio.Task[Any]:
        """A request that has arrived here."""
        context = copy_context()
        context.run(WORKER.set, self)
        context.run(TRACE.set, trace)
        return self._loop.create_task(work, context=context)

    def kill(self) -> None:
        self.alive = False
        for task in tuple(self.tasks):
            task.cancel()

    def close(self) -> None:
        self._loop.run_until_complete(self.begin(self.cashier.__aexit__(None, None, None), Trace(set())))

    @property
    def left(self) -> list[str]:
        """What is still under way; nothing, where all that there was has ended."""
        shown = repr(self.payments)
        empty = ("under_way=0", "queries=0 reversals=0", "keys=0 waiters=0")
        return [shown] * (not all(each in shown for each in empty)) + [repr(task) for task in self.tasks]

    def own(self, task: asyncio.Task[Any]) -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        if not self.alive:
            task.cancel()


def owned(
    loop: asyncio.AbstractEventLoop, work: Any, *, context: Context | None = None, **named: Any
) -> asyncio.Task[Any]:
    """The loop's task factory: whose context it is, is whose task it is."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context, **named)
    worker = (context or copy_context()).get(WORKER)
    if worker is not None:
        worker.own(task)
    return task


def _sort(service: str, request: Request) -> str:
    """As the weather calls it."""
    if service == "engine":
        return "look_up" if request.method == "GET" else "submit" if request.target == "/payments" else "reverse"
    return "read" if service == "acquirer" else "verify" if request.target.endswith("/verify") else "decide"


def _alive() -> None:
    worker = WORKER.get()
    if worker is not None and not worker.alive:
        raise Unreachable("the process is gone", sent=False)
