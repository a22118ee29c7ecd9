"""The page to which payers are sent: what it shows, what its buttons do, and that it leads nowhere else."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import msgspec
import pytest

from cashier.sandbox.bank_page import BankPage, render_page, format_amount
from cashier.sandbox.engine_rules import SubmitBody
from cashier.sandbox.world import World
from tests.sandbox import contract
from tests.sandbox.paying import channel, result, submission, submit

BACK = "https://shop.example/back?a=1&b=2"
WALLET = (channel("ch_wallet_alipay"),)
VA: dict[str, Any] = {
    "order_id": "o_6201",
    "user_id": "u_62",
    "merchant_id": "m_62",
    "legs": (channel("ch_va_bca", value=25_000_000, currency="IDR"),),
}


async def seen(client: aiohttp.ClientSession, path: str = "/bank/pay_1") -> str:
    async with client.get(path) as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        return await response.text()


async def press(client: aiohttp.ClientSession, choice: str) -> tuple[int, str | None]:
    async with client.post("/bank/pay_1", data={"choice": choice}, allow_redirects=False) as response:
        return response.status, response.headers.get("Location")


def choices(text: str) -> list[str]:
    return re.findall(r'value="(\w+)"', text)


async def test_the_engine_sends_payers_to_this_servers_own_page(
    client: aiohttp.ClientSession, world: World, port: int
) -> None:
    told = submit(world, submission(world, legs=WALLET))
    assert isinstance(told.next_action, contract.Redirect)
    assert told.next_action.url == f"http://127.0.0.1:{port}/bank/pay_1"
    text = await seen(client, told.next_action.url)
    assert "云杉书店 Spruce Books" in text
    assert "Three novels and a reading lamp" in text
    assert "128.00 <small>CNY</small>" in text
    assert "<script" not in text
    assert choices(text) == ["pay", "decline"]


def test_without_a_server_payers_are_sent_to_an_example(world: World) -> None:
    told = submit(world, submission(world, legs=WALLET))
    assert isinstance(told.next_action, contract.Redirect)
    assert told.next_action.url == "https://alipay.example/pay/pay_1"


@pytest.mark.parametrize(
    ("choice", "status", "order"), [("pay", "SUCCEEDED", "PAID"), ("decline", "FAILED", "PENDING")]
)
async def test_a_button_settles_the_payment_and_the_browser_goes_back(
    client: aiohttp.ClientSession, world: World, choice: str, status: str, order: str
) -> None:
    submit(world, submission(world, legs=WALLET, return_url=BACK))
    assert await press(client, choice) == (303, BACK)
    attempt = world.engine.attempt("pay_1")
    assert attempt is not None
    assert (attempt.status, result(world).status) == (status, order)
    text = await seen(client)
    assert choices(text) == []
    assert 'href="https://shop.example/back?a=1&amp;b=2"' in text


async def test_without_a_way_back_the_page_says_what_became_of_it(client: aiohttp.ClientSession, world: World) -> None:
    submit(world, submission(world, legs=WALLET))
    assert await press(client, "pay") == (200, None)
    assert "This payment is done." in await seen(client)


async def test_pressing_again_changes_nothing(client: aiohttp.ClientSession, world: World) -> None:
    submit(world, submission(world, legs=WALLET))
    await press(client, "decline")
    await press(client, "pay")
    assert result(world).status == "PENDING"


@pytest.mark.parametrize("choice", ["", "steal", "pay_less"])
async def test_a_choice_that_the_page_does_not_offer_does_nothing(
    client: aiohttp.ClientSession, world: World, choice: str
) -> None:
    submit(world, submission(world, legs=WALLET, return_url=BACK))
    status, location = await press(client, choice)
    assert (status, location) == ((200 if choice == "pay_less" else 400), None)
    assert result(world).status == "PAYING"


async def test_a_page_of_no_payment_is_not_there(client: aiohttp.ClientSession) -> None:
    assert (await client.get("/bank/pay_none")).status == 404
    assert (await press(client, "pay"))[0] == 404


async def test_by_transfer_one_can_pay_less_more_and_too_late(client: aiohttp.ClientSession, world: World) -> None:
    submit(world, submission(world, **VA))
    assert choices(await seen(client)) == ["pay", "pay_less", "pay_more", "decline"]
    await press(client, "pay_less")
    assert result(world, "o_6201").status == "PAYING"
    await client.post("/clock", json={"advance_s": 24 * 3_600})
    assert choices(await seen(client)) == ["pay"]
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
def test_only_a_web_address_can_be_returned_to(world: World, url: str) -> None:
    told = msgspec.to_builtins(submission(world, legs=WALLET)) | {"return_url": url}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(told, SubmitBody)


def test_whatever_comes_from_outside_is_shown_as_text() -> None:
    evil = '"><script>alert(1)</script>&'
    text = render_page(
        BankPage(
            bank=evil,
            payee=evil,
            title=evil,
            amount=evil,
            currency=evil,
            payment_id=evil,
            state=evil,
            buttons={evil: evil},
            way_back=evil,
        )
    )
    assert "<script" not in text
    assert evil not in text
    assert (
        text.count("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;") == 13
    )  # title, header, sum, list, state, button, way back


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
def test_amounts_are_written_with_the_digits_of_their_currency(value: int, currency: str, text: str) -> None:
    assert format_amount(value, currency) == text
