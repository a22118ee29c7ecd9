"""The consult token: what was offered at what price, so that acceptance can say what has changed since. No state, no clock.

Signed, not secret: it holds what the payer sees anyway.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cashier.domain.money import Currency, Money
from cashier.domain.order import ConsultRequest, Product, Terminal
from cashier.domain.pay_method import Amounts, Availability, PayMethod
from cashier.tokens.jws import ISSUER, Keyring, TokenRefused, b64url_encode

CONSULT_TYPE = "consult+jwt"
_LONGEST = 65_536
_UNAVAILABLE = Availability.UNAVAILABLE


class OfferedPrice(Struct, frozen=True, array_like=True):
    """A price: minor units of the order's currency, null where it could not be known. Promotions and legs by id, each with its amount."""

    id: str
    payable: int | None = None
    fee: int | None = None
    promotions: tuple[tuple[str, int], ...] = ()
    legs: tuple[tuple[str, str, int], ...] = ()
    options: tuple[OfferedPrice, ...] = ()


class ConsultClaims(Struct, frozen=True, kw_only=True):
    """What was consulted, and what was offered: a row per method that could be paid with or could not be determined.

    `iat` and `exp` in seconds since 1970; `amount` in minor units of `currency`.
    """

    iss: Literal["cashier"] = ISSUER
    iat: int
    exp: int
    order_id: str
    user_id: str
    merchant_id: str
    product: Product
    terminal: Terminal
    currency: Currency
    amount: int
    methods: tuple[OfferedPrice, ...]

    @property
    def order_amount(self) -> Money:
        return Money(self.currency, self.amount)

    def must_hold(self, now_s: float) -> None:
        """Raises `TokenRefused` for an offer that is over."""
        if self.exp <= now_s:
            raise TokenRefused("TOKEN_EXPIRED")

    def must_be_of(self, *, order_id: str, user_id: str, merchant_id: str) -> None:
        """Raises `TokenRefused`. An order is a merchant's: under another merchant the same id is another order."""
        if (self.order_id, self.merchant_id) != (order_id, merchant_id):
            raise TokenRefused("TOKEN_OTHER_ORDER")
        if self.user_id != user_id:
            raise TokenRefused("TOKEN_OTHER_USER")

    def offered(self, method_id: str, option_id: str | None = None) -> OfferedPrice | None:
        """The row of a method, with that option and no other; None where it was not offered. An option at its method's price has no row."""
        found = next((row for row in self.methods if row.id == method_id), None)
        if found is None:
            return None
        return replace(found, options=tuple(option for option in found.options if option.id == option_id))


_encoder = msgspec.json.Encoder()
_claims_decoder = msgspec.json.Decoder(ConsultClaims)


class ConsultTokens:
    """Signs with the first key and verifies with all."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._key = keyring.key
        self._header = keyring.header(CONSULT_TYPE)

    def __repr__(self) -> str:
        return f"<ConsultTokens {self._keyring!r}>"

    def sign(self, request: ConsultRequest, amount: Money, methods: Sequence[PayMethod], now_s: int, ttl_s: int) -> str:
        """The token of one consultation. `amount` is the order's; `now_s` in seconds since 1970."""
        claims = {
            "iss": ISSUER,
            "iat": now_s,
            "exp": now_s + ttl_s,
            "order_id": request.order_id,
            "user_id": request.user_id,
            "merchant_id": request.merchant_id,
            "product": request.product,
            "terminal": request.terminal,
            "currency": amount.currency,
            "amount": amount.value,
            "methods": _rows(methods),
        }
        # `signed` spelt out: this is the hot path.
        begin = self._header + b64url_encode(_encoder.encode(claims))
        return (begin + b"." + b64url_encode(hmac.digest(self._key, begin, "sha256"))).decode("ascii")

    def read(self, text: str) -> ConsultClaims:
        """Raises `TokenRefused`. Whose it is and whether it still holds, is for `must_be_of` and `must_hold` to say."""
        payload, _ = self._keyring.verified(text, CONSULT_TYPE, _LONGEST)
        try:
            return _claims_decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError):
            raise TokenRefused("TOKEN_MALFORMED") from None


def _rows(methods: Sequence[PayMethod]) -> list[tuple[Any, ...]]:
    """The methods as `OfferedPrice` reads them back. Plain tuples in one loop, because structs or a call for each would double the cost."""
    rows: list[tuple[Any, ...]] = []
    for method in methods:
        amount = method.amount
        if method.availability is _UNAVAILABLE:
            continue
        if amount is None:
            rows.append((method.method_id,))
        elif method.legs or method.options:
            rows.append(_row_with_parts(method, amount))
        elif amount.discounts:
            promotions = [(each.promotion_id, each.amount.value) for each in amount.discounts]
            rows.append((method.method_id, amount.payable.value, amount.fee.value, promotions))
        else:
            rows.append((method.method_id, amount.payable.value, amount.fee.value))
    return rows


def _row_with_parts(method: PayMethod, amount: Amounts) -> tuple[Any, ...]:
    """Of the options only those that cost something else than their method does."""
    legs = [(leg.type, leg.id, leg.amount.value) for leg in method.legs]
    options = [
        _price(each.option_id, each.amount)
        for each in method.options
        if each.amount is not None and each.amount != amount
    ]
    return (*_price(method.method_id, amount), legs, options)


def _price(name: str, amount: Amounts) -> tuple[Any, ...]:
    return (
        name,
        amount.payable.value,
        amount.fee.value,
        [(each.promotion_id, each.amount.value) for each in amount.discounts],
    )
