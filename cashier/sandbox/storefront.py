"""A shop that payers see: its goods, its orders, and a page that embeds the cashier. Pure.

Each purchase is a new order of one user, to be paid within a quarter of an hour.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from html import escape
from urllib.parse import urlsplit

from msgspec import Struct

from cashier.sandbox.bank_page import PAGE_HEADERS, STYLE, format_amount
from cashier.sandbox.records import Json, money, record
from cashier.sandbox.seed_data import Population
from cashier.sandbox.world_clock import Clock

ORDER_LIFE = timedelta(minutes=15)
MERCHANT_ID, USER_ID = "m_1", "u_1"
STANDARD, EMBEDDED = "STANDARD_CASHIER", "EMBEDDED_CASHIER"
# Another shop, whose payers stand at a counter.
TILL = {"merchant_id": "m_5", "terminal_id": "till-1", "currency": "CNY"}


class Item(Struct, frozen=True):
    """`price`: in minor units of CNY."""

    title: str
    price: int


ITEMS = {
    "books": Item("Three novels and a bookend", 12_800),
    "coffee": Item("Two coffees and a cake", 6_800),
    "lamp": Item("A reading lamp", 160_000),
}


class Storefront:
    """`cashier_url`: the address of a cashier whose upstreams these are; None without one."""

    def __init__(self, population: Population, clock: Clock) -> None:
        self._population = population
        self._clock = clock
        self._orders: dict[str, Json] = {}
        self.cashier_url: str | None = None

    def __repr__(self) -> str:
        return f"Storefront(orders={len(self._orders)})"

    def buy(self, item: Item, product: str) -> str:
        """A new order. Its id."""
        order_id = f"o_shop_{len(self._orders) + 1}"
        order = record(
            "order",
            order_id=order_id,
            merchant_id=MERCHANT_ID,
            user_id=USER_ID,
            amount=money("CNY", item.price),
            product=product,
            country="CN",
            category="books",
            title=item.title,
            expires_at=(self._clock().astimezone(UTC) + ORDER_LIFE).isoformat(timespec="seconds"),
        )
        self._population.place_order(order)
        self._orders[order_id] = order
        return order_id

    def order(self, order_id: str) -> Json | None:
        return self._orders.get(order_id)


def session_body(order: Json, shop: str) -> Json:
    """What the back end asks a link for. `shop`: its own address."""
    body = {name: order[name] for name in ("order_id", "merchant_id", "user_id", "product", "country")}
    return {**body, "terminal": "H5", "return_url": f"{shop}/shop/thanks"}


def headers(cashier_url: str) -> dict[str, str]:
    """What a shop's policy needs for the embedded cashier."""
    parts = urlsplit(cashier_url)
    cashier = f"{parts.scheme}://{parts.netloc}"
    policy = PAGE_HEADERS["Content-Security-Policy"]
    return {
        **PAGE_HEADERS,
        "Content-Security-Policy": (
            f"{policy}; script-src {cashier}; connect-src {cashier}; frame-src {cashier}; img-src data:"
        ),
    }


def render_goods() -> str:
    goods = "".join(
        f'<section><h2>{escape(item.title)}</h2><p class="price">CNY {format_amount(item.price, "CNY")}</p>'
        + _button(name, STANDARD, "Buy", " class=primary")
        + _button(name, EMBEDDED, "Buy, and pay on this page")
        + "</section>"
        for name, item in ITEMS.items()
    )
    return _page("The sandbox's shop", f"<h1>Books &amp; more</h1>{goods}")


def _button(name: str, product: str, label: str, style: str = "") -> str:
    return (
        f'<form method="post" action="/shop"><input type="hidden" name="item" value="{name}">'
        f'<button name="product" value="{product}"{style}>{label}</button></form>'
    )


def render_checkout(order: Json, cashier_url: str, link: str) -> str:
    amount = format_amount(order["amount"]["value"], "CNY")
    return _page(
        "Your order",
        f"<h1>Your order</h1><dl><dt>{escape(order['title'])}</dt><dd>CNY {amount}</dd></dl>"
        f'<cashier-methods><a href="{escape(link)}">Pay on the secure page</a></cashier-methods>',
        f'<script src="{escape(cashier_url)}/cashier.js" defer></script>',
    )


def render_thanks() -> str:
    """A payer who comes back proves nothing: a shop asks its acquirer whether the order is paid."""
    return _page("Welcome back", '<h1>Welcome back</h1><p><a href="/shop">To the shop</a></p>')


def _page(title: str, content: str, head: str = "") -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}
h1 {{ font-size: 1.5rem; }} h2 {{ margin: 1.5rem 0 .25rem; font-size: 1rem; }} .price {{ margin: 0 0 .5rem; }}
section form {{ margin-top: .5rem; }}
cashier-methods {{ --cashier-fill: #0b5cad; --cashier-accent: var(--primary); }}
</style>
{head}
</head>
<body>
<main>
{content}
<p class="note">This is a test shop. No real money moves.</p>
</main>
</body>
</html>
"""
