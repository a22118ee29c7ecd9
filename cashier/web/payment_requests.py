"""Reads the requests of the payment endpoints: bodies, idempotency key, payment token, wait time.

Searches each value for card numbers before it is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
import orjson
from msgspec import Meta, Struct

from cashier.domain.order import Id, Locale
from cashier.domain.pan import payment_pan_fields
from cashier.domain.payment_id import PAYMENT_ID
from cashier.domain.payment_request import IDEMPOTENCY_KEY, AttemptRequest, PaymentRequest
from cashier.payments.settings import LONGEST_WAIT_MS
from cashier.web import codec
from cashier.web.problem import FieldProblem, ProblemCode, RequestRefused, invalid

KEY_HEADER, TOKEN_HEADER = "Idempotency-Key", "X-Payment-Token"

_KEY = re.compile(IDEMPOTENCY_KEY.encode())
_PAYMENT_ID = re.compile(PAYMENT_ID)
# The longest field path in a problem. The caller decides how long a path is.
_MAX_FIELD_PATH = 128

RawHeaders = Sequence[tuple[bytes, bytes]]
T = TypeVar("T")


class ChallengeAnswer(Struct, frozen=True):
    """The payer's proof: a code, a password, or a signature of a device or an issuer."""

    payment_token: str
    value: Annotated[str, Meta(min_length=1, max_length=2048)]

    # Secrets stay out of logs.
    def __repr__(self) -> str:
        return "<ChallengeAnswer>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Cancellation(Struct, frozen=True, omit_defaults=True):
    """`payment_token` is required unless a header carries it."""

    payment_token: str | None = None

    # Secrets stay out of logs.
    def __repr__(self) -> str:
        return "<Cancellation>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class FindRequest(Struct, frozen=True):
    """Path and query of `GET /v1/orders/{order_id}/payment`."""

    order_id: Id
    merchant_id: Id
    user_id: Id | None = None
    locale: Locale | None = None


_submit_decoder = msgspec.json.Decoder(PaymentRequest)
_answer_decoder = msgspec.json.Decoder(ChallengeAnswer)
_cancel_decoder = msgspec.json.Decoder(Cancellation)
_attempt_decoder = msgspec.json.Decoder(AttemptRequest)
_find_decoder = msgspec.json.Decoder(FindRequest)
_SUBMIT, _ANSWER, _CANCEL, _ATTEMPT, _FIND = (
    msgspec.inspect.type_info(struct)
    for struct in (PaymentRequest, ChallengeAnswer, Cancellation, AttemptRequest, FindRequest)
)


def decode_submit(body: bytes) -> PaymentRequest:
    """Raises `RequestRefused` like the next three: MALFORMED, or INVALID with every field."""
    return _decode(body, _submit_decoder, _SUBMIT)


def decode_challenge_answer(body: bytes) -> ChallengeAnswer:
    return _decode(body, _answer_decoder, _ANSWER)


def decode_cancellation(body: bytes) -> Cancellation:
    """An empty body is valid: the token may be in a header."""
    return _decode(body, _cancel_decoder, _CANCEL) if body else Cancellation()


def decode_attempt_request(body: bytes) -> AttemptRequest:
    return _decode(body, _attempt_decoder, _ATTEMPT)


def read_find_request(order_id: str, query: Sequence[tuple[str, str]]) -> FindRequest:
    """From the path and all parameters of the query. Raises `RequestRefused`: INVALID."""
    named = [(name, value) for name, value in query if name in ("merchant_id", "user_id", "locale")]
    values = dict(named)
    if len(values) < len(named):
        raise invalid(FieldProblem("query", "ONE_TOO_MANY", "must name each parameter once"))
    return _decode(orjson.dumps({"order_id": order_id, **values}), _find_decoder, _FIND)


def read_idempotency_key(headers: RawHeaders) -> str:
    """Raises `RequestRefused`: INVALID. Rejects duplicate headers, which are ambiguous."""
    keys = _values(headers, b"idempotency-key")
    if not keys:
        raise invalid(FieldProblem(KEY_HEADER, "MISSING", "is required"))
    if len(keys) > 1:
        raise invalid(FieldProblem(KEY_HEADER, "ONE_TOO_MANY", "must be given once"))
    if not _KEY.fullmatch(keys[0]):
        raise invalid(FieldProblem(KEY_HEADER, "BAD_FORMAT", "must be 1 to 64 of A-Za-z0-9_-"))
    key = keys[0].decode("ascii")
    _reject_card_numbers({KEY_HEADER: key})
    return key


def read_payment_token(headers: RawHeaders, body_token: str | None, *, secured: bool) -> str:
    """The token of X-Payment-Token, else `body_token`, else that of Authorization unless `secured`.

    Authorization comes last, because a proxy may have set it. Raises `RequestRefused`: INVALID.
    """
    tokens = [value for value in _values(headers, b"x-payment-token") if value]
    if len(tokens) > 1:
        raise invalid(FieldProblem(TOKEN_HEADER, "ONE_TOO_MANY", "must be given once"))
    bearers = [] if secured else [value for value in map(_bearer, _values(headers, b"authorization")) if value]
    token = tokens[0].decode("latin-1") if tokens else body_token or (bearers[0].decode("latin-1") if bearers else "")
    if not token:
        raise invalid(FieldProblem(TOKEN_HEADER, "MISSING", "is required"))
    return token


def read_payment_id(segment: str) -> str:
    """Raises `RequestRefused`: NOT_FOUND for a path segment that cannot be a payment id."""
    if not _PAYMENT_ID.fullmatch(segment):
        raise RequestRefused(ProblemCode.NOT_FOUND, "There is no such payment.")
    return segment


def read_ticket(values: Sequence[str]) -> str:
    """From all values of the query parameter. Raises `RequestRefused`: INVALID."""
    if len(values) > 1:
        raise invalid(FieldProblem("ticket", "ONE_TOO_MANY", "must be given once"))
    return values[0]


def read_wait_ms(values: Sequence[str]) -> int:
    """From all values of the query parameter. Raises `RequestRefused`: INVALID."""
    if not values:
        return 0
    if len(values) > 1:
        raise invalid(FieldProblem("wait_ms", "ONE_TOO_MANY", "must be given once"))
    digits = values[0]
    if not (digits.isascii() and digits.isdigit()):
        raise invalid(FieldProblem("wait_ms", "BAD_FORMAT", "must be a whole number of milliseconds in decimal digits"))
    # Ten digits or more exceed the bound and are never converted.
    if len(digits) > 9 or int(digits) > LONGEST_WAIT_MS:
        raise invalid(FieldProblem("wait_ms", "OUT_OF_RANGE", f"must be from 0 to {LONGEST_WAIT_MS}"))
    return int(digits)


def _decode(body: bytes, decoder: msgspec.json.Decoder[T], type_info: msgspec.inspect.Type) -> T:
    # Before the typed decoder: its errors must not describe a card number, and it ignores unknown
    # fields.
    _reject_card_numbers(codec.decode_json(body))
    return codec.decode(body, decoder, type_info)


def _reject_card_numbers(value: Any) -> None:
    paths = payment_pan_fields(value)
    if paths:
        message = "looks like a card number, which must not be sent: card_token takes a token of a card vault"
        errors = (FieldProblem(_shorten(path), "LOOKS_LIKE_PAN", message) for path in paths)
        raise RequestRefused(ProblemCode.INVALID, f"A value {message}.", errors=tuple(errors))


def _shorten(path: str) -> str:
    return path if len(path) <= _MAX_FIELD_PATH else path[: _MAX_FIELD_PATH - 1] + "…"


def _values(headers: RawHeaders, name: bytes) -> list[bytes]:
    return [value for header, value in headers if header == name]


def _bearer(authorization: bytes) -> bytes:
    scheme, _, credentials = authorization.partition(b" ")
    return credentials.strip() if scheme.lower() == b"bearer" else b""
