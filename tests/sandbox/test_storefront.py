"""The shop that payers see."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cashier.sandbox.world import World


async def buy(client: aiohttp.ClientSession, product: str, item: str = "books") -> tuple[int, str, str]:
    async with client.post("/shop", data={"item": item, "product": product}, allow_redirects=False) as response:
        return response.status, response.headers.get("Location", ""), await response.text()


async def test_a_purchase_is_an_order_and_leads_to_the_cashier(client: aiohttp.ClientSession, world: World) -> None:
    asked: list[dict[str, object]] = []

    async def give_link(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({"url": "http://pay.example/cashier/o_1?token=t&x=<"})

    application = web.Application()
    application.router.add_post("/v1/cashier-sessions", give_link)
    async with TestServer(application) as server:
        world.storefront.cashier_url = str(server.make_url("")).rstrip("/")
        status, location, _ = await buy(client, "STANDARD_CASHIER")
        assert (status, location) == (303, "http://pay.example/cashier/o_1?token=t&x=%3C")
        order = world.acquirer.order("o_shop_1")
        assert order is not None
        assert (order["user_id"], order["product"], order["status"]) == ("u_1", "STANDARD_CASHIER", "PENDING")
        assert str(asked[0]["return_url"]).endswith("/shop/thanks")
        status, location, _ = await buy(client, "EMBEDDED_CASHIER")
        assert (status, location) == (303, "/shop/o_shop_2")
        async with client.get(location) as response:
            text = await response.text()
            assert "script-src http://127.0.0.1:" in response.headers["Content-Security-Policy"]
        assert "<cashier-methods><a href=" in text
        assert "x=&lt;" in text, "what the cashier answers is escaped"


@pytest.mark.parametrize(("address", "path"), [("pay", "cashier-sessions"), ("till", "till-sessions")])
async def test_a_short_address_leads_to_a_new_link_each_time(
    client: aiohttp.ClientSession, world: World, address: str, path: str
) -> None:
    asked: list[dict[str, object]] = []

    async def give_link(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({"url": f"http://pay.example/{len(asked)}"})

    application = web.Application()
    application.router.add_post(f"/v1/{path}", give_link)
    async with TestServer(application) as server:
        world.storefront.cashier_url = str(server.make_url("")).rstrip("/")
        for count in (1, 2):
            async with client.get(f"/shop/{address}", allow_redirects=False) as response:
                assert (response.status, response.headers["Location"]) == (303, f"http://pay.example/{count}")
    orders = [body.get("order_id") for body in asked]
    assert orders == (["o_shop_1", "o_shop_2"] if address == "pay" else [None, None])


async def test_without_a_cashier_the_shop_is_closed(client: aiohttp.ClientSession, world: World) -> None:
    async with client.get("/shop") as response:
        assert response.status == 404
    world.storefront.cashier_url = "http://127.0.0.1:1"
    assert (await buy(client, "STANDARD_CASHIER"))[0] == 502
    assert (await buy(client, "SCAN"))[0] == 400
    assert (await buy(client, "STANDARD_CASHIER", "nothing"))[0] == 400
    for address, status in (("o_404", 404), ("pay", 502), ("till", 502)):
        async with client.get(f"/shop/{address}") as response:
            assert response.status == status
