"""A checkout in virtual time: the service over the sandbox's world, with its calls recorded.

`checkout` asserts at its end that the ledger passes its audit and that nothing is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import Any

import msgspec

from cashier.consultation.answer import Consultation
from cashier.core import Cashier
from cashier.domain.order import ConsultRequest
from cashier.domain.pay_method import Availability, PayMethod
from cashier.domain.payment_request import AttemptRequest, PaymentRequest
from cashier.domain.payment_resource import ChallengeSent, FoundPayment, Payment
from cashier.payments import attempt_leases
from cashier.payments.attempt_leases import ScriptStore
from cashier.payments.attempt_recovery import ReplacedPayment
from cashier.payments.flow import PaymentFlow
from cashier.sandbox import CASES, LocalUpstreams, World, parse_profile, weather_named
from cashier.sandbox.ledger import LedgerEntry
from cashier.settings.loader import configuration
from cashier.settings.schema import Configuration
from cashier.source_errors import Unreachable
from cashier.wire.transport import Request, Response
from tests.support.sandbox_payments import loop_clock, sandbox_call
from tests.support.virtual_consultation import cashiers_on_the_loops_clock
from tests.support.virtual_time import timers_set

OTP = "246810"
REQUIRED = ("order", "merchant", "member")
GATING = ("card", "balance", "channel", "quota")
Reply = Callable[[Request], Awaitable[Response]]


class Checkout:
    """One shop with its workers, upstreams and faults.

    `calls`: every upstream call by name, in order. `bodies`: the request bodies by call name.
    `silent`: sources that do not answer. `held`: calls that wait for an event before they start.
    `replies`: functions that replace the sandbox's answer, by call name.
    """

    def __init__(self, order_cny: dict[str, int]) -> None:
        self.world = World(clock=loop_clock())
        self.weather = weather_named("still")
        self.calls: list[str] = []
        self.call_times_s: list[tuple[str, float]] = []
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.silent: set[str] = set()
        self.held: dict[str, asyncio.Event] = {}
        self.replies: dict[str, Reply] = {}
        self.workers: list[Cashier] = []
        self._sandbox = sandbox_call(self.world, self.weather)
        self._sources = LocalUpstreams(self.world, self.weather)
        self._counted_since_s = asyncio.get_running_loop().time()
        self._repriced = frozenset(order_cny)
        for order_id, value in order_cny.items():
            self.reprice(order_id, value)

    def add_worker(self, config: Configuration, store: ScriptStore | None = None) -> Cashier:
        sources = {name: self._source(name) for name in self._sources}
        services = dict.fromkeys(("risk", "engine", "acquirer"), self._service)
        cashier = Cashier(sources={**sources, **services}, config=config, clock=self.world.clock)
        if store is not None:
            self.payments_of(cashier)._attempt_guard._attempt_leases._store = store
        self.workers.append(cashier)
        return cashier

    def payments_of(self, cashier: Cashier) -> PaymentFlow:
        assert cashier.payments is not None
        return cashier.payments

    @property
    def payments(self) -> PaymentFlow:
        return self.payments_of(self.workers[0])

    # Requests of a client

    async def consult(self, case: str, **fields: Any) -> Consultation:
        """Consult for a sandbox case. Makes no claim about the amount of a repriced order."""
        body = {**CASES[case].request, **fields}
        if body["order_id"] in self._repriced:
            del body["amount"]
        return await self.workers[0].consult(msgspec.convert(body, ConsultRequest))

    async def new_request(
        self, case: str, method_id: str, option_id: str | None = None, **fields: Any
    ) -> PaymentRequest:
        """A submit of a method from a new consultation.

        `fields`: other fields of either request.
        """
        consulted = {
            name: fields.pop(name)
            for name in ("terminal", "product", "user_id", "locale", "order_id")
            if name in fields
        }
        consultation = await self.consult(case, **consulted)
        return self.request_for(case, consultation, method_id, option_id, **consulted, **fields)

    def request_for(
        self, case: str, consultation: Consultation, method_id: str, option_id: str | None = None, **fields: Any
    ) -> PaymentRequest:
        """A submit of a method from this consultation."""
        method = method_by_id(consultation, method_id)
        option = next((option for option in method.options if option.option_id == option_id), None)
        amount = (option.amount if option is not None else None) or method.amount
        assert amount is not None
        names = ("order_id", "user_id", "merchant_id", "product", "terminal", "locale")
        body = {name: CASES[case].request[name] for name in names if name in CASES[case].request}
        body |= {
            "method_id": method_id,
            "option_id": option_id,
            "expected_payable": msgspec.to_builtins(amount.payable),
            "promotion_ids": [discount.promotion_id for discount in amount.discounts],
            "consult_token": consultation.consult_token,
        }
        return msgspec.convert({**body, **fields}, PaymentRequest)

    async def submit(self, request: PaymentRequest, key: str = "k1", worker: int = 0) -> Payment:
        return await self.payments_of(self.workers[worker]).submit(request, key)

    async def pay(
        self, case: str, method_id: str, option_id: str | None = None, *, key: str = "k1", **fields: Any
    ) -> Payment:
        return await self.submit(await self.new_request(case, method_id, option_id, **fields), key)

    async def find(self, case: str, **fields: Any) -> FoundPayment:
        named = {name: CASES[case].request[name] for name in ("order_id", "merchant_id", "user_id")}
        return await self.payments.find(**{**named, **fields})

    async def resume(self, case: str, payment_id: str, **fields: Any) -> Payment:
        return await self.payments_of(self.workers[-1]).resume(payment_id, attempt_request(case, **fields))

    async def replace(self, case: str, payment_id: str, **fields: Any) -> ReplacedPayment:
        return await self.payments_of(self.workers[-1]).replace(payment_id, attempt_request(case, **fields))

    async def answer(self, payment: Payment, value: str = OTP) -> Payment:
        return await self.payments.answer(payment.payment_id, payment.payment_token, value)

    async def resend(self, payment: Payment, worker: int = -1) -> ChallengeSent:
        payments = self.payments_of(self.workers[worker])
        return await payments.resend(payment.payment_id, payment.payment_token)

    async def cancel(self, payment: Payment) -> Payment:
        return await self.payments.cancel(payment.payment_id, payment.payment_token)

    async def look(self, payment: Payment, wait_ms: int = 0) -> Payment:
        return await self.payments.look(payment.payment_id, payment.payment_token, wait_ms=wait_ms)

    async def follow_to_end(self, payment: Payment) -> Payment:
        return [latest async for latest in self.payments.follow(payment.payment_id, payment.payment_token)][-1]

    # Faults and events outside

    def inject(self, source: str, *faults: str, on: str | None = None, always: bool = False) -> None:
        """Inject one fault into each of the next calls, or all faults into every call."""
        profile: dict[str, Any] = {"next": [{"fault": fault, "on": on} for fault in faults]}
        if always:
            profile = {"faults": dict.fromkeys(faults, 10_000)}
        self.weather.change(source, parse_profile(source, profile, self.weather.start(source)))

    def slow_engine(self, ms: int) -> None:
        """Delay the engine's answers, not its effects."""
        self.weather.change(
            "engine",
            parse_profile("engine", {"latency": {"shape": "constant", "ms": ms}}, self.weather.start("engine")),
        )

    def clear_faults(self) -> None:
        self.weather.restore()
        self.silent.clear()

    def settle(self, payment: Payment, result: Any = "SUCCEEDED", paid: int | None = None) -> None:
        assert self.world.engine.settle(payment.payment_id, result, paid).status == 200

    def reprice(self, order_id: str, value: int) -> None:
        order = self.world.population._orders[order_id]
        order["amount"] = {**order["amount"], "value": value}

    def restrict_promotion(self, promotion_id: str, *kinds: str) -> None:
        """Leave a promotion to these kinds of payment method."""
        for user in self.world.population.named_users:
            for promotion in user.promotions or ():
                if promotion["promotion_id"] == promotion_id:
                    promotion["kinds"] = kinds

    def close_channels(self, *channel_ids: str) -> None:
        for channel_id in channel_ids:
            channel = self.world.population.channel(channel_id)
            assert channel is not None
            channel["status"] = "CLOSED"

    # Observations

    def count(self, call: str) -> int:
        return self.calls.count(call)

    @property
    def submissions(self) -> list[dict[str, Any]]:
        return [body for name, body in self.bodies if name == "submit"]

    def times_s(self, call: str) -> list[int]:
        return [round(at_s) for name, at_s in self.call_times_s if name == call]

    def reset_counts(self) -> None:
        self.calls.clear()
        self.bodies.clear()
        self.call_times_s.clear()
        self._counted_since_s = asyncio.get_running_loop().time()

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        return self.world.ledger.entries

    def net_taken(self) -> dict[str, int]:
        """What left each source and did not come back, in minor units."""
        taken: dict[str, int] = {}
        for entry in self.entries:
            if entry.source:
                taken[entry.source] = taken.get(entry.source, 0) + entry.moved
        return {source: value for source, value in taken.items() if value}

    def payments_that_paid(self, order_id: str) -> list[str]:
        return [entry.payment_id for entry in self.entries if entry.what == "ORDER_PAID" and entry.order_id == order_id]

    def record_call(self, name: str) -> None:
        self.calls.append(name)
        self.call_times_s.append((name, asyncio.get_running_loop().time() - self._counted_since_s))

    def _source(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def answer(**inputs: Any) -> Any:
            self.record_call(name)
            if name in self.held:
                await self.held[name].wait()
            if name in self.silent:
                raise Unreachable("silent")
            return await self._sources[name](**inputs)

        return answer

    async def _service(self, request: Request) -> Response:
        name = call_name(request)
        self.record_call(name)
        if request.body:
            self.bodies.append((name, msgspec.json.decode(request.body)))
        if name in self.held:
            await self.held[name].wait()
        return await self.replies.get(name, self._sandbox)(request)


def attempt_request(case: str, **fields: Any) -> AttemptRequest:
    """By the case's own payer."""
    names = ("order_id", "merchant_id", "user_id", "product", "terminal", "locale")
    body = {name: CASES[case].request[name] for name in names if name in CASES[case].request}
    return msgspec.convert({**body, **fields}, AttemptRequest)


def call_name(request: Request) -> str:
    """One of decide, verify, resend, submit, look_up, reverse, result."""
    last = request.target.rpartition("/")[2]
    if last in ("verify", "resend", "reverse", "result"):
        return last
    if request.method == "GET":
        return "look_up"
    return "decide" if last == "decisions" else "submit"


def method_by_id(consultation: Consultation, method_id: str) -> PayMethod:
    return next(method for method in consultation.methods if method.method_id == method_id)


def first_available(consultation: Consultation) -> str:
    return next(method.method_id for method in consultation.methods if method.availability is Availability.AVAILABLE)


async def connection_refused(request: Request) -> Response:
    raise Unreachable("connection refused", sent=False)


@cache
def cached_configuration(secrets: tuple[str, ...] = (), **accept: Any) -> Configuration:
    """One configuration for all tests: reading it takes longer than most of them."""
    # No test of payments is about the deadline of a consultation.
    deadlines = {"deadline_ms": 20_000, "max_deadline_ms": 20_000}
    settings = {
        "tokens": {"secrets": secrets or ("s" * 32,)},
        "consult": deadlines,
        # Tests of the background switch it on: elsewhere only the test's own calls are counted.
        "accept": {"check_ms": 20_000, "most_in_background": 0, **accept},
    }
    return configuration(settings, "the configuration of a test")


@asynccontextmanager
async def checkout(
    *,
    workers: int = 1,
    store: ScriptStore | None = None,
    order_cny: dict[str, int] | None = None,
    secrets: tuple[str, ...] = (),
    **accept: Any,
) -> AsyncIterator[Checkout]:
    """`accept`: settings of `[accept]` that differ. `order_cny`: orders with another amount."""
    shop = Checkout(order_cny or {})
    config = cached_configuration(secrets, **accept)
    async with AsyncExitStack() as stack:
        stack.enter_context(cashiers_on_the_loops_clock())
        for _ in range(workers):
            await stack.enter_async_context(shop.add_worker(config, store))
        yield shop
        for cashier in shop.workers:
            assert not shop.payments_of(cashier)._runs, "a run is still under way"
            polls = shop.payments_of(cashier)._status_follower._polls._runs.values()
            assert all(poll.task is not None for poll in polls), "a poll is still pending"
    for _ in range(3):
        await asyncio.sleep(0)
    assert not timers_set()
    assert shop.world.audit() == []


class SharedStore:
    """An in-memory store for several workers.

    `lost`: it does not answer. `holders`: holder and expiry by key. `sets`: counted members.
    """

    def __init__(self) -> None:
        self.holders: dict[bytes, tuple[str, float]] = {}
        self.sets: dict[bytes, set[str]] = {}
        self.lost = False

    def holder(self, part: str) -> str | None:
        return next((holder for key, (holder, _) in self.holders.items() if part.encode() in key), None)

    async def run_script(self, script: str, key: bytes, *arguments: str | int) -> Any:
        """A script with a time to live claims the key, one without releases it."""
        await asyncio.sleep(0)
        if self.lost:
            return None
        if script == attempt_leases._COUNT:
            members = self.sets.setdefault(key, set())
            members.update(filter(None, (str(arguments[0]),)))
            return len(members)
        now_s, holder = asyncio.get_running_loop().time(), str(arguments[0])
        current = self.holders.get(key)
        if current is not None and current[1] <= now_s:
            current = None
        if len(arguments) == 1:
            own = current is not None and current[0] == holder
            if own:
                del self.holders[key]
            return int(own)
        ends_s = now_s + int(arguments[1]) / 1_000
        if current is None or current[0] == holder:
            self.holders[key] = (holder, max(ends_s, current[1] if current else ends_s))
        return self.holders[key][0].encode() if current is None else current[0].encode()


def without_fingerprint(shop: Checkout) -> Reply:
    """The reply of an engine that does not report the body of a payment."""

    async def reply(request: Request) -> Response:
        response = await shop._sandbox(request)
        answer = msgspec.json.decode(response.body)
        answer.pop("fingerprint", None)
        return Response(response.status, msgspec.json.encode(answer))

    return reply
