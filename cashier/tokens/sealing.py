"""Encryption of a part of a token, under a key of its own for each purpose."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cashier.tokens.jws import TokenRefused, b64url_decode, b64url_encode

_NONCE_BYTES = 12


def seal(octets: bytes, key: bytes, purpose: str) -> str:
    """`purpose`: names the kind of token and the payment."""
    nonce = os.urandom(_NONCE_BYTES)
    return b64url_encode(nonce + _cipher(key, purpose).encrypt(nonce, octets, None)).decode("ascii")


def unseal(text: str, key: bytes, purpose: str) -> bytes:
    """Raises `TokenRefused` for what was not sealed for this purpose."""
    try:
        octets = b64url_decode(text)
        return _cipher(key, purpose).decrypt(octets[:_NONCE_BYTES], octets[_NONCE_BYTES:], None)
    except (InvalidTag, ValueError):
        raise TokenRefused("TOKEN_MALFORMED") from None


def seal_alike(octets: bytes, key: bytes, purpose: str) -> str:
    """As `seal`, but equal for equal octets (RFC 5297), which is all that it reveals."""
    return b64url_encode(_alike_cipher(key, purpose).encrypt(octets, None)).decode("ascii")


def unseal_alike(text: str, key: bytes, purpose: str) -> bytes:
    """Raises `TokenRefused` for what was not sealed by `seal_alike` for this purpose."""
    try:
        return _alike_cipher(key, purpose).decrypt(b64url_decode(text), None)
    except (InvalidTag, ValueError):
        raise TokenRefused("TOKEN_MALFORMED") from None


def _alike_cipher(key: bytes, purpose: str) -> AESSIV:
    return AESSIV(HKDF(SHA256(), length=64, salt=None, info=purpose.encode()).derive(key))


def _cipher(key: bytes, purpose: str) -> AESGCM:
    """A cipher with a key per payment.

    Random nonces are safe for 2^32 messages per key (NIST SP 800-38D, 8.3); all payments together
    may exceed that.
    """
    return AESGCM(HKDF(SHA256(), length=32, salt=None, info=purpose.encode()).derive(key))
