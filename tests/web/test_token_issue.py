"""Key sets and tokens to try a service with: what the service itself accepts."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from cashier.web.auth import AuthSettings, BearerAuth
from cashier.web.caller import TokenScope
from cashier.web.token_issue import KeyUnusable, key_set, signed_token

PRIVATE: list[Any] = [
    rsa.generate_private_key(65537, 2048),
    ec.generate_private_key(ec.SECP256R1()),
    ec.generate_private_key(ec.SECP384R1()),
    ec.generate_private_key(ec.SECP521R1()),
    ed25519.Ed25519PrivateKey.generate(),
    ed448.Ed448PrivateKey.generate(),
]
# RFC 7638, section 3.1, and RFC 8037, appendix A.3.
RSA_OF_RFC = {
    "kty": "RSA",
    "e": "AQAB",
    "n": (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCi"
        "FV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnY"
        "b9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0"
        "Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    ),
}
ED25519_OF_RFC = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


def private_pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def public_pem(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.parametrize(
    ("member", "kid"),
    [
        (RSA_OF_RFC, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
        (ED25519_OF_RFC, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
    ],
)
def test_a_key_is_named_by_its_thumbprint(member: dict[str, str], kid: str) -> None:
    pem = public_pem(jwt.PyJWK(member, "RS256" if member["kty"] == "RSA" else "EdDSA").key)
    (found,) = key_set([pem])["keys"]
    assert found["kid"] == kid
    assert found.items() >= member.items()


@pytest.mark.parametrize("key", PRIVATE)
def test_a_service_with_the_key_set_accepts_the_token(key: Any) -> None:
    pems = [private_pem(each) for each in PRIVATE]
    text = json.dumps(key_set(pems))
    settings = AuthSettings(mode="jwt", issuer="https://i", audience="cashier", jwks_file="keys.json")
    claims = {"iss": "https://i", "aud": "cashier", "exp": time.time() + 60, "scope": "pay"}
    made = signed_token(claims, private_pem(key))
    caller = BearerAuth(settings, text).admit(f"Bearer {made}".encode(), TokenScope.PAY, time.time())
    assert caller.scopes == {TokenScope.PAY}


@pytest.mark.parametrize("key", PRIVATE)
def test_a_key_set_holds_nothing_private(key: Any) -> None:
    assert key_set([private_pem(key)]) == key_set([public_pem(key.public_key())])
    assert {"d", "p", "q", "dp", "dq", "qi", "k"}.isdisjoint(key_set([private_pem(key)])["keys"][0])
    with pytest.raises(KeyUnusable, match="public key"):
        signed_token({}, public_pem(key.public_key()))


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        private_pem(x25519.X25519PrivateKey.generate()),
        PRIVATE[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        private_pem(ec.generate_private_key(ec.SECP256K1())),
    ],
)
def test_another_file_is_refused(pem: bytes) -> None:
    with pytest.raises(KeyUnusable):
        key_set([pem])


@pytest.mark.parametrize(
    "curve",
    [ec.SECP224R1(), ec.SECP192R1(), ec.SECP256K1(), ec.BrainpoolP256R1(), ec.BrainpoolP512R1()],
    ids=lambda curve: curve.name,
)
def test_a_key_of_another_curve_is_named_as_such(curve: ec.EllipticCurve) -> None:
    try:
        key = ec.generate_private_key(curve)
    except UnsupportedAlgorithm:
        pytest.skip("OpenSSL is built without this curve")
    for pem in (private_pem(key), public_pem(key.public_key())):
        with pytest.raises(KeyUnusable, match="its curve is not P-256, P-384 or P-521"):
            key_set([pem])
    with pytest.raises(KeyUnusable, match="its curve is not P-256, P-384 or P-521"):
        signed_token({}, private_pem(key))
