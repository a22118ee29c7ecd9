"""The shop's pages. Its back end asks a cashier for the links, as a real one does.

`GET /shop` shows the goods, `POST /shop` buys one: on the cashier's page, or on `GET
/shop/{order_id}`, which embeds it. `GET /shop/thanks` is where payers come back.
"""

from __future__ import annotations

from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from cashier.sandbox.storefront import (
    EMBEDDED,
    ITEMS,
    STANDARD,
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
        raise web.HTTPSeeOther(await _link(storefront, request, order_id))

    async def checkout(request: web.Request) -> web.StreamResponse:
        cashier_url, order = _cashier(storefront), storefront.order(request.match_info["order_id"])
        if order is None:
            raise web.HTTPNotFound(text="There is no such order.")
        return _html(
            render_checkout(order, cashier_url, await _link(storefront, request, order["order_id"])), cashier_url
        )

    async def thanks(_request: web.Request) -> web.StreamResponse:
        return _html(render_thanks(), _cashier(storefront))

    return [
        web.get("/shop", goods),
        web.post("/shop", buy),
        web.get("/shop/thanks", thanks),
        web.get("/shop/{order_id}", checkout),
    ]


def _cashier(storefront: Storefront) -> str:
    if storefront.cashier_url is None:
        raise web.HTTPNotFound(text="The shop is open in `cashier demo` only.")
    return storefront.cashier_url


async def _link(storefront: Storefront, request: web.Request, order_id: str) -> str:
    body: Any = session_body(storefront.order(order_id) or {}, f"{request.scheme}://{request.host}")
    try:
        async with (
            ClientSession(timeout=_TIMEOUT) as session,
            session.post(f"{_cashier(storefront)}/v1/cashier-sessions", json=body) as response,
        ):
            answer = await response.json(content_type=None)
            return str(answer["url"])
    except (ClientError, TimeoutError, KeyError, ValueError):
        raise web.HTTPBadGateway(text="The cashier gave no link. Please try again.") from None


def _html(text: str, cashier_url: str) -> web.Response:
    return web.Response(text=text, content_type="text/html", headers=headers(cashier_url))
