"""A checkout in virtual time: the whole service over the sandbox's world in one process, and what its upstreams saw of it.

Nobody asserts here, but for one thing: whatever a test has done, the ledger is right in the end and nothing is left under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import Any

import msgspec

from cashier.consultation.flow import Consultation
from cashier.core import Cashier
from cashier.domain.order import ConsultRequest
from cashier.domain.pay_method import Availability, PayMethod
from cashier.domain.payment_request import PaymentRequest
from cashier.domain.payment_resource import Payment
from cashier.payments.flow import PaymentFlow
from cashier.payments.live_attempts import LiveAttempts, ScriptStore
from cashier.sandbox import CASES, LocalUpstreams, World, read_forecast, weather_named
from cashier.sandbox.ledger import Entry
from cashier.settings.loader import configuration
from cashier.settings.schema import Configuration
from cashier.source_errors import Unreachable
from cashier.wire.transport import Request, Response
from tests.fanout.scripted import timers_set
from tests.support.sandbox_payments import loop_clock, sandbox_call

OTP = "246810"
REQUIRED = ("order", "merchant", "member")
GATING = ("card", "balance", "channel", "quota")
Says = Callable[[Request], Awaitable[Response]]


class Checkout:
    """`asked`: every call that an upstream got, by what it was, in order. `bodies`: what was posted with those that have a body.

    `silent`: sources of the consultation that do not answer. `held`: calls that wait, before anything is done. `says`: who answers a call
    in the sandbox's place. `workers`: the services, of which most tests have one.
    """

    def __init__(self, order_cny: dict[str, int]) -> None:
        self.world = World(clock=loop_clock())
        self.weather = weather_named("still")
        self.asked: list[str] = []
        self.asked_at_s: list[tuple[str, float]] = []
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.silent: set[str] = set()
        self.held: dict[str, asyncio.Event] = {}
        self.says: dict[str, Says] = {}
        self.workers: list[Cashier] = []
        self._sandbox = sandbox_call(self.world, self.weather)
        self._sources = LocalUpstreams(self.world, self.weather)
        self._began_s = asyncio.get_running_loop().time()
        self._repriced = frozenset(order_cny)
        for order_id, value in order_cny.items():
            self.reprice(order_id, value)

    def worker(self, config: Configuration, store: ScriptStore | None = None) -> Cashier:
        sources = {name: self._source(name) for name in self._sources}
        services = dict.fromkeys(("risk", "engine", "acquirer"), self._service)
        cashier = Cashier(sources={**sources, **services}, config=config, clock=self.world.clock)
        if store is not None:
            self.of(cashier)._attempt_guard._live_attempts = LiveAttempts(store)
        self.workers.append(cashier)
        return cashier

    def of(self, cashier: Cashier) -> PaymentFlow:
        assert cashier.payments is not None
        return cashier.payments

    @property
    def payments(self) -> PaymentFlow:
        return self.of(self.workers[0])

    # What a client does

    async def consult(self, case: str, **other: Any) -> Consultation:
        """Without a claim of the amount where the order has another one than in the case."""
        told = {**CASES[case].request, **other}
        if told["order_id"] in self._repriced:
            del told["amount"]
        return await self.workers[0].consult(msgspec.convert(told, ConsultRequest))

    async def chosen(self, case: str, method_id: str, option_id: str | None = None, **other: Any) -> PaymentRequest:
        """The submit of a way that a consultation of now offers. `other`: fields of the submit, and a terminal or a product."""
        asked = {
            name: other.pop(name) for name in ("terminal", "product", "user_id", "locale", "order_id") if name in other
        }
        return self.taking(case, await self.consult(case, **asked), method_id, option_id, **asked, **other)

    def taking(
        self, case: str, offer: Consultation, method_id: str, option_id: str | None = None, **other: Any
    ) -> PaymentRequest:
        method = by_id(offer, method_id)
        option = next((one for one in method.options if one.option_id == option_id), None)
        amount = (option.amount if option is not None else None) or method.amount
        assert amount is not None
        named = ("order_id", "user_id", "merchant_id", "product", "terminal", "locale")
        told = {name: CASES[case].request[name] for name in named if name in CASES[case].request}
        told |= {
            "method_id": method_id,
            "option_id": option_id,
            "expected_payable": msgspec.to_builtins(amount.payable),
        }
        told |= {
            "promotion_ids": [each.promotion_id for each in amount.discounts],
            "consult_token": offer.consult_token,
        }
        return msgspec.convert({**told, **other}, PaymentRequest)

    async def submit(self, request: PaymentRequest, key: str = "k1", worker: int = 0) -> Payment:
        return await self.of(self.workers[worker]).submit(request, key)

    async def pay(
        self, case: str, method_id: str, option_id: str | None = None, *, key: str = "k1", **other: Any
    ) -> Payment:
        return await self.submit(await self.chosen(case, method_id, option_id, **other), key)

    async def answer(self, payment: Payment, value: str = OTP) -> Payment:
        return await self.payments.answer(payment.payment_id, payment.payment_token, value)

    async def cancel(self, payment: Payment) -> Payment:
        return await self.payments.cancel(payment.payment_id, payment.payment_token)

    async def look(self, payment: Payment, wait_ms: int = 0) -> Payment:
        return await self.payments.look(payment.payment_id, payment.payment_token, wait_ms=wait_ms)

    async def ended(self, payment: Payment) -> Payment:
        """Followed to its end."""
        return [told async for told in self.payments.follow(payment.payment_id, payment.payment_token)][-1]

    # What happens elsewhere

    def befall(self, source: str, *faults: str, on: str | None = None, always: bool = False) -> None:
        """The next calls go wrong so, each once; or all from now on."""
        told: dict[str, Any] = {"next": [{"fault": fault, "on": on} for fault in faults]}
        if always:
            told = {"faults": dict.fromkeys(faults, 10_000)}
        self.weather.change(source, read_forecast(source, told, self.weather.start(source)))

    def slow_engine(self, ms: int) -> None:
        """Each of its answers takes so long from now on; what it does it does at once."""
        self.weather.change(
            "engine",
            read_forecast("engine", {"latency": {"shape": "constant", "ms": ms}}, self.weather.start("engine")),
        )

    def clear(self) -> None:
        self.weather.restore()
        self.silent.clear()

    def settle(self, payment: Payment, result: Any = "SUCCEEDED", paid: int | None = None) -> None:
        assert self.world.engine.settle(payment.payment_id, result, paid).status == 200

    def reprice(self, order_id: str, value: int) -> None:
        order = self.world.cast._orders[order_id]
        order["amount"] = {**order["amount"], "value": value}

    def close_channels(self, *channel_ids: str) -> None:
        for channel_id in channel_ids:
            channel = self.world.cast.channel(channel_id)
            assert channel is not None
            channel["status"] = "CLOSED"

    # What is to be seen of it

    def count(self, call: str) -> int:
        return self.asked.count(call)

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [body for name, body in self.bodies if name == "submit"]

    def times_s(self, call: str) -> list[int]:
        return [round(at_s) for name, at_s in self.asked_at_s if name == call]

    def forget(self) -> None:
        """From here on is counted."""
        self.asked.clear()
        self.bodies.clear()
        self.asked_at_s.clear()
        self._began_s = asyncio.get_running_loop().time()

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self.world.ledger.entries

    def kept(self) -> dict[str, int]:
        """What left each source and did not come back, in minor units."""
        found: dict[str, int] = {}
        for entry in self.entries:
            if entry.source:
                found[entry.source] = found.get(entry.source, 0) + entry.moved
        return {source: value for source, value in found.items() if value}

    def paid_by(self, order_id: str) -> list[str]:
        return [entry.payment_id for entry in self.entries if entry.what == "ORDER_PAID" and entry.order_id == order_id]

    def note(self, name: str) -> None:
        self.asked.append(name)
        self.asked_at_s.append((name, asyncio.get_running_loop().time() - self._began_s))

    def _source(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def answer(**asked: Any) -> Any:
            self.note(name)
            if name in self.silent:
                raise Unreachable("nobody there")
            return await self._sources[name](**asked)

        return answer

    async def _service(self, request: Request) -> Response:
        name = called(request)
        self.note(name)
        if request.body:
            self.bodies.append((name, msgspec.json.decode(request.body)))
        if name in self.held:
            await self.held[name].wait()
        return await self.says.get(name, self._sandbox)(request)


def called(request: Request) -> str:
    """decide, verify, submit, look_up, reverse or result."""
    last = request.target.rpartition("/")[2]
    if last in ("verify", "reverse", "result"):
        return last
    if request.method == "GET":
        return "look_up"
    return "decide" if last == "decisions" else "submit"


def by_id(offer: Consultation, method_id: str) -> PayMethod:
    return next(method for method in offer.methods if method.method_id == method_id)


def first_available(offer: Consultation) -> str:
    return next(method.method_id for method in offer.methods if method.availability is Availability.AVAILABLE)


async def connection_refused(request: Request) -> Response:
    raise Unreachable("connection refused", sent=False)


@cache
def configured(secrets: tuple[str, ...] = (), **accept: Any) -> Configuration:
    """Read once for all tests: reading takes longer than most of them. Consultations go by the machine's clock, which has no say here."""
    patient = {"deadline_ms": 20_000, "max_deadline_ms": 20_000}
    told = {"tokens": {"secrets": secrets or ("s" * 32,)}, "consult": patient, "accept": {"check_ms": 20_000, **accept}}
    return configuration(told, "the configuration of a test")


@asynccontextmanager
async def checkout(
    *,
    workers: int = 1,
    store: ScriptStore | None = None,
    order_cny: dict[str, int] | None = None,
    secrets: tuple[str, ...] = (),
    **accept: Any,
) -> AsyncIterator[Checkout]:
    """`accept`: what of `[accept]` differs. `order_cny`: orders of another amount."""
    found = Checkout(order_cny or {})
    config = configured(secrets, **accept)
    tasks = asyncio.all_tasks()
    async with AsyncExitStack() as open_:
        for _ in range(workers):
            await open_.enter_async_context(found.worker(config, store))
        yield found
        for cashier in found.workers:
            assert not found.of(cashier)._runs, "something is still under way"
            assert not found.of(cashier)._presenter._polls._polls, "somebody still waits"
    for _ in range(3):
        await asyncio.sleep(0)
    assert not timers_set()
    assert asyncio.all_tasks() == tasks
    assert found.world.audit() == []


class SharedStore:
    """What workers share, in memory. `lost`: it answers nobody. `holders`: by key, who lives there."""

    def __init__(self) -> None:
        self.holders: dict[bytes, tuple[str, float]] = {}
        self.lost = False

    def holder(self, part: str) -> str | None:
        return next((holder for key, (holder, _) in self.holders.items() if part.encode() in key), None)

    async def run_script(self, script: str, key: bytes, *arguments: str | int) -> Any:
        """Told by its arguments: with a time to live it is about living, without one about an end."""
        await asyncio.sleep(0)
        if self.lost:
            return None
        now_s, holder = asyncio.get_running_loop().time(), str(arguments[0])
        found = self.holders.get(key)
        if found is not None and found[1] <= now_s:
            found = None
        if len(arguments) == 1:
            ours = found is not None and found[0] == holder
            if ours:
                del self.holders[key]
            return int(ours)
        ends_s = now_s + int(arguments[1]) / 1_000
        if found is None or found[0] == holder:
            self.holders[key] = (holder, max(ends_s, found[1] if found else ends_s))
        return self.holders[key][0].encode() if found is None else found[0].encode()
