"""The shop that creates orders, and the vault whose form gives a card token."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from cashier.sandbox.world import World

SALE = {"merchant_id": "m_5", "amount": {"currency": "CNY", "value": 1_250}}
RETURN_URL = "http://pay.example/cashier/o_1/card?a=1"


async def create(client: aiohttp.ClientSession, body: Any = SALE, key: str = "k1") -> tuple[int, Any]:
    headers = {"Idempotency-Key": key} if key else {}
    async with client.post("/orders", json=body, headers=headers) as response:
        return response.status, await response.json()


async def test_a_created_order_can_be_paid_for_a_quarter_of_an_hour(
    client: aiohttp.ClientSession, world: World
) -> None:
    status, created = await create(client)
    assert (status, created["amount"], created["title"]) == (200, SALE["amount"], "早点铺 Breakfast Stall")
    order = world.acquirer.order(created["order_id"])
    assert order is not None
    assert (order["status"], order["product"], order.get("user_id")) == ("PENDING", "SCAN", None)
    async with client.get(f"/orders/{created['order_id']}") as response:
        assert (await response.json())["expires_at"] == created["expires_at"]


async def test_one_key_is_one_order(client: aiohttp.ClientSession) -> None:
    first, again, other = await create(client), await create(client), await create(client, key="k2")
    assert first == again
    assert other[1]["order_id"] != first[1]["order_id"]
    changed = SALE | {"amount": {"currency": "CNY", "value": 1}}
    assert await create(client, changed) == (422, {"code": "KEY_REUSED"})
    assert (await create(client, SALE | {"merchant_id": "m_2"}))[1]["order_id"] != first[1]["order_id"]


@pytest.mark.parametrize(
    ("body", "key", "status"),
    [
        (SALE, "", 400),
        ({"merchant_id": "m_5"}, "k1", 400),
        (SALE | {"merchant_id": "m_404"}, "k1", 404),
        (SALE | {"amount": {"currency": "CNY", "value": 0}}, "k1", 422),
        (SALE | {"amount": {"currency": "CNY", "value": -1}}, "k1", 400),
    ],
)
async def test_what_is_no_order_is_refused(client: aiohttp.ClientSession, body: Any, key: str, status: int) -> None:
    assert (await create(client, body, key))[0] == status


async def test_the_vaults_form_returns_a_token_and_the_state(client: aiohttp.ClientSession) -> None:
    async with client.get("/vault", params={"return_url": RETURN_URL, "state": '<"s&1'}) as response:
        text = await response.text()
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "&lt;&quot;s&amp;1" in text
    cards = re.findall(r'name="card" value="(\w+)"', text)
    assert cards == ["tok_visa", "tok_3ds", "tok_declined"]
    form = {"return_url": RETURN_URL, "state": '<"s&1', "card": "tok_3ds"}
    first, second = [await _sent_back(client, form) for _ in range(2)]
    assert first["a"] == ["1"]
    assert first["state"] == ['<"s&1']
    assert first["card_token"][0].startswith("tok_3ds_")
    assert first["card_token"] != second["card_token"]
    del form["card"]
    assert "card_token" not in await _sent_back(client, form)


@pytest.mark.parametrize("url", ["", "javascript:alert(1)", "//", "/vault"])
async def test_the_vault_leads_to_web_addresses_only(client: aiohttp.ClientSession, url: str) -> None:
    async with client.get("/vault", params={"return_url": url, "state": "s"}) as response:
        assert response.status == 400
    async with client.post("/vault", data={"return_url": url, "card": "tok_3ds"}) as response:
        assert response.status == 400


async def _sent_back(client: aiohttp.ClientSession, form: dict[str, str]) -> dict[str, list[str]]:
    async with client.post("/vault", data=form, allow_redirects=False) as response:
        assert response.status == 303
        return parse_qs(urlsplit(response.headers["Location"]).query)
