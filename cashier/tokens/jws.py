"""Signing and verifying: compact JWS (RFC 7515) with HS256 under keys that rotate. What a token says, and when it ends, is elsewhere.

A token is put together by hand because its header is the same for each kind and key, and the hot path signs one per consultation. For the
same reason a header is not interpreted when it comes back: it is one that this writes, to the letter, or the token is refused. So there is
no other algorithm, no key of another place, no second member of a name. The signature is verified by PyJWT, off the hot path.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Literal, TypeAlias

import jwt
import msgspec
from msgspec import Struct

# RFC 7518, section 3.2: a key for HS256 has at least the size of its hash.
MIN_SECRET_BYTES = 32
ISSUER: Literal["cashier"] = "cashier"
# 32 bytes of signature are 43 characters, and the last carries four bits: any other last character is a second spelling of the same one,
# which not every version of PyJWT refuses.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")

TokenCode: TypeAlias = Literal[
    "TOKEN_MALFORMED",  # no token at all, or one without the claims that its kind has
    "TOKEN_TAMPERED",  # not as it was signed
    "TOKEN_UNKNOWN_KEY",  # signed by a key that is not here, or no longer
    "TOKEN_WRONG_TYPE",  # ours, of another kind
    "TOKEN_EXPIRED",
    "TOKEN_OTHER_ORDER",
    "TOKEN_OTHER_USER",
    "TOKEN_OTHER_PAYMENT",
]


class TokenRefused(Exception):
    """A token that proves nothing, or nothing of what it was presented for. The text names the trouble, never the token."""

    def __init__(self, code: TokenCode) -> None:
        super().__init__(code)
        self.code = code


class _Header(Struct):
    kid: str = ""
    typ: str = ""


_header_decoder = msgspec.json.Decoder(_Header)
# Made once: making one is most of what a verification costs.
_jws = jwt.PyJWS(algorithms=["HS256"])


class Keyring:
    """The secrets: the first one signs, all verify. To rotate put the new one first, and drop the old one when its last token has ended."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """Raises `ValueError` where there is no secret, or one of fewer than 32 bytes."""
        if not secrets:
            raise ValueError("[tokens] secrets is empty: the first one signs, all verify")
        keys = [secret.encode() for secret in secrets]
        for place, key in enumerate(keys, start=1):
            if len(key) < MIN_SECRET_BYTES:
                raise ValueError(
                    f"[tokens] secrets: number {place} has {len(key)} bytes, at least {MIN_SECRET_BYTES} are needed;"
                    " make one with `openssl rand -base64 32`"
                )
        self.key = keys[0]
        self._keys = {_kid(key): key for key in keys}

    def __repr__(self) -> str:
        return f"<Keyring kids={list(self._keys)}>"

    def header(self, kind: str) -> bytes:
        """What a token of this kind begins with, its dot included."""
        return _written(_kid(self.key), kind)

    def verified(self, text: str, kind: str, longest: int) -> tuple[bytes, bytes]:
        """What was signed as a token of this kind, and the key that signed it. `longest` in characters. Raises `TokenRefused`."""
        if len(text) > longest or not _COMPACT.fullmatch(text):
            raise TokenRefused("TOKEN_MALFORMED")
        header = _header_of(text)
        key = self._keys.get(header.kid)
        if key is None:
            raise TokenRefused("TOKEN_UNKNOWN_KEY")
        if not text.startswith(_written(header.kid, header.typ).decode("ascii")):
            raise TokenRefused("TOKEN_TAMPERED")
        try:
            payload: bytes = _jws.decode(text, key, algorithms=["HS256"])
        except jwt.PyJWTError:
            raise TokenRefused("TOKEN_TAMPERED") from None
        if header.typ != kind:
            raise TokenRefused("TOKEN_WRONG_TYPE")
        return payload, key


def sign(header: bytes, payload: bytes, key: bytes) -> str:
    """The whole token. `header` as `Keyring.header` gives it, for this key."""
    begin = header + b64url_encode(payload)
    return (begin + b"." + b64url_encode(hmac.digest(key, begin, "sha256"))).decode("ascii")


def b64url_encode(octets: bytes) -> bytes:
    """Base 64 as JWS has it: for URLs, without padding."""
    return urlsafe_b64encode(octets).rstrip(b"=")


def b64url_decode(text: str) -> bytes:
    """Raises `ValueError` for what is not base 64."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _header_of(text: str) -> _Header:
    try:
        return _header_decoder.decode(b64url_decode(text.partition(".")[0]))
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise TokenRefused("TOKEN_MALFORMED") from None


def _written(kid: str, kind: str) -> bytes:
    return b64url_encode(json.dumps({"alg": "HS256", "kid": kid, "typ": kind}, separators=(",", ":")).encode()) + b"."


def _kid(key: bytes) -> str:
    """Names a key without telling it: a keyed hash, cut."""
    return b64url_encode(hmac.digest(key, b"cashier kid", "sha256")[:6]).decode("ascii")
