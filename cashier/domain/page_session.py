"""A page session: what a shop's back end asks for, and the link that it gives its payer."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from cashier.domain.money import Currency, Money
from cashier.domain.order import Country, Id, Instant, Locale, Product, Terminal, require_payer
from cashier.domain.payment_request import Url


class SessionRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `POST /v1/cashier-sessions`.

    `return_url`: where the payer goes afterwards, at an origin of the merchant. `amount` and
    `country`: claims, as in a consultation. `locale`: None takes that of the browser. Raises
    ValueError without `user_id`, unless the payer is a walk-in: see `require_payer`.
    """

    order_id: Id
    user_id: Id | None = None
    merchant_id: Id
    product: Product = Product.STANDARD_CASHIER
    terminal: Terminal
    amount: Money | None = None
    country: Country | None = None
    locale: Locale | None = None
    return_url: Url | None = None

    def __post_init__(self) -> None:
        require_payer(self.user_id, self.product)


class TillRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `POST /v1/till-sessions`.

    `terminal_id`: the merchant's own name of the till. `currency`: of the amounts that a cashier
    enters. `locale`: None takes that of the browser.
    """

    merchant_id: Id
    terminal_id: Id
    currency: Currency
    country: Country | None = None
    locale: Locale | None = None


class PageSession(Struct, frozen=True):
    """`url`: of the page, for one browser. It is secret, and can be opened until then."""

    url: str
    expires_at: Instant

    # Secrets stay out of logs.
    def __repr__(self) -> str:
        return f"<PageSession {self.expires_at}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("expires_at", self.expires_at)]
