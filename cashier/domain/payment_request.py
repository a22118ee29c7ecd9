"""The payment request: shapes and bounds only, no checks against facts."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from cashier.domain.money import Money
from cashier.domain.order import (
    Country,
    Id,
    Locale,
    Named,
    Product,
    Promotions,
    Terminal,
    require_payer,
)

Secret = Annotated[str, Meta(pattern=r"^[!-~]{1,256}(?![\s\S])", description="1 to 256 visible ASCII characters")]
Url = Annotated[
    str,
    Meta(pattern=r"^https?://[!-~]{1,2040}(?![\s\S])", description="an http or https url of at most 2048 characters"),
]
# The header `Idempotency-Key`: a regular expression without anchors.
IDEMPOTENCY_KEY = "[A-Za-z0-9_-]{1,64}"
IdempotencyKey = Annotated[str, Meta(pattern=rf"^{IDEMPOTENCY_KEY}(?![\s\S])", description="1 to 64 of A-Za-z0-9_-")]


class PaymentChoice(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The payer's choice and the price that they saw. Holds no secrets.

    `expected_payable`: `amount.payable` of the method in the consultation, or of its option.
    `chosen_promotions`: those that may count, as in a consultation; None: all, and the best legal
    set is applied. `promotion_ids`: those that the payer saw; of the chosen ones each must still
    apply. Naming fewer removes none. `country`: a claim, as in a consultation. Raises ValueError
    without `user_id`, unless the payer is a walk-in: see `require_payer`.
    """

    order_id: Id
    user_id: Id | None = None
    merchant_id: Id
    product: Product
    terminal: Terminal
    method_id: Named
    option_id: Named | None = None
    promotion_ids: Promotions = ()
    expected_payable: Money
    country: Country | None = None
    locale: Locale | None = None
    chosen_promotions: Promotions | None = None

    def __post_init__(self) -> None:
        require_payer(self.user_id, self.product)

    def may_count(self, promotion_id: str) -> bool:
        return self.chosen_promotions is None or promotion_id in self.chosen_promotions


class AttemptRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body that resumes or replaces an attempt, whose token is lost, for its payer.

    `user_id`: None only if the caller's authentication names the user.
    """

    order_id: Id
    merchant_id: Id
    user_id: Id | None = None
    product: Product
    terminal: Terminal
    locale: Locale | None = None


class PaymentMeans(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Secrets of this one payment. `return_url` may contain a session of the caller.

    The repr shows only which fields are present, in case it is printed or logged by mistake. The
    same holds for the structs below.
    """

    card_token: Secret | None = None
    auth_code: Secret | None = None
    return_url: Url | None = None

    def __repr__(self) -> str:
        return f"<PaymentMeans {' '.join(self._present()) or 'none'}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, ...) for name in self._present()]

    def _present(self) -> list[str]:
        return [name for name in self.__struct_fields__ if getattr(self, name) is not None]


class Device(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The payer's device, for the risk service only. Never in a token."""

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
