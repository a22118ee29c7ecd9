"""Workers over one world: each is a whole `Cashier` and may be killed at any await, like a process.

A task belongs to the worker in whose context it was created. Killing a worker cancels its tasks and
cuts it off: calls from their clean-up reach neither the shared store nor an upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import partial
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import msgspec
from msgspec.structs import replace

from cashier.consultation.flow import ConsultFlow
from cashier.consultation.source_pipeline import SourcePipeline
from cashier.core import Cashier
from cashier.domain.pay_method import Kind
from cashier.payments import attempt_leases
from cashier.sandbox import Fault, InjectedFault, LocalUpstreams, Weather, World
from cashier.sandbox.weather import PaymentFault, PlannedFault
from cashier.settings.loader import configuration
from cashier.settings.schema import Configuration
from cashier.source_errors import Overloaded, Unreachable
from cashier.wire.transport import Request, Response
from cashier.wiring import flows, upstreams
from tests.payments.model_loop import SkippingLoop
from tests.support.sandbox_payments import sandbox_call

# The steps of a rotation: a new key is known everywhere before it signs, and the old one is retired
# when no worker signs with it. Tokens that it signed are worthless then.
KEYS = [keys for old, new in pairwise(letter * 32 for letter in "abcd") for keys in ([old], [old, new], [new, old])]


def model_configuration(keys: list[str], policy: int, *, seals: bool) -> Configuration:
    """`policy`: one of several numbers and offers, which a reload may change."""
    accept: tuple[dict[str, Any], ...] = (
        {},
        {"check_ms": 300},
        {"every_gating_source": False},
        {"most_challenges": 2, "follow_s": 130},
    )
    settings: dict[str, Any] = {
        "tokens": {"secrets": keys, "ttl_s": 86_400},
        "accept": accept[policy % len(accept)],
        # No timer of gauges: it would tick through days, and outlive a worker that is killed.
        "operations": {"enabled": False},
    }
    if not seals:
        settings["sources"] = {"engine": {"url": "http://engine.example", "seals": False}}
    built = configuration(settings, "the model's configuration")
    if policy % 3 != 2:
        return built
    methods = built.catalog.methods
    alone = {Kind.BALANCE: replace(methods[Kind.BALANCE], combine=False)}
    return replace(built, catalog=replace(built.catalog, methods={**methods, **alone}))


class CallTrace(msgspec.Struct):
    """One call of a client. `accepted`: ids of the payments that the engine created from it."""

    accepted: set[str]


WORKER: ContextVar[Worker | None] = ContextVar("WORKER", default=None)
TRACE: ContextVar[CallTrace | None] = ContextVar("TRACE", default=None)


class Upstreams:
    """What outlives a worker: the world and the store.

    `refusing`: services whose next call finds no connection. `seals`: whether the engine can refuse
    what it does not have. `beside`: attempts that a worker sent beside a live one of its own.
    `record_fault`: called when a fault may take effect.
    """

    def __init__(
        self,
        loop: SkippingLoop,
        world: World,
        weather: Weather,
        record_fault: Callable[[], None],
        *,
        with_store: bool,
        seals: bool,
    ) -> None:
        self.loop = loop
        self.world = world
        self.weather = weather
        self.refusing: set[str] = set()
        self.seals = seals
        self.beside: list[str] = []
        self.store = Store(loop) if with_store else None
        self._record_fault = record_fault
        self._payments = sandbox_call(world, weather)
        self._sources = LocalUpstreams(world, weather)

    def service(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        async def call(request: Request) -> Response:
            _check_alive()
            if any(fault.on == _call_name(name, request) for fault in self.weather.profile(name).next):
                self._record_fault()
            if name in self.refusing and (name != "engine" or request.target == "/payments"):
                self.refusing.discard(name)
                self._record_fault()
                raise Unreachable("refused", sent=False)
            if request.target == "/payments":
                return await self._submit(request)
            if request.target.endswith("/reverse") and not self.seals:
                self._plan_no_seal()
            return await self._payments(request)

        return call

    def source(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def answer(**inputs: Any) -> Any:
            _check_alive()
            try:
                return await self._sources[name](**inputs)
            except InjectedFault as trouble:
                if trouble.fault is Fault.OVERLOAD:
                    raise Overloaded("503", trouble.retry_after_s) from None
                raise Unreachable(trouble.fault.value) from None

        return answer

    async def _submit(self, request: Request) -> Response:
        body = msgspec.json.decode(request.body)
        payment_id = body["payment_id"]
        self._note_sent(body["order_id"], payment_id)
        new, trace = self.world.engine.attempt(payment_id) is None, TRACE.get()
        try:
            return await self._payments(request)
        finally:
            attempt = self.world.engine.attempt(payment_id)
            # Another worker may have sent another body meanwhile.
            accepted = attempt is not None and attempt.submission.fingerprint == body["fingerprint"]
            if new and accepted and trace is not None:
                trace.accepted.add(payment_id)

    def _note_sent(self, order_id: str, payment_id: str) -> None:
        """A worker knows what it sent, so it sends nothing beside a live attempt of its own."""
        worker = WORKER.get()
        assert worker is not None
        earlier = worker.sent.get(order_id)
        if earlier in self.world.engine.live and earlier != payment_id:
            self.beside.append(f"{payment_id} was sent beside {earlier}, by the same worker")
        worker.sent[order_id] = payment_id

    def _plan_no_seal(self) -> None:
        profile = self.weather.profile("engine")
        if not any(fault.on == "reverse" for fault in profile.next):
            planned = PlannedFault(PaymentFault.NO_SEAL, "reverse")
            self.weather.change("engine", replace(profile, next=(planned, *profile.next)))


class Store:
    """Runs the scripts of attempt leases as Valkey would, but counts nothing.

    `lost`: it does not answer.
    """

    def __init__(self, loop: SkippingLoop) -> None:
        self._loop = loop
        self._claims: dict[bytes, tuple[str, float]] = {}
        self.lost = False

    def forget(self) -> None:
        self._claims.clear()

    async def run_script(self, script: str, key: bytes, *arguments: str | int) -> Any:
        await asyncio.sleep(0.001)
        worker = WORKER.get()
        if self.lost or (worker is not None and not worker.alive):
            return None
        holder, until_s = self._claims.get(key, ("", 0.0))
        if until_s <= self._loop.time():
            holder = ""
        if script == attempt_leases._COUNT:
            return 0
        requester = str(arguments[0])
        if script == attempt_leases._RELEASE:
            return int(holder == requester and bool(self._claims.pop(key)))
        if holder in ("", requester):
            self._claims[key] = (
                requester,
                max(until_s if holder else 0.0, self._loop.time() + int(arguments[1]) / 1000),
            )
        return (holder or requester).encode()


class Worker:
    """One process. Close it or kill it.

    `rotation`: the index of its keys in `KEYS`. `sent`: the payment last sent, by order.
    """

    def __init__(self, upstreams: Upstreams, rotation: int = 0) -> None:
        self.alive = True
        self.rotation = rotation
        self._seals = upstreams.seals
        configured = model_configuration(KEYS[rotation], 0, seals=self._seals)
        self.sent: dict[str, str] = {}
        self.tasks: set[asyncio.Task[Any]] = set()
        self._requests: set[asyncio.Task[Any]] = set()
        self._loop = loop = upstreams.loop
        sources = {name: upstreams.source(name) for name in LocalUpstreams(upstreams.world, upstreams.weather)}
        services = {name: upstreams.service(name) for name in ("risk", "engine", "acquirer")}
        with _the_clock_of(loop):
            self.cashier = Cashier(config=configured, sources={**sources, **services}, clock=loop.utc_now)
        self.payments._attempt_guard._attempt_leases._store = upstreams.store
        loop.run_until_complete(self.begin(self.cashier.__aenter__(), CallTrace(set())))

    @property
    def payments(self) -> Any:
        return self.cashier.payments

    def begin(self, work: Coroutine[Any, Any, Any], trace: CallTrace) -> asyncio.Task[Any]:
        """Start a request at this worker."""
        context = copy_context()
        context.run(WORKER.set, self)
        context.run(TRACE.set, trace)
        request = self._loop.create_task(work, context=context)
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)
        return request

    def reload(self, policy: int) -> None:
        with _the_clock_of(self._loop):
            self.cashier.reload(model_configuration(KEYS[self.rotation], policy, seals=self._seals))

    def kill(self) -> None:
        self.alive = False
        for task in tuple(self.tasks):
            task.cancel()

    def close(self) -> None:
        """As a server stops: waiting requests return, the others end, then the core closes."""
        self.payments.stop_waiting()
        self._loop.turn(1)  # clients that have just connected
        while self._requests:
            self._loop.run_until_complete(asyncio.wait(self._requests))
        self._loop.run_until_complete(self.begin(self.cashier.__aexit__(None, None, None), CallTrace(set())))

    @property
    def leftovers(self) -> list[str]:
        """What is still under way."""
        state = repr(self.payments)
        idle = ("under_way=0", "queries=0 reversals=0", "keys=0 waiters=0")
        return [state] * (not all(part in state for part in idle)) + [repr(task) for task in self.tasks]

    def own(self, task: asyncio.Task[Any]) -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        if not self.alive:
            task.cancel()


@contextmanager
def _the_clock_of(loop: SkippingLoop) -> Iterator[None]:
    """Consultations use a clock of their own; it must be the model's too."""
    with (
        patch.object(upstreams, "SourcePipeline", partial(SourcePipeline, clock_ns=loop.time_ns)),
        patch.object(flows, "ConsultFlow", partial(ConsultFlow, clock_ns=loop.time_ns)),
    ):
        yield


def owning_task_factory(
    loop: asyncio.AbstractEventLoop, work: Any, *, context: Context | None = None, **named: Any
) -> asyncio.Task[Any]:
    """Task factory of the loop: a task belongs to the worker of its context."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context, **named)
    worker = (context or copy_context()).get(WORKER)
    if worker is not None:
        worker.own(task)
    return task


def _call_name(service: str, request: Request) -> str:
    """The call's name in a sandbox profile."""
    if service == "engine":
        return "look_up" if request.method == "GET" else "submit" if request.target == "/payments" else "reverse"
    return "read" if service == "acquirer" else "verify" if request.target.endswith("/verify") else "decide"


def _check_alive() -> None:
    worker = WORKER.get()
    if worker is not None and not worker.alive:
        raise Unreachable("the process is gone", sent=False)
