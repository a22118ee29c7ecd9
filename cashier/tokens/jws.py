"""Compact JWS (RFC 7515) with HS256 and rotating keys. Claims and expiry are up to each token kind.

Tokens are assembled by hand because the header is constant per kind and key, and the hot path signs
one per consultation. They are verified as they are made, so nothing is interpreted on the way back:
header and signature must equal what this module writes, byte for byte. So no other algorithm, no
foreign key, no duplicate member and no other spelling can pass. PyJWT would decode the payload and
the header in Python, character by character: a page with its payment verifies four tokens.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec
import orjson
from msgspec import Struct

# RFC 7518, section 3.2: a key for HS256 is at least as long as the hash.
MIN_SECRET_BYTES = 32
ISSUER: Literal["cashier"] = "cashier"
# 32 bytes of signature are 43 characters.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}")

TokenCode: TypeAlias = Literal[
    "TOKEN_MALFORMED",  # not a token, or one without the claims of its kind
    "TOKEN_TAMPERED",  # changed after signing
    "TOKEN_UNKNOWN_KEY",  # signed with a foreign or a retired key
    "TOKEN_WRONG_TYPE",  # a genuine token of another kind
    "TOKEN_EXPIRED",
    "TOKEN_OTHER_ORDER",
    "TOKEN_OTHER_USER",
    "TOKEN_OTHER_PAYMENT",
]


class TokenRefused(Exception):
    """A token that is invalid, or not valid for its use. The text is the code, never the token."""

    def __init__(self, code: TokenCode) -> None:
        super().__init__(code)
        self.code = code


class _Header(Struct):
    kid: str = ""
    typ: str = ""


_header_decoder = msgspec.json.Decoder(_Header)


class Keyring:
    """The secrets: the first signs, all verify.

    To rotate, put the new one first, and drop the old one when its last token has expired.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        """Raises `ValueError` without a secret, or for a secret of fewer than 32 bytes."""
        if not secrets:
            raise ValueError("[tokens] secrets is empty: the first one signs, all verify")
        keys = [secret.encode() for secret in secrets]
        for number, key in enumerate(keys, start=1):
            if len(key) < MIN_SECRET_BYTES:
                raise ValueError(
                    f"[tokens] secrets: number {number} has {len(key)} bytes, at least {MIN_SECRET_BYTES} are needed;"
                    " make one with `openssl rand -base64 32`"
                )
        self.key = keys[0]
        self._keys = {_key_id(key): key for key in keys}

    def __repr__(self) -> str:
        return f"<Keyring kids={list(self._keys)}>"

    def header(self, kind: str) -> bytes:
        """The beginning of a token of this kind under the first key, including the dot."""
        return _encode_header(_key_id(self.key), kind)

    def verify(self, text: str, kind: str, max_chars: int) -> tuple[bytes, bytes]:
        """Return the payload of a token of this kind, and its key. Raises `TokenRefused`."""
        if len(text) > max_chars or not _COMPACT.fullmatch(text):
            raise TokenRefused("TOKEN_MALFORMED")
        header = _decode_header(text)
        key = self._keys.get(header.kid)
        if key is None:
            raise TokenRefused("TOKEN_UNKNOWN_KEY")
        if not text.startswith(_encode_header(header.kid, header.typ).decode("ascii")):
            raise TokenRefused("TOKEN_TAMPERED")
        signing_input, _, signature = text.encode("ascii").rpartition(b".")
        if not hmac.compare_digest(signature, _signature(signing_input, key)):
            raise TokenRefused("TOKEN_TAMPERED")
        if header.typ != kind:
            raise TokenRefused("TOKEN_WRONG_TYPE")
        return b64url_decode(text.split(".")[1]), key


def sign(header: bytes, payload: bytes, key: bytes) -> str:
    """Return the complete token. `header`: from `Keyring.header`, for this key."""
    signing_input = header + b64url_encode(payload)
    return (signing_input + b"." + _signature(signing_input, key)).decode("ascii")


def b64url_encode(octets: bytes) -> bytes:
    """Base64 as in JWS: URL-safe, without padding."""
    return urlsafe_b64encode(octets).rstrip(b"=")


def b64url_decode(text: str) -> bytes:
    """Raises `ValueError` for invalid base64."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _signature(signing_input: bytes, key: bytes) -> bytes:
    return b64url_encode(hmac.digest(key, signing_input, "sha256"))


def _decode_header(text: str) -> _Header:
    try:
        return _header_decoder.decode(b64url_decode(text.partition(".")[0]))
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise TokenRefused("TOKEN_MALFORMED") from None


def _encode_header(key_id: str, kind: str) -> bytes:
    return b64url_encode(orjson.dumps({"alg": "HS256", "kid": key_id, "typ": kind})) + b"."


def _key_id(key: bytes) -> str:
    """Identify a key without revealing it: a keyed hash, truncated."""
    return b64url_encode(hmac.digest(key, b"cashier kid", "sha256")[:6]).decode("ascii")
