"""The bank page: what it shows, what its buttons do, and where it leads."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import msgspec
import pytest

from cashier.sandbox.bank_page import BankPage, format_amount, render_page
from cashier.sandbox.decline_rules import SubmitBody
from cashier.sandbox.world import World
from tests.sandbox import contract
from tests.sandbox.paying import channel, result, submission, submit

RETURN_URL = "https://shop.example/back?a=1&b=2"
WALLET = (channel("ch_wallet_alipay"),)
VA: dict[str, Any] = {
    "order_id": "o_6201",
    "user_id": "u_62",
    "merchant_id": "m_62",
    "legs": (channel("ch_va_bca", value=25_000_000, currency="IDR"),),
}


async def fetch_page(client: aiohttp.ClientSession, path: str = "/bank/pay_1") -> str:
    async with client.get(path) as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        return await response.text()


async def press(client: aiohttp.ClientSession, choice: str) -> tuple[int, str | None]:
    async with client.post("/bank/pay_1", data={"choice": choice}, allow_redirects=False) as response:
        return response.status, response.headers.get("Location")


def offered_choices(text: str) -> list[str]:
    return re.findall(r'value="(\w+)"', text)


async def test_a_wallet_payment_redirects_to_the_sandboxs_bank_page(
    client: aiohttp.ClientSession, world: World, port: int
) -> None:
    payment = submit(world, submission(world, legs=WALLET))
    assert isinstance(payment.next_action, contract.Redirect)
    assert payment.next_action.url == f"http://127.0.0.1:{port}/bank/pay_1"
    text = await fetch_page(client, payment.next_action.url)
    assert "云杉书店 Spruce Books" in text
    assert "Three novels and a reading lamp" in text
    assert "128.00 <small>CNY</small>" in text
    assert "<script" not in text
    assert offered_choices(text) == ["pay", "decline"]


def test_without_a_server_the_redirect_is_an_example_address(world: World) -> None:
    payment = submit(world, submission(world, legs=WALLET))
    assert isinstance(payment.next_action, contract.Redirect)
    assert payment.next_action.url == "https://alipay.example/pay/pay_1"


@pytest.mark.parametrize(
    ("choice", "status", "order"), [("pay", "SUCCEEDED", "PAID"), ("decline", "FAILED", "PENDING")]
)
async def test_a_button_settles_the_payment_and_the_browser_returns(
    client: aiohttp.ClientSession, world: World, choice: str, status: str, order: str
) -> None:
    submit(world, submission(world, legs=WALLET, return_url=RETURN_URL))
    assert await press(client, choice) == (303, RETURN_URL)
    attempt = world.engine.attempt("pay_1")
    assert attempt is not None
    assert (attempt.status, result(world).status) == (status, order)
    text = await fetch_page(client)
    assert offered_choices(text) == []
    assert 'href="https://shop.example/back?a=1&amp;b=2"' in text


async def test_without_a_return_url_the_page_shows_the_outcome(client: aiohttp.ClientSession, world: World) -> None:
    submit(world, submission(world, legs=WALLET))
    assert await press(client, "pay") == (200, None)
    assert "This payment is complete." in await fetch_page(client)


async def test_a_second_press_changes_nothing(client: aiohttp.ClientSession, world: World) -> None:
    submit(world, submission(world, legs=WALLET))
    await press(client, "decline")
    await press(client, "pay")
    assert result(world).status == "PENDING"


@pytest.mark.parametrize("choice", ["", "steal", "pay_less"])
async def test_a_choice_that_the_page_does_not_offer_has_no_effect(
    client: aiohttp.ClientSession, world: World, choice: str
) -> None:
    submit(world, submission(world, legs=WALLET, return_url=RETURN_URL))
    status, location = await press(client, choice)
    assert (status, location) == ((200 if choice == "pay_less" else 400), None)
    assert result(world).status == "PAYING"


async def test_an_unknown_payment_has_no_page(client: aiohttp.ClientSession) -> None:
    assert (await client.get("/bank/pay_none")).status == 404
    assert (await press(client, "pay"))[0] == 404


async def test_a_transfer_can_be_too_small_too_large_or_too_late(client: aiohttp.ClientSession, world: World) -> None:
    submit(world, submission(world, **VA))
    assert offered_choices(await fetch_page(client)) == ["pay", "pay_less", "pay_more", "decline"]
    await press(client, "pay_less")
    assert result(world, "o_6201").status == "PAYING"
    await client.post("/clock", json={"advance_s": 24 * 3_600})
    assert offered_choices(await fetch_page(client)) == ["pay"]
    await press(client, "pay_more")
    await press(client, "pay")
    assert [entry.what for entry in world.ledger.entries] == ["TAKEN", "REFUNDED", "FAILED", "TAKEN", "REFUNDED"]
    assert world.audit() == []


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "//evil.example",
        "/back",
        "ftp://shop.example",
        "https://a.example/\r\nX: 1",
        "https://a b",
    ],
)
def test_a_return_url_must_be_a_web_address(world: World, url: str) -> None:
    body = msgspec.to_builtins(submission(world, legs=WALLET)) | {"return_url": url}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(body, SubmitBody)


def test_values_from_outside_are_escaped() -> None:
    evil = '"><script>alert(1)</script>&'
    text = render_page(
        BankPage(
            bank=evil,
            payee=evil,
            title=evil,
            amount=evil,
            currency=evil,
            payment_id=evil,
            status_text=evil,
            buttons={evil: evil},
            return_url=evil,
        )
    )
    assert "<script" not in text
    assert evil not in text
    # In title, header, amount, list, status text, button and return link.
    assert text.count("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;") == 13


@pytest.mark.parametrize(
    ("value", "currency", "text"),
    [
        (12_800, "CNY", "128.00"),
        (5, "CNY", "0.05"),
        (4_980, "JPY", "4,980"),
        (12_750, "KWD", "12.750"),
        (25_000_000, "IDR", "250,000.00"),
    ],
)
def test_amounts_have_the_decimals_of_their_currency(value: int, currency: str, text: str) -> None:
    assert format_amount(value, currency) == text
