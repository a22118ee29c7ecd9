"""Public keys as a key set, and bearer tokens to try a service with. Never used by a service."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey, Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

_PRIVATE = (RSAPrivateKey, EllipticCurvePrivateKey, Ed25519PrivateKey, Ed448PrivateKey)
_PUBLIC = (RSAPublicKey, EllipticCurvePublicKey, Ed25519PublicKey, Ed448PublicKey)
# P-256, P-384 and P-521.
_CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
# RFC 7638, section 3.2: what a thumbprint covers.
_REQUIRED = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}


class KeyUnusable(ValueError):
    """A file that holds no key of an accepted kind. The text never contains key material."""


def key_set(pems: Iterable[bytes]) -> dict[str, Any]:
    """The JSON Web Key Set of these keys, private or public; of a private one the public half.

    The `kid` of each is its thumbprint (RFC 7638). Raises `KeyUnusable`.
    """
    return {"keys": [_public_member(_public(_load(pem))) for pem in pems]}


def signed_token(claims: Mapping[str, Any], pem: bytes) -> str:
    """Raises `KeyUnusable`, also for a public key."""
    key = _load(pem)
    if not isinstance(key, _PRIVATE):
        raise KeyUnusable("it is a public key: tokens are signed by a private one")
    member = _public_member(_public(key))
    return jwt.encode(dict(claims), key, algorithm=member["alg"], headers={"kid": member["kid"]})


def _load(pem: bytes) -> Any:
    for load in (lambda: load_pem_private_key(pem, None), lambda: load_pem_public_key(pem)):
        try:
            key = load()
        except (ValueError, TypeError):  # TypeError: it needs a password
            continue
        if isinstance(key, (*_PRIVATE, *_PUBLIC)):
            return key
    raise KeyUnusable("it holds no RSA, EC or Ed25519 key in PEM without a password")


def _public(key: Any) -> Any:
    return key.public_key() if isinstance(key, _PRIVATE) else key


def _public_member(key: Any) -> dict[str, Any]:
    if isinstance(key, RSAPublicKey):
        member, algorithm = RSAAlgorithm.to_jwk(key, as_dict=True), "RS256"
    elif isinstance(key, EllipticCurvePublicKey):
        if key.curve.name not in _CURVE_ALGORITHMS:
            raise KeyUnusable("its curve is not P-256, P-384 or P-521")
        member, algorithm = ECAlgorithm.to_jwk(key, as_dict=True), _CURVE_ALGORITHMS[key.curve.name]
    else:
        member, algorithm = OKPAlgorithm.to_jwk(key, as_dict=True), "EdDSA"
    required = {name: member[name] for name in _REQUIRED[member["kty"]]}
    return {**required, "kid": _thumbprint(required), "alg": algorithm, "use": "sig"}


def _thumbprint(required: Mapping[str, str]) -> str:
    canonical = json.dumps(required, sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
