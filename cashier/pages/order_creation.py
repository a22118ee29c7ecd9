"""Orders of tills and printed codes: a service of the merchant creates them.

The contract is in README.md. A request is sent twice at most, with the same idempotency key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from cashier.domain.money import Money
from cashier.domain.order import Id
from cashier.domain.pan import payment_pan_fields
from cashier.source_errors import SourceError
from cashier.wire.awaited_call import send_and_wait
from cashier.wire.http1 import Http1Client
from cashier.wire.transport import CallHeaders, Request, Response, Transport

_BUDGET_MS = 2_500
_ATTEMPTS = 2


class Sale(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is sold. `terminal_id`: None at a printed code."""

    merchant_id: Id
    amount: Money
    terminal_id: Id | None = None
    note: Annotated[str, Meta(max_length=64)] | None = None


class CreatedOrder(Struct, frozen=True):
    order_id: Id


class OrderNotCreated(Exception):
    """There is no order, as far as is known. The same sale may be tried again."""


CreateOrder: TypeAlias = Callable[[Sale, str, CallHeaders], Awaitable[CreatedOrder]]
"""Takes the idempotency key. Raises `OrderNotCreated`."""


class Orders:
    """Creates orders by `given`, a function of the program, else at the configured URL.

    The client of a URL that a reload replaced answers its calls first.
    """

    def __init__(self, given: CreateOrder | None = None) -> None:
        self._given = given
        self._by_http: OrdersByHttp | None = None

    def __repr__(self) -> str:
        return f"<Orders {self._given or self._by_http}>"

    async def create(self, url: str, sale: Sale, idempotency_key: str, call_headers: CallHeaders) -> CreatedOrder:
        """`url`: as configured now; empty if there is none. Raises `OrderNotCreated`."""
        order = await self._create(url, sale, idempotency_key, call_headers)
        # No payment takes such an id.
        if payment_pan_fields({"order_id": order.order_id}):
            raise OrderNotCreated
        return order

    async def _create(self, url: str, sale: Sale, idempotency_key: str, call_headers: CallHeaders) -> CreatedOrder:
        if self._given is not None:
            return await self._given(sale, idempotency_key, call_headers)
        if not url:
            raise OrderNotCreated
        before = client = self._by_http
        if client is None or client.url != url:
            self._by_http = client = OrdersByHttp(url)
            if before is not None:
                await before.retire()
        return await client(sale, idempotency_key, call_headers)

    async def close(self) -> None:
        """Close the connections, for now: the next order opens others."""
        before, self._by_http = self._by_http, None
        if before is not None:
            await before.close()


class OrdersByHttp:
    """Asks the service at `url`. The client connects with the first order."""

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self._target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        self._transport: Transport = Http1Client([f"{parts.scheme}://{parts.netloc}"])
        self._calls = 0
        self._retired = False

    # The address may hold a key.
    def __repr__(self) -> str:
        return f"<OrdersByHttp {self._transport!r}>"

    async def __call__(self, sale: Sale, idempotency_key: str, call_headers: CallHeaders) -> CreatedOrder:
        self._calls += 1
        try:
            return await self._create(sale, idempotency_key, call_headers)
        finally:
            self._calls -= 1
            await self._close_retired()

    async def _create(self, sale: Sale, idempotency_key: str, call_headers: CallHeaders) -> CreatedOrder:
        request = Request(
            self._target,
            "POST",
            msgspec.json.encode(sale),
            headers=(("Idempotency-Key", idempotency_key),),
        )
        response: Response | SourceError | None = None
        for _ in range(_ATTEMPTS):
            response = await send_and_wait(self._transport, request, call_headers, _BUDGET_MS)
            if isinstance(response, Response) and response.status < 500:
                break
        if not isinstance(response, Response) or not 200 <= response.status < 300:
            raise OrderNotCreated
        try:
            return msgspec.json.decode(response.body, type=CreatedOrder)
        except msgspec.DecodeError:
            raise OrderNotCreated from None

    async def retire(self) -> None:
        """Close after the calls under way. There must be no further ones."""
        self._retired = True
        await self._close_retired()

    async def close(self) -> None:
        await self._transport.close()

    async def _close_retired(self) -> None:
        if self._retired and not self._calls:
            await self.close()
