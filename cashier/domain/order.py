"""The question: what a caller asks for, and the order that the acquirer knows under that id."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from cashier.domain.money import MAX_VALUE, Money

# Ids travel in paths, headers and logs of ten services, so their alphabet is narrow on purpose. `(?![\s\S])` is the end of the text in
# Python and in JavaScript alike, where `$` would let a line feed through in the one and `\Z` means nothing in the other.
Id = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@~-]{0,63}(?![\s\S])", description="1 to 64 of A-Za-z0-9_.:@~-")
]
Country = Annotated[str, Meta(pattern=r"^[A-Z]{2}(?![\s\S])", description="ISO 3166-1 alpha-2")]
Locale = Annotated[str, Meta(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}(?![\s\S])", description="BCP 47")]
# An instant, always with its offset; decoding refuses one without.
Instant = Annotated[datetime, Meta(tz=True)]


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


class ConsultRequest(Struct, frozen=True, kw_only=True):
    """One question: which ways to pay are there, now, for this order?

    `amount` and `country` are claims. With them every source can be asked at once; they are verified against the order when it comes.
    `deadline_ms` is the caller's patience in whole milliseconds; the configuration's maximum caps it.
    """

    order_id: Id
    user_id: Id
    merchant_id: Id
    product: Product
    terminal: Terminal
    amount: Money | None = None
    country: Country | None = None
    locale: Locale | None = None
    deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] | None = None


class OrderStatus(StrEnum):
    PENDING = "PENDING"
    PAYING = "PAYING"
    PAID = "PAID"
    CLOSED = "CLOSED"
    REFUNDED = "REFUNDED"


# A fee is at most as much as it is on, so that no sum of the two passes what every JSON reader keeps exact.
MAX_ORDER_VALUE = MAX_VALUE // 2


class Order(Struct, frozen=True, kw_only=True):
    """The order as the acquirer, who owns it, tells it. Raises ValueError for an amount above MAX_ORDER_VALUE."""

    order_id: str
    merchant_id: str
    user_id: str | None = None
    status: OrderStatus
    amount: Money
    product: Product
    country: Country
    category: str
    title: str
    expires_at: Instant

    def __post_init__(self) -> None:
        if self.amount.value > MAX_ORDER_VALUE:
            raise ValueError(f"an amount of more than {MAX_ORDER_VALUE} minor units leaves no room for a fee")


class Blocked(StrEnum):
    """Why nothing can be paid."""

    ORDER_PAID = "ORDER_PAID"
    ORDER_CLOSED = "ORDER_CLOSED"
    ORDER_EXPIRED = "ORDER_EXPIRED"
    ORDER_IN_PROGRESS = "ORDER_IN_PROGRESS"
    AMOUNT_MISMATCH = "AMOUNT_MISMATCH"
    COUNTRY_MISMATCH = "COUNTRY_MISMATCH"
    ORDER_MERCHANT_MISMATCH = "ORDER_MERCHANT_MISMATCH"
    ORDER_USER_MISMATCH = "ORDER_USER_MISMATCH"
    USER_UNKNOWN = "USER_UNKNOWN"
    USER_FROZEN = "USER_FROZEN"
    USER_CLOSED = "USER_CLOSED"
    MERCHANT_UNKNOWN = "MERCHANT_UNKNOWN"
    MERCHANT_SUSPENDED = "MERCHANT_SUSPENDED"
    PRODUCT_NOT_CONTRACTED = "PRODUCT_NOT_CONTRACTED"
