"""The consult token: what was offered at what price, signed, so that acceptance can say what changed. No state, no clock.

A standard compact JWS (RFC 7515) with HS256. It is put together by hand because its header never changes and the hot path signs one per
consultation; it is verified with PyJWT, off that path. The payload is signed, not secret: it holds what the payer sees anyway.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jwt
import msgspec
from msgspec import Struct

from cashier.domain.method import Amounts, Availability, PayMethod
from cashier.domain.money import Money
from cashier.domain.order import ConsultRequest, Product, Terminal

# RFC 7518, section 3.2: a key for HS256 has at least the size of its hash.
SECRET_BYTES = 32
CONSULT_TYPE = "consult+jwt"
_ISSUER: Literal["cashier"] = "cashier"
# 32 bytes of signature are 43 characters, and the last carries four bits: any other last character is a second spelling of the same one,
# which not every version of PyJWT refuses.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
_LONGEST = 65_536
_UNAVAILABLE = Availability.UNAVAILABLE

TokenCode: TypeAlias = Literal["TOKEN_MALFORMED", "TOKEN_TAMPERED", "TOKEN_EXPIRED", "TOKEN_UNKNOWN_KEY"]


class TokenRefused(Exception):
    """A token that proves nothing. The text names the trouble, never the token."""

    def __init__(self, code: TokenCode) -> None:
        super().__init__(code)
        self.code = code


class Offered(Struct, frozen=True, array_like=True):
    """A price: minor units of the order's currency, null where it could not be known. Promotions and legs by id, each with its amount."""

    id: str
    payable: int | None = None
    fee: int | None = None
    promotions: tuple[tuple[str, int], ...] = ()
    legs: tuple[tuple[str, str, int], ...] = ()
    options: tuple[Offered, ...] = ()


class ConsultClaims(Struct, frozen=True, kw_only=True):
    """What was consulted, and what was offered: a row per method that could be paid with or could not be determined.

    `iat` and `exp` in seconds since 1970; `amount` in minor units of `currency`.
    """

    iss: Literal["cashier"] = _ISSUER
    iat: int
    exp: int
    order_id: str
    user_id: str
    merchant_id: str
    product: Product
    terminal: Terminal
    currency: str
    amount: int
    methods: tuple[Offered, ...]


_encoder = msgspec.json.Encoder()
_claims_decoder = msgspec.json.Decoder(ConsultClaims)


class Signer:
    """Signs with the first secret and verifies with all, so that secrets rotate: put the new one first, drop the old one a ttl later."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """Raises `ValueError` where there is no secret, or one of fewer than 32 bytes."""
        if not secrets:
            raise ValueError("[tokens] secrets is empty: the first one signs, all verify")
        keys = [secret.encode() for secret in secrets]
        for place, key in enumerate(keys, start=1):
            if len(key) < SECRET_BYTES:
                raise ValueError(
                    f"[tokens] secrets: number {place} has {len(key)} bytes, at least {SECRET_BYTES} are needed;"
                    " make one with `openssl rand -base64 32`"
                )
        self._key = keys[0]
        self._keys = {_kid(key): key for key in keys}
        header = json.dumps({"alg": "HS256", "kid": _kid(keys[0]), "typ": CONSULT_TYPE}, separators=(",", ":"))
        self._prefix = _base64(header.encode()) + b"."

    def __repr__(self) -> str:
        return f"<Signer kids={list(self._keys)}>"

    def consult_token(self, request: ConsultRequest, amount: Money, methods: Sequence[PayMethod], now_s: int, ttl_s: int) -> str:
        """The token of one consultation. `amount` is the order's; `now_s` in seconds since 1970."""
        claims = {
            "iss": _ISSUER,
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
        signed = self._prefix + _base64(_encoder.encode(claims))
        return (signed + b"." + _base64(hmac.digest(self._key, signed, "sha256"))).decode("ascii")

    def read_consult_token(self, text: str, now_s: float) -> ConsultClaims:
        """Raises `TokenRefused`."""
        payload = self._verified(text)
        try:
            claims = _claims_decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError):
            raise TokenRefused("TOKEN_MALFORMED") from None
        if claims.exp <= now_s:
            raise TokenRefused("TOKEN_EXPIRED")
        return claims

    def _verified(self, text: str) -> bytes:
        if len(text) > _LONGEST or not _COMPACT.fullmatch(text):
            raise TokenRefused("TOKEN_MALFORMED")
        try:
            header = jwt.get_unverified_header(text)
        except jwt.PyJWTError:
            raise TokenRefused("TOKEN_MALFORMED") from None
        if header.get("typ") != CONSULT_TYPE:
            raise TokenRefused("TOKEN_MALFORMED")
        key = self._keys.get(header.get("kid", ""))
        if key is None:
            raise TokenRefused("TOKEN_UNKNOWN_KEY")
        try:
            # Another alg, or none, is refused here as well.
            payload: bytes = jwt.PyJWS().decode(text, key, algorithms=["HS256"])
        except jwt.PyJWTError:
            raise TokenRefused("TOKEN_TAMPERED") from None
        return payload


def _kid(key: bytes) -> str:
    """Names a key without telling it: a keyed hash, cut."""
    return _base64(hmac.digest(key, b"cashier kid", "sha256")[:6]).decode("ascii")


def _base64(octets: bytes) -> bytes:
    return urlsafe_b64encode(octets).rstrip(b"=")


def _rows(methods: Sequence[PayMethod]) -> list[tuple[Any, ...]]:
    """The methods as `Offered` reads them back. Plain tuples in one loop, because structs or a call for each would double the cost."""
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
    options = [_price(each.option_id, each.amount) for each in method.options if each.amount is not None and each.amount != amount]
    return (*_price(method.method_id, amount), legs, options)


def _price(name: str, amount: Amounts) -> tuple[Any, ...]:
    return name, amount.payable.value, amount.fee.value, [(each.promotion_id, each.amount.value) for each in amount.discounts]
