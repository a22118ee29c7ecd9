"""The submit: who pays which order, by which method, for how much. Shapes and bounds only; whether it may be is judged elsewhere."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from cashier.domain.money import Money
from cashier.domain.order import Country, Id, Locale, Product, Terminal

# What upstreams named may be in any alphabet; the bounds keep all of it within a header.
Named = Annotated[
    str,
    Meta(pattern=r"^[^\u0000-\u001f\u007f]{1,128}(?![\s\S])", description="1 to 128 characters, none of them control"),
]
Secret = Annotated[str, Meta(pattern=r"^[!-~]{1,256}(?![\s\S])", description="1 to 256 visible ASCII characters")]
Url = Annotated[
    str,
    Meta(pattern=r"^https?://[!-~]{1,2040}(?![\s\S])", description="an http or https url of at most 2048 characters"),
]
Promotions = Annotated[tuple[Named, ...], Meta(max_length=16)]
# The header `Idempotency-Key`, as a regular expression without its ends.
IDEMPOTENCY_KEY = "[A-Za-z0-9_-]{1,64}"
IdempotencyKey = Annotated[str, Meta(pattern=rf"^{IDEMPOTENCY_KEY}(?![\s\S])", description="1 to 64 of A-Za-z0-9_-")]


class PaymentChoice(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the payer chose, and what they were told it costs; nothing of it is secret.

    `expected_payable`: `amount.payable` of the method in the consultation, or of its option. `promotion_ids`: those that the payer was
    shown; each must still hold. What is applied is always the best legal set: naming fewer takes none away. `country` is a claim, as in a
    consultation.
    """

    order_id: Id
    user_id: Id
    merchant_id: Id
    product: Product
    terminal: Terminal
    method_id: Named
    option_id: Named | None = None
    promotion_ids: Promotions = ()
    expected_payable: Money
    country: Country | None = None
    locale: Locale | None = None


class PaymentMeans(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the caller handed over for this one payment. `return_url` is here because it may carry a session of theirs.

    It does not show itself: what is printed or logged by mistake says only what there is. The same of those below.
    """

    card_token: Secret | None = None
    auth_code: Secret | None = None
    return_url: Url | None = None

    def __repr__(self) -> str:
        return f"<PaymentMeans {' '.join(self._given()) or 'none'}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, ...) for name in self._given()]

    def _given(self) -> list[str]:
        return [name for name in self.__struct_fields__ if getattr(self, name) is not None]


class Device(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """For risk alone; it goes nowhere else and into no token."""

    ip: Annotated[str, Meta(max_length=64)] | None = None
    device_id: Annotated[str, Meta(max_length=128)] | None = None
    user_agent: Annotated[str, Meta(max_length=1024)] | None = None

    def __repr__(self) -> str:
        return "<Device>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class PaymentRequest(PaymentChoice, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `POST /v1/payments`."""

    consult_token: Annotated[str, Meta(min_length=1)]
    card_token: Secret | None = None
    auth_code: Secret | None = None
    return_url: Url | None = None
    device: Device | None = None

    def __repr__(self) -> str:
        return f"<PaymentRequest {self.order_id} by {self.method_id}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("order_id", self.order_id), ("method_id", self.method_id)]

    @property
    def chosen(self) -> PaymentChoice:
        return PaymentChoice(**{name: getattr(self, name) for name in PaymentChoice.__struct_fields__})

    @property
    def means(self) -> PaymentMeans:
        return PaymentMeans(card_token=self.card_token, auth_code=self.auth_code, return_url=self.return_url)
