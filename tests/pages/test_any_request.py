"""Whatever a request says: no response without the headers of a page, and none that fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from urllib.parse import quote_from_bytes

import pytest
from starlette.types import ASGIApp, Message

from cashier.pages import Pages
from cashier.web.disconnect_watch import SWEEP_S
from tests.pages.page_shop import SHOP, PageShop
from tests.pages.payer_browser import PayerBrowser
from tests.pages.till_shop import till_shop

pytestmark = pytest.mark.virtual_time
METHODS = ("GET", "GET", "POST", "POST", "HEAD", "OPTIONS", "PUT", "BREW")
HEADERS = (
    *("accept", "accept-encoding", "accept-language", "authorization", "content-type", "cookie", "host", "origin"),
    *("sec-fetch-site", "traceparent", "user-agent", "x-cashier-payment", "x-forwarded-for", "x-request-id"),
)
QUERY = ("token", "state", "locale", "attempt", "notice", "wait", "coupon", "coupons", "method", "card_token", "origin")
VALUES = (
    *(b"", b"x", b"*", b"null", b"\xff\xfe", b"\x00", b"\r\nset-cookie: x=1", b"<script>", b"{0}", b"%", b"%zz", b"~"),
    *(b"9" * 5_000, b",;=" * 100, b"a.b.c", b"../..", b"//evil.example", b"pay_" + b"a" * 26, b"gzip;q=x", b"en;q=-1"),
    *(b"text/event-stream", b"application/x-www-form-urlencoded", SHOP.encode(), b"Bearer a.b.c", b"zh-CN,\xe4"),
    *(b"1~a.b.c", b"cashier-session=1~a.b.c; cashier-payment=1~p:t", b"99~", "\u0661".encode(), b"::1%<b>", b"none"),
)


def some_requests(
    paths: list[str], rng: random.Random, count: int
) -> Iterator[tuple[str, str, bytes, dict[str, bytes], bytes]]:
    """Method, path, query, headers and body."""
    for number in range(count):
        path = paths[number % len(paths)]
        names = ("{order_id}", "{merchant_id}", "{terminal_id}", "{name}")
        for name, known in zip(names, ("o_1001", "m_5", "till-1", "x"), strict=True):
            value = known if rng.random() < 0.7 else rng.choice(VALUES).decode("latin-1")
            path = path.replace(name, value)
        query = b"&".join(f"{rng.choice(QUERY)}={quote_from_bytes(rng.choice(VALUES))}".encode() for _ in range(3))
        headers = {name: rng.choice(VALUES) for name in rng.sample(HEADERS, 4)}
        yield rng.choice(METHODS), path, query, headers, rng.choice(VALUES)


@pytest.mark.parametrize("seed", range(2))
async def test_no_request_fails_or_lacks_the_headers_of_a_page(shop: PageShop, seed: int) -> None:
    browser = await shop.payer("chinese_shop")
    await send_anything(shop.pages, shop.application, browser, random.Random(seed))


async def test_no_request_of_a_till_does_either() -> None:
    async with till_shop() as shop:
        await send_anything(shop.pages, shop.application, await shop.till(), random.Random(0))


async def send_anything(pages: Pages, application: ASGIApp, browser: PayerBrowser, rng: random.Random) -> None:
    """To each path, half of them with the cookies of this browser."""
    paths = [getattr(route, "path", "") for route in pages._starlette.routes] + ["/cashier/", "/cashier-till/x"]
    own = "; ".join(f"{name}={value}" for (_, name), value in browser.cookies.items()).encode()
    for method, path, query, headers, body in some_requests(paths, rng, 4 * len(paths)):
        if rng.random() < 0.5:
            headers["cookie"] = own
        head = await first_message(application, method, path, query, headers, body)
        told = {name.decode(): value.decode("latin-1") for name, value in head["headers"]}
        what = (method, path, query, headers, head["status"])
        assert head["status"] < 500, what
        assert "frame-ancestors" in told["content-security-policy"], what
        assert told["x-content-type-options"] == "nosniff", what
        assert told["referrer-policy"] == "no-referrer", what
        assert not any("\n" in value or "\r" in value for value in told.values()), what
        assert "x=1" not in told.get("set-cookie", ""), what
        assert told.get("location", "/cashier").startswith(("/cashier", "http://127.0.0.1:8080/cashier")), what
    await asyncio.sleep(2 * SWEEP_S)  # the watch for disconnects has ended too


async def first_message(
    application: ASGIApp, method: str, path: str, query: bytes, headers: dict[str, bytes], body: bytes
) -> Message:
    scope = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("latin-1"),
        "root_path": "",
        "query_string": query,
        "headers": [(name.encode(), value) for name, value in headers.items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8080),
    }
    requests: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        return requests.pop() if requests else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent[0]
