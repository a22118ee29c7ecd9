"""What a caller of payments sends, beside the submit itself: bodies, the key, the token, the patience. Read here, and looked through for
card numbers before anything else sees it. No answers, and no sockets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from cashier.domain.pan import payment_pan_fields
from cashier.domain.payment_id import PAYMENT_ID
from cashier.domain.payment_request import IDEMPOTENCY_KEY, PaymentRequest
from cashier.payments.settings import LONGEST_WAIT_MS
from cashier.web import codec
from cashier.web.problem import FieldProblem, ProblemCode, RequestRefused, invalid

KEY_HEADER, TOKEN_HEADER = "Idempotency-Key", "X-Payment-Token"

_KEY = re.compile(IDEMPOTENCY_KEY.encode())
_PAYMENT_ID = re.compile(PAYMENT_ID)
# So much of a path is told, which is the caller's to make long.
_MAX_FIELD_PATH = 128

RawHeaders = Sequence[tuple[bytes, bytes]]
T = TypeVar("T")


class ChallengeAnswer(Struct, frozen=True):
    """What the payer proves by: a code, a password, or what a device or an issuer signed. It does not show itself."""

    payment_token: str
    value: Annotated[str, Meta(min_length=1, max_length=2048)]

    def __repr__(self) -> str:
        return "<ChallengeAnswer>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Cancellation(Struct, frozen=True, omit_defaults=True):
    """`payment_token` where it is not in a header."""

    payment_token: str | None = None

    def __repr__(self) -> str:
        return "<Cancellation>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


_submit_decoder = msgspec.json.Decoder(PaymentRequest)
_answer_decoder = msgspec.json.Decoder(ChallengeAnswer)
_cancel_decoder = msgspec.json.Decoder(Cancellation)
_SUBMIT, _ANSWER, _CANCEL = (
    msgspec.inspect.type_info(kind) for kind in (PaymentRequest, ChallengeAnswer, Cancellation)
)


def decode_submit(body: bytes) -> PaymentRequest:
    """Raises `RequestRefused`: MALFORMED, or INVALID with every fault. So do the next two."""
    return _read(body, _submit_decoder, _SUBMIT)


def decode_challenge_answer(body: bytes) -> ChallengeAnswer:
    return _read(body, _answer_decoder, _ANSWER)


def decode_cancellation(body: bytes) -> Cancellation:
    """An empty body says nothing, which is enough where the token is in a header."""
    return _read(body, _cancel_decoder, _CANCEL) if body else Cancellation()


def read_idempotency_key(headers: RawHeaders) -> str:
    """Raises `RequestRefused`: INVALID. Which of two keys counts nobody could tell for sure, so that there are two is refused."""
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


def read_payment_token(headers: RawHeaders, told: str | None, *, secured: bool) -> str:
    """From X-Payment-Token, else the one `told` in the body, else from Authorization, where that does not say who asks (`secured`).

    In this order, because an Authorization may be of somebody between the caller and us. Raises `RequestRefused`: INVALID.
    """
    own = [value for value in _values(headers, b"x-payment-token") if value]
    if len(own) > 1:
        raise invalid(FieldProblem(TOKEN_HEADER, "ONE_TOO_MANY", "must be given once"))
    bearers = [] if secured else [value for value in map(_bearer, _values(headers, b"authorization")) if value]
    found = own[0].decode("latin-1") if own else told or (bearers[0].decode("latin-1") if bearers else "")
    if not found:
        raise invalid(FieldProblem(TOKEN_HEADER, "MISSING", "is required"))
    return found


def read_payment_id(claimed: str) -> str:
    """Raises `RequestRefused`: NOT_FOUND for what cannot be the id of a payment."""
    if not _PAYMENT_ID.fullmatch(claimed):
        raise RequestRefused(ProblemCode.NOT_FOUND, "There is no such payment.")
    return claimed


def read_wait_ms(claimed: Sequence[str]) -> int:
    """From what the query says of it, each time that it does. Raises `RequestRefused`: INVALID."""
    if not claimed:
        return 0
    if len(claimed) > 1:
        raise invalid(FieldProblem("wait_ms", "ONE_TOO_MANY", "must be given once"))
    digits = claimed[0]
    if not (digits.isascii() and digits.isdigit()):
        raise invalid(
            FieldProblem("wait_ms", "BAD_FORMAT", "must be a whole number of milliseconds in decimal digits")
        )
    # Whatever has ten digits or more is beyond the bound, and is never turned into a number.
    if len(digits) > 9 or int(digits) > LONGEST_WAIT_MS:
        raise invalid(FieldProblem("wait_ms", "OUT_OF_RANGE", f"must be from 0 to {LONGEST_WAIT_MS}"))
    return int(digits)


def _read(body: bytes, decoder: msgspec.json.Decoder[T], kind: msgspec.inspect.Type) -> T:
    # Before its types are looked at: what is wrong with them must not be said of a card number, and unknown fields have none.
    _reject_card_numbers(codec.decode_json(body))
    return codec.decode(body, decoder, kind)


def _reject_card_numbers(told: Any) -> None:
    found = payment_pan_fields(told)
    if found:
        message = "looks like a card number, of which none may be sent here: card_token takes a vault's token"
        faults = (FieldProblem(_short(path), "LOOKS_LIKE_PAN", message) for path in found)
        raise RequestRefused(ProblemCode.INVALID, f"What was sent {message}.", errors=tuple(faults))


def _short(path: str) -> str:
    return path if len(path) <= _MAX_FIELD_PATH else path[: _MAX_FIELD_PATH - 1] + "…"


def _values(headers: RawHeaders, name: bytes) -> list[bytes]:
    return [value for each, value in headers if each == name]


def _bearer(authorization: bytes) -> bytes:
    scheme, _, credentials = authorization.partition(b" ")
    return credentials.strip() if scheme.lower() == b"bearer" else b""
