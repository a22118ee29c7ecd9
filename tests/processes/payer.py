"""A checkout and its payer over HTTP: consults, submits under one key, answers the challenge, and asks until the payment is over.

When a connection is lost it does what a checkout should: the same again, at whichever service is there by then.
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
from .upstreams import FOREVER_S

FINAL = {"SUCCEEDED", "FAILED", "CLOSED", "CLOSED_REFUNDING"}
# The same request may be sent again, and will be answered otherwise.
AGAIN = {"IN_FLIGHT", "CHECK_UNAVAILABLE", "ENGINE_UNAVAILABLE", "OVERLOADED", "REQUIRED_SOURCE_UNAVAILABLE"}
_PATIENCE = aiohttp.ClientTimeout(total=FOREVER_S)
_ASKED_AT_MOST = 200
# Where it is said to come again: machines that are busy are not helped by haste.
_PAUSE_S = 0.05

Asked = TypeVar("Asked")


class Way(NamedTuple):
    """How a case of the sandbox is paid."""

    case: str
    method_id: str

    @property
    def order_id(self) -> str:
        return str(CASES[self.case].request["order_id"])


CHALLENGED = Way("chinese_shop", "QUICK_PAY:c_2")
UNCHALLENGED = Way("balance_is_enough", "BALANCE:acc_1")
ELSEWHERE = Way("balance_is_enough", "WALLET:ALIPAY")


class Told(NamedTuple):
    status: int
    body: Any

    @property
    def code(self) -> str:
        return str(self.body.get("code", ""))


class Payer:
    """`secrets`: what the payer knows and nobody may print."""

    def __init__(self, service: Service, secrets: set[str]) -> None:
        self.service = service
        self.secrets = secrets
        self.lost = 0
        self._connected, self._one_more = 0, asyncio.Event()
        watched = aiohttp.TraceConfig()
        watched.on_connection_create_end.append(self._note)
        each = aiohttp.TCPConnector(limit=0, force_close=True)
        self._session = aiohttp.ClientSession(timeout=_PATIENCE, connector=each, trace_configs=[watched])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def connected(self, asking: Iterable[Coroutine[Any, Any, Asked]]) -> list[asyncio.Task[Asked]]:
        """All of them begun, and each on a connection that stands. Whoever connects after them is accepted after them."""
        target = self._connected
        tasks = [asyncio.create_task(each) for each in asking]
        async with asyncio.timeout(FOREVER_S):
            while self._connected < target + len(tasks):
                self._one_more.clear()
                await self._one_more.wait()
        return tasks

    async def consult(self, way: Way) -> dict[str, Any]:
        """The body of the submit that pays so."""
        asked = CASES[way.case].request
        told = await self.request_until_answered("POST", "/v1/consult", {**asked, "deadline_ms": 4_000})
        assert told.status == 200, told
        method = next(method for method in told.body["methods"] if method["method_id"] == way.method_id)
        self.secrets.add(_signature(told.body["consult_token"]))
        names = ("order_id", "user_id", "merchant_id", "product", "terminal", "country", "locale")
        return {name: asked[name] for name in names} | {
            "consult_token": told.body["consult_token"],
            "method_id": way.method_id,
            "promotion_ids": [each["promotion_id"] for each in method["amount"]["discounts"]],
            "expected_payable": method["amount"]["payable"],
        }

    async def pay(self, way: Way, key: str = "k1") -> Any:
        """To its end: the last word on it."""
        return await self.go_on((await self.submit(await self.consult(way), key)).body)

    async def submit(self, body: dict[str, Any], key: str) -> Told:
        """Until it is answered, by a payment or by a refusal that is meant."""
        return self._heard(await self.request_until_answered("POST", "/v1/payments", body, {"Idempotency-Key": key}))

    async def go_on(self, payment: Any) -> Any:
        for _ in range(_ASKED_AT_MOST):
            if payment["status"] in FINAL:
                return payment
            told = await (self.answer(payment) if payment["status"] == "CHALLENGE" else self.look(payment, 1_000))
            assert told.status in (200, 202), told
            payment = told.body
        raise AssertionError(f"it is never over: {payment}")

    async def answer(self, payment: Any, value: str = CHALLENGE_ANSWER) -> Told:
        self.secrets.add(value)
        body = {"payment_token": payment["payment_token"], "value": value}
        return self._heard(
            await self.request_until_answered("POST", f"/v1/payments/{payment['payment_id']}/challenge", body)
        )

    async def look(self, payment: Any, wait_ms: int = 0) -> Told:
        headers = {"X-Payment-Token": payment["payment_token"]}
        return self._heard(
            await self.request_until_answered(
                "GET", f"/v1/payments/{payment['payment_id']}?wait_ms={wait_ms}", None, headers
            )
        )

    async def follow(self, payment: Any) -> list[tuple[str, Any]]:
        """All events of a stream, by name."""
        headers = {"X-Payment-Token": payment["payment_token"]}
        url = f"{self.service.url}/v1/payments/{payment['payment_id']}/events"
        async with self._session.get(url, headers=headers) as response:
            assert response.status == 200, await response.text()
            lines = (await response.text()).splitlines()
        return [(name[7:], data[6:]) for name, data in _pairs(lines)]

    async def request_until_answered(
        self, method: str, path: str, body: Any, headers: dict[str, str] | None = None
    ) -> Told:
        """Again where the connection is lost, or where it is said to be worth while."""
        for _ in range(_ASKED_AT_MOST):
            try:
                told = await self.ask(method, path, body, headers)
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                self.lost += 1
                await self.service.ready()
                continue
            if told.code not in AGAIN:
                return told
            await asyncio.sleep(_PAUSE_S)
        raise AssertionError(f"{path} is never answered")

    async def ask(self, method: str, path: str, body: Any, headers: dict[str, str] | None = None) -> Told:
        """Once."""
        async with self._session.request(method, f"{self.service.url}{path}", json=body, headers=headers) as response:
            return Told(response.status, await response.json(content_type=None))

    async def _note(self, *_: object) -> None:
        self._connected += 1
        self._one_more.set()

    def _heard(self, told: Told) -> Told:
        if "payment_token" in told.body:
            self.secrets.add(_signature(told.body["payment_token"]))
        return told


def _signature(token: str) -> str:
    """Without it a token is none."""
    return token.rpartition(".")[2]


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    told = [line for line in lines if line.startswith(("event: ", "data: "))]
    return list(zip(told[::2], told[1::2], strict=True))
