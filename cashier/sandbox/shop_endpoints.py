"""What a merchant has beside the upstreams: a hook that creates orders, and the form of a vault.

`POST /orders` creates an order. `GET /vault?return_url=…&state=…` shows the form in which a payer
enters a card, `POST /vault` keeps it and sends the browser back with `card_token` and `state`. No
faults apply.
"""

from __future__ import annotations

import secrets
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
from aiohttp import web

from cashier.sandbox.bank_page import PAGE_HEADERS
from cashier.sandbox.response_faults import json_response
from cashier.sandbox.shop import OrderBody, SimulatedShop
from cashier.sandbox.upstream_answer import UpstreamAnswer, read_body
from cashier.sandbox.vault_page import CARDS, render_vault

_decode_order = msgspec.json.Decoder(OrderBody)


def shop_routes(shop: SimulatedShop) -> list[web.RouteDef]:
    async def create(request: web.Request) -> web.StreamResponse:
        body = await read_body(request, _decode_order)
        key = request.headers.get("Idempotency-Key", "")
        return json_response(body if isinstance(body, UpstreamAnswer) else shop.create(body, key))

    return [web.post("/orders", create)]


def vault_routes() -> list[web.RouteDef]:
    async def show(request: web.Request) -> web.StreamResponse:
        return_url = _web_address(request.query.get("return_url", ""))
        text = render_vault(return_url, request.query.get("state", ""))
        return web.Response(text=text, content_type="text/html", headers=PAGE_HEADERS)

    async def keep(request: web.Request) -> web.StreamResponse:
        form = await request.post()
        return_url, state = _web_address(str(form.get("return_url", ""))), str(form.get("state", ""))
        card = str(form.get("card", ""))
        if card and card not in CARDS:
            raise web.HTTPBadRequest(text=f"card must be one of {', '.join(CARDS)}.")
        token = {"card_token": f"{card}_{secrets.token_hex(8)}"} if card else {}
        raise web.HTTPSeeOther(_with_query(return_url, token | {"state": state}), headers=PAGE_HEADERS)

    return [web.get("/vault", show), web.post("/vault", keep)]


def _web_address(url: str) -> str:
    """A real vault compares it with those that its client has registered."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise web.HTTPBadRequest(text="return_url must be a web address.")
    return url


def _with_query(url: str, fields: dict[str, str]) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), *fields.items()])))
