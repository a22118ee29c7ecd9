"""A payer's checkout over HTTP: consult, submit, answer the challenge, query to the end.

After a lost connection it repeats the request at the current service, as a checkout should.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import aiohttp

from cashier.sandbox import CASES
from cashier.sandbox.risk import CHALLENGE_ANSWER

from .services import Service
from .upstreams import TIMEOUT_S

FINAL = {"SUCCEEDED", "FAILED", "CLOSED", "CLOSED_REFUNDING"}
# Codes after which the same request may succeed.
RETRYABLE = {"IN_FLIGHT", "CHECK_UNAVAILABLE", "ENGINE_UNAVAILABLE", "OVERLOADED", "REQUIRED_SOURCE_UNAVAILABLE"}
_TIMEOUT = aiohttp.ClientTimeout(total=TIMEOUT_S)
_MAX_TRIES = 200
# Before a retry after such a code.
_PAUSE_S = 0.05

T = TypeVar("T")


class PaymentCase(NamedTuple):
    """A sandbox case and the method that pays it."""

    name: str
    method_id: str

    @property
    def order_id(self) -> str:
        return str(CASES[self.name].request["order_id"])


CHALLENGED = PaymentCase("chinese_shop", "QUICK_PAY:c_2")
UNCHALLENGED = PaymentCase("balance_is_enough", "BALANCE:acc_1")
ELSEWHERE = PaymentCase("balance_is_enough", "WALLET:ALIPAY")


class Reply(NamedTuple):
    status: int
    body: Any

    @property
    def code(self) -> str:
        return str(self.body.get("code", ""))


class Payer:
    """`secrets`: what no service may print. `lost`: lost connections."""

    def __init__(self, service: Service, secrets: set[str]) -> None:
        self.service = service
        self.secrets = secrets
        self.lost = 0
        self._connections, self._new_connection = 0, asyncio.Event()
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._count_connection)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, connector=connector, trace_configs=[trace])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def start_connected(self, requests: Iterable[Coroutine[Any, Any, T]]) -> list[asyncio.Task[T]]:
        """Start all requests and wait until each is connected, before any later one."""
        before = self._connections
        tasks = [asyncio.create_task(request) for request in requests]
        async with asyncio.timeout(TIMEOUT_S):
            while self._connections < before + len(tasks):
                self._new_connection.clear()
                await self._new_connection.wait()
        return tasks

    async def consult(self, case: PaymentCase) -> dict[str, Any]:
        """Consult and return the body of a submit."""
        request = CASES[case.name].request
        reply = await self.request_until_answered("POST", "/v1/consult", {**request, "deadline_ms": 9_000})
        assert reply.status == 200, reply
        method = next(method for method in reply.body["methods"] if method["method_id"] == case.method_id)
        self.secrets.add(_signature(reply.body["consult_token"]))
        names = ("order_id", "user_id", "merchant_id", "product", "terminal", "country", "locale")
        return {name: request[name] for name in names} | {
            "consult_token": reply.body["consult_token"],
            "method_id": case.method_id,
            "promotion_ids": [discount["promotion_id"] for discount in method["amount"]["discounts"]],
            "expected_payable": method["amount"]["payable"],
        }

    async def pay(self, case: PaymentCase, key: str = "k1") -> Any:
        """Pay to the end; return the final payment."""
        return await self.pay_to_end((await self.submit(await self.consult(case), key)).body)

    async def submit(self, body: dict[str, Any], key: str) -> Reply:
        """Repeat until the reply is a payment or a definite refusal."""
        return self._remember_token(
            await self.request_until_answered("POST", "/v1/payments", body, {"Idempotency-Key": key})
        )

    async def pay_to_end(self, payment: Any) -> Any:
        for _ in range(_MAX_TRIES):
            if payment["status"] in FINAL:
                return payment
            reply = await (self.answer(payment) if payment["status"] == "CHALLENGE" else self.look(payment, 1_000))
            assert reply.status in (200, 202), reply
            payment = reply.body
        raise AssertionError(f"the payment never ends: {payment}")

    async def answer(self, payment: Any, value: str = CHALLENGE_ANSWER) -> Reply:
        self.secrets.add(value)
        body = {"payment_token": payment["payment_token"], "value": value}
        return self._remember_token(
            await self.request_until_answered("POST", f"/v1/payments/{payment['payment_id']}/challenge", body)
        )

    async def look(self, payment: Any, wait_ms: int = 0) -> Reply:
        headers = {"X-Payment-Token": payment["payment_token"]}
        return self._remember_token(
            await self.request_until_answered(
                "GET", f"/v1/payments/{payment['payment_id']}?wait_ms={wait_ms}", None, headers
            )
        )

    async def follow(self, payment: Any) -> list[tuple[str, Any]]:
        """Return all events of a stream as (name, data)."""
        headers = {"X-Payment-Token": payment["payment_token"]}
        url = f"{self.service.url}/v1/payments/{payment['payment_id']}/events"
        async with self._session.get(url, headers=headers) as response:
            assert response.status == 200, await response.text()
            lines = (await response.text()).splitlines()
        return [(name[7:], data[6:]) for name, data in _pairs(lines)]

    async def request_until_answered(
        self, method: str, path: str, body: Any, headers: dict[str, str] | None = None
    ) -> Reply:
        """Repeat after a lost connection or a retryable code."""
        said = ""
        for _ in range(_MAX_TRIES):
            try:
                reply = await self.request(method, path, body, headers)
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                said = repr(error)
                self.lost += 1
                await self.service.ready()
                continue
            if reply.code not in RETRYABLE:
                return reply
            said = f"{reply.code}: {reply.body.get('detail')}"
            await asyncio.sleep(_PAUSE_S)
        raise AssertionError(f"{path} is never answered, but {said}")

    async def request(self, method: str, path: str, body: Any, headers: dict[str, str] | None = None) -> Reply:
        async with self._session.request(method, f"{self.service.url}{path}", json=body, headers=headers) as response:
            return Reply(response.status, await response.json(content_type=None))

    async def _count_connection(self, *_: object) -> None:
        self._connections += 1
        self._new_connection.set()

    def _remember_token(self, reply: Reply) -> Reply:
        if "payment_token" in reply.body:
            self.secrets.add(_signature(reply.body["payment_token"]))
        return reply


def _signature(token: str) -> str:
    """The part without which a token is worthless."""
    return token.rpartition(".")[2]


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    fields = [line for line in lines if line.startswith(("event: ", "data: "))]
    return list(zip(fields[::2], fields[1::2], strict=True))
