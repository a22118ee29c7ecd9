"""The consult token: the offered methods and prices, so that acceptance can tell what has changed.

Signed, not secret: the payer sees its content anyway. No state, no clock.
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
from cashier.domain.pay_method import Amounts, Availability, Option, PayMethod
from cashier.tokens.jws import ISSUER, Keyring, TokenRefused, b64url_encode

CONSULT_TYPE = "consult+jwt"
_MAX_CHARS = 65_536
_UNAVAILABLE = Availability.UNAVAILABLE


class OfferedPrice(Struct, frozen=True, array_like=True):
    """A price in minor units of the order's currency, null if undetermined.

    Promotions and legs are listed by id with their amounts. `terms`: of instalments, their count
    and annual rate in basis points. `promotions_of_method`: an option has the promotions of its
    method, which are not repeated: a list of banks is long, and a token has a bound.
    """

    id: str
    payable: int | None = None
    fee: int | None = None
    promotions: tuple[tuple[str, int], ...] = ()
    legs: tuple[tuple[str, str, int], ...] = ()
    options: tuple[OfferedPrice, ...] = ()
    terms: tuple[int, int] | None = None
    promotions_of_method: bool = False


class ConsultClaims(Struct, frozen=True, kw_only=True):
    """The consultation and its offer: a row per method that was available or undetermined.

    `iat` and `exp` in seconds since 1970; `amount` in minor units of `currency`.
    `order_expires_at`: in seconds since 1970, rounded down; None in tokens of older versions.
    """

    iss: Literal["cashier"] = ISSUER
    iat: int
    exp: int
    order_id: str
    user_id: str | None = None
    merchant_id: str
    product: Product
    terminal: Terminal
    currency: Currency
    amount: int
    order_expires_at: int | None = None
    methods: tuple[OfferedPrice, ...]

    @property
    def order_amount(self) -> Money:
        return Money(self.currency, self.amount)

    def require_unexpired(self, now_s: float) -> None:
        """Raise `TokenRefused` for an expired offer."""
        if self.exp <= now_s:
            raise TokenRefused("TOKEN_EXPIRED")

    def require_order(self, *, order_id: str, user_id: str | None, merchant_id: str) -> None:
        """Raise `TokenRefused` for another order or user. Order ids are unique per merchant."""
        if (self.order_id, self.merchant_id) != (order_id, merchant_id):
            raise TokenRefused("TOKEN_OTHER_ORDER")
        if self.user_id != user_id:
            raise TokenRefused("TOKEN_OTHER_USER")

    def find_price(self, method_id: str, option_id: str | None = None) -> OfferedPrice | None:
        """The row of a method with this option only; None if it was not offered.

        An option at the price of its method has no row.
        """
        price = next((row for row in self.methods if row.id == method_id), None)
        if price is None:
            return None
        options = [option for option in price.options if option.id == option_id]
        return replace(price, options=tuple([_with_promotions(option, price) for option in options]))


def _with_promotions(option: OfferedPrice, method: OfferedPrice) -> OfferedPrice:
    if not option.promotions_of_method:
        return option
    return replace(option, promotions=method.promotions, promotions_of_method=False)


_encoder = msgspec.json.Encoder()
_claims_decoder = msgspec.json.Decoder(ConsultClaims)


class ConsultTokens:
    """Signs with the first key of the keyring and verifies with all."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        # With the key's blocks hashed already: copying it costs half of `hmac.digest`.
        self._mac = hmac.new(keyring.key, digestmod="sha256")
        self._header = keyring.header(CONSULT_TYPE)

    def __repr__(self) -> str:
        return f"<ConsultTokens {self._keyring!r}>"

    def sign(
        self,
        request: ConsultRequest,
        amount: Money,
        order_expires_at: int,
        methods: Sequence[PayMethod],
        now_s: int,
        ttl_s: int,
    ) -> str:
        """Sign a token for a consultation.

        `amount` and `order_expires_at`: the order's. Times in seconds since 1970.
        """
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
            "order_expires_at": order_expires_at,
            "methods": _rows(methods),
        }
        # `jws.sign` inlined: this is the hot path.
        signing_input, mac = self._header + b64url_encode(_encoder.encode(claims)), self._mac.copy()
        mac.update(signing_input)
        return (signing_input + b"." + b64url_encode(mac.digest())).decode("ascii")

    def read(self, text: str) -> ConsultClaims:
        """Raises `TokenRefused`. Check the result with `require_order` and `require_unexpired`."""
        payload, _ = self._keyring.verify(text, CONSULT_TYPE, _MAX_CHARS)
        try:
            return _claims_decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError):
            raise TokenRefused("TOKEN_MALFORMED") from None


def _rows(methods: Sequence[PayMethod]) -> list[tuple[Any, ...]]:
    """Rows that decode as `OfferedPrice`. Plain tuples in one loop: structs would cost twice."""
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
            promotions = [(discount.promotion_id, discount.amount.value) for discount in amount.discounts]
            rows.append((method.method_id, amount.payable.value, amount.fee.value, promotions))
        else:
            rows.append((method.method_id, amount.payable.value, amount.fee.value))
    return rows


def _row_with_parts(method: PayMethod, amount: Amounts) -> tuple[Any, ...]:
    """Options only where their price differs from that of their method, and those with terms."""
    legs = [(leg.type, leg.id, leg.amount.value) for leg in method.legs]
    options = [
        _option(option, option.amount, amount)
        for option in method.options
        if option.amount is not None and (option.terms is not None or option.amount != amount)
    ]
    return (*_price(method.method_id, amount), legs, options)


def _option(option: Option, amount: Amounts, of_method: Amounts) -> tuple[Any, ...]:
    terms, option_id = option.terms, option.option_id
    agreed = None if terms is None else (terms.count, terms.apr_bps)
    if amount.discounts and amount.discounts == of_method.discounts:
        return (option_id, amount.payable.value, amount.fee.value, (), (), (), agreed, True)
    return _price(option_id, amount) if agreed is None else (*_price(option_id, amount), (), (), agreed)


def _price(id_: str, amount: Amounts) -> tuple[Any, ...]:
    return (
        id_,
        amount.payable.value,
        amount.fee.value,
        [(discount.promotion_id, discount.amount.value) for discount in amount.discounts],
    )
