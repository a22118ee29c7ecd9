"""RSA keys from PEM, or from the bare base64 of Alipay's key tool; signatures SHA256withRSA."""

from __future__ import annotations

import base64
import binascii

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

# Both gateways take no shorter ones.
MIN_BITS = 2048
_PADDING, _HASH = PKCS1v15(), SHA256()


def private_key(content: bytes) -> RSAPrivateKey:
    """ValueError, without key material, for anything but an unencrypted RSA key."""
    try:
        key = (
            load_pem_private_key(content, None)
            if b"-----BEGIN" in content
            else load_der_private_key(_der(content), None)
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is no unencrypted private key") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < MIN_BITS:
        raise ValueError(f"is no RSA key of at least {MIN_BITS} bits")
    return key


def public_key(content: bytes) -> RSAPublicKey:
    """Of a public key or a certificate. ValueError for anything else."""
    key: object
    try:
        if b"-----BEGIN CERTIFICATE" in content:
            key = x509.load_pem_x509_certificate(content).public_key()
        elif b"-----BEGIN" in content:
            key = load_pem_public_key(content)
        else:
            key = load_der_public_key(_der(content))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is no public key and no certificate") from None
    if not isinstance(key, RSAPublicKey) or key.key_size < MIN_BITS:
        raise ValueError(f"is no RSA key of at least {MIN_BITS} bits")
    return key


def signature(key: RSAPrivateKey, text: bytes) -> str:
    """SHA256withRSA in base64. Takes most of a millisecond."""
    return base64.b64encode(key.sign(text, _PADDING, _HASH)).decode("ascii")


def is_signed(key: RSAPublicKey, text: bytes, signed: str) -> bool:
    """Whether `signed`, in base64, is a signature of the text. False for what is no base64."""
    try:
        key.verify(base64.b64decode(signed, validate=True), text, _PADDING, _HASH)
    except (InvalidSignature, ValueError):
        return False
    return True


def _der(content: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(content.split()), validate=True)
    except binascii.Error:
        raise ValueError from None
