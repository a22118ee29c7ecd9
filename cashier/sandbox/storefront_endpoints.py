"""The shop's pages. Its back end asks a cashier for the links, as a real one does.

`GET /shop` shows the goods, `POST /shop` buys one: on the cashier's page, or on `GET
/shop/{order_id}`, which embeds it. `GET /shop/thanks` is where payers come back. `GET /shop/pay`
buys a lamp and leads to the cashier's page at once, and `GET /shop/till` to a till: short addresses
that never expire, as the links behind them do.
"""

from __future__ import annotations

from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from cashier.sandbox.storefront import (
    EMBEDDED,
    ITEMS,
    STANDARD,
    TILL,
    Storefront,
    headers,
    render_checkout,
    render_goods,
    render_thanks,
    session_body,
)

_TIMEOUT = ClientTimeout(total=10)


def storefront_routes(storefront: Storefront) -> list[web.RouteDef]:
    async def goods(_request: web.Request) -> web.StreamResponse:
        return _html(render_goods(), _cashier(storefront))

    async def buy(request: web.Request) -> web.StreamResponse:
        form = await request.post()
        item, product = ITEMS.get(str(form.get("item"))), str(form.get("product"))
        if item is None or product not in (STANDARD, EMBEDDED):
            raise web.HTTPBadRequest(text="There is no such thing to buy.")
        order_id = storefront.buy(item, product)
        if product == EMBEDDED:
            raise web.HTTPSeeOther(f"/shop/{order_id}")
        raise web.HTTPSeeOther(await _payment_link(storefront, request, order_id))

    async def pay(request: web.Request) -> web.StreamResponse:
        _cashier(storefront)
        order_id = storefront.buy(ITEMS["lamp"], STANDARD)
        raise web.HTTPSeeOther(await _payment_link(storefront, request, order_id))

    async def till(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPSeeOther(await _link(storefront, "/v1/till-sessions", TILL))

    async def checkout(request: web.Request) -> web.StreamResponse:
        cashier_url, order = _cashier(storefront), storefront.order(request.match_info["order_id"])
        if order is None:
            raise web.HTTPNotFound(text="There is no such order.")
        return _html(
            render_checkout(order, cashier_url, await _payment_link(storefront, request, order["order_id"])),
            cashier_url,
        )

    async def thanks(_request: web.Request) -> web.StreamResponse:
        return _html(render_thanks(), _cashier(storefront))

    return [
        web.get("/shop", goods),
        web.post("/shop", buy),
        web.get("/shop/thanks", thanks),
        web.get("/shop/pay", pay),
        web.get("/shop/till", till),
        web.get("/shop/{order_id}", checkout),
    ]


def _cashier(storefront: Storefront) -> str:
    if storefront.cashier_url is None:
        raise web.HTTPNotFound(text="The shop is open in `cashier demo` only.")
    return storefront.cashier_url


async def _payment_link(storefront: Storefront, request: web.Request, order_id: str) -> str:
    body = session_body(storefront.order(order_id) or {}, f"{request.scheme}://{request.host}")
    return await _link(storefront, "/v1/cashier-sessions", body)


async def _link(storefront: Storefront, path: str, body: Any) -> str:
    try:
        async with (
            ClientSession(timeout=_TIMEOUT) as session,
            session.post(_cashier(storefront) + path, json=body) as response,
        ):
            answer = await response.json(content_type=None)
            return str(answer["url"])
    except (ClientError, TimeoutError, KeyError, ValueError):
        raise web.HTTPBadGateway(text="The cashier gave no link. Please try again.") from None


def _html(text: str, cashier_url: str) -> web.Response:
    return web.Response(text=text, content_type="text/html", headers=headers(cashier_url))
