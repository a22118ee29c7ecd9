"""The consultation request and the acquirer's order."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from cashier.domain.money import MAX_VALUE, Money

# Ids go into paths, headers and logs of all services, so their alphabet is narrow. `(?![\s\S])` is
# the end of the text in Python and in JavaScript: `$` accepts a line feed in Python, and JavaScript
# has no `\Z`.
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:@~-]{0,63}(?![\s\S])"
Id = Annotated[str, Meta(pattern=ID_PATTERN, description="1 to 64 of A-Za-z0-9_.:@~-")]
Country = Annotated[str, Meta(pattern=r"^[A-Z]{2}(?![\s\S])", description="ISO 3166-1 alpha-2")]
Locale = Annotated[str, Meta(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}(?![\s\S])", description="BCP 47")]
# Upstream names may use any alphabet. The length keeps all of them within a header.
Named = Annotated[
    str,
    Meta(pattern=r"^[^\u0000-\u001f\u007f]{1,128}(?![\s\S])", description="1 to 128 characters, none of them control"),
]
MAX_NAMED_PROMOTIONS = 16
Promotions = Annotated[tuple[Named, ...], Meta(max_length=MAX_NAMED_PROMOTIONS)]
# Always with an offset; decoding refuses a time without one.
Instant = Annotated[datetime, Meta(tz=True)]
# The first and the last second of the calendar in UTC. A service that means "no end" may send a
# time beyond them, such as 9999-12-31T23:59:59-01:00.
_FIRST_S = int(datetime(1, 1, 1, tzinfo=UTC).timestamp())
_LAST_S = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


def epoch_s(at: datetime) -> int:
    """Seconds since 1970, bounded to the years 1 to 9999 in UTC."""
    return min(max(int(at.timestamp()), _FIRST_S), _LAST_S)


class Product(StrEnum):
    STANDARD_CASHIER = "STANDARD_CASHIER"
    EMBEDDED_CASHIER = "EMBEDDED_CASHIER"
    SCAN = "SCAN"


class Terminal(StrEnum):
    APP = "APP"
    H5 = "H5"
    PC = "PC"
    SDK = "SDK"
    POS = "POS"
    MINI_PROGRAM = "MINI_PROGRAM"


def at_till(product: Product, terminal: Terminal) -> bool:
    """Whether a till says who pays, and no payer has signed in.

    SCAN means a till on any terminal.
    """
    return terminal is Terminal.POS or product is Product.SCAN


USER_ID_REQUIRED = "is required unless product is SCAN"


def require_payer(user_id: str | None, product: Product) -> None:
    """Raise ValueError without a user, except for SCAN: a walk-in pays at a till, unknown to us."""
    if user_id is None and product is not Product.SCAN:
        raise ValueError(f"user_id {USER_ID_REQUIRED}")


class ConsultRequest(Struct, frozen=True, kw_only=True):
    """A request for the payment methods of an order.

    `amount` and `country` are claims: with them every source can be called at once. They are
    verified against the order. `deadline_ms` is capped by the configured maximum.
    `chosen_promotions`: those that may count, each method with the best legal set of them; None:
    all. Raises ValueError without `user_id`, unless the payer is a walk-in: see `require_payer`.
    """

    order_id: Id
    user_id: Id | None = None
    merchant_id: Id
    product: Product
    terminal: Terminal
    amount: Money | None = None
    country: Country | None = None
    locale: Locale | None = None
    deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] | None = None
    chosen_promotions: Promotions | None = None

    def __post_init__(self) -> None:
        require_payer(self.user_id, self.product)


class OrderStatus(StrEnum):
    PENDING = "PENDING"
    PAYING = "PAYING"
    PAID = "PAID"
    CLOSED = "CLOSED"
    REFUNDED = "REFUNDED"


# A fee is at most the amount that it is on, so the sum of both stays exact in every JSON reader.
MAX_ORDER_VALUE = MAX_VALUE // 2


class Order(Struct, frozen=True, kw_only=True):
    """The order, owned by the acquirer. Raises ValueError for an amount above `MAX_ORDER_VALUE`."""

    order_id: str
    merchant_id: str
    user_id: str | None = None
    status: OrderStatus
    amount: Money
    product: Product
    country: Country
    category: str | None = None
    title: str
    expires_at: Instant

    def __post_init__(self) -> None:
        if self.amount.value > MAX_ORDER_VALUE:
            raise ValueError(f"an amount above {MAX_ORDER_VALUE} minor units leaves no room for a fee")


class Blocked(StrEnum):
    """Why the order cannot be paid by any method."""

    ORDER_PAID = "ORDER_PAID"
    ORDER_CLOSED = "ORDER_CLOSED"
    ORDER_EXPIRED = "ORDER_EXPIRED"
    ORDER_IN_PROGRESS = "ORDER_IN_PROGRESS"
    AMOUNT_MISMATCH = "AMOUNT_MISMATCH"
    COUNTRY_MISMATCH = "COUNTRY_MISMATCH"
    PRODUCT_MISMATCH = "PRODUCT_MISMATCH"
    ORDER_MERCHANT_MISMATCH = "ORDER_MERCHANT_MISMATCH"
    ORDER_USER_MISMATCH = "ORDER_USER_MISMATCH"
    USER_UNKNOWN = "USER_UNKNOWN"
    USER_FROZEN = "USER_FROZEN"
    USER_CLOSED = "USER_CLOSED"
    MERCHANT_UNKNOWN = "MERCHANT_UNKNOWN"
    MERCHANT_SUSPENDED = "MERCHANT_SUSPENDED"
    PRODUCT_NOT_CONTRACTED = "PRODUCT_NOT_CONTRACTED"
