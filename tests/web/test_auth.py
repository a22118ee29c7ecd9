"""Bearer authentication: tokens, keys, scopes, the cache and the checks of the settings."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from cashier.web import app
from cashier.web.auth import AuthSettings, BearerAuth, KeysRefused, auth_faults
from cashier.web.problem import RequestRefused
from tests.web.asgi_client import JSON, call
from tests.web.fake_service import FakeService

SECRET = "s" * 32
NOW_S = 1_700_000_000.0
CLAIMS: dict[str, Any] = {
    "iss": "https://id.example",
    "aud": "cashier",
    "exp": NOW_S + 60,
    "scope": "read cashier:consult",
}
BY_SECRET = AuthSettings(mode="jwt", issuer="https://id.example", audience="cashier", secret=SECRET)
BY_KEYS = AuthSettings(mode="jwt", issuer="https://id.example", audience="cashier", jwks_file="keys.json")

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = Ed25519PrivateKey.generate()


def jwks(*members: dict[str, Any]) -> str:
    return json.dumps({"keys": list(members)})


def public_members() -> list[dict[str, Any]]:
    return [
        RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True) | {"kid": "rsa"},
        ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True) | {"kid": "ec"},
        OKPAlgorithm.to_jwk(ED_KEY.public_key(), as_dict=True) | {"kid": "ed", "use": "sig"},
    ]


KEYS = jwks(*public_members())


def bearer(key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **claims: Any) -> bytes:
    payload = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    return b"Bearer " + jwt.encode(payload, key, algorithm=algorithm, headers={"kid": kid} if kid else None).encode()


def refused(bearer_auth: BearerAuth, authorization: bytes | None, now: float = NOW_S) -> tuple[str, str]:
    with pytest.raises(RequestRefused) as caught:
        bearer_auth.admit(authorization, now)
    return caught.value.problem.code.value, dict(caught.value.headers)[b"www-authenticate"].decode()


def test_a_valid_token_is_admitted_and_cached() -> None:
    bearer_auth = BearerAuth(BY_SECRET)
    bearer_auth.admit(bearer(), NOW_S)
    bearer_auth.admit(bearer(), NOW_S)
    assert "cached=1" in repr(bearer_auth)


def test_a_cached_token_is_refused_after_its_expiry() -> None:
    bearer_auth = BearerAuth(BY_SECRET)
    bearer_auth.admit(bearer(), NOW_S)
    bearer_auth.admit(bearer(), NOW_S + 59.9)
    assert refused(bearer_auth, bearer(), NOW_S + 60)[0] == "UNAUTHENTICATED"
    assert "cached=0" in repr(bearer_auth)
    assert refused(bearer_auth, bearer(), NOW_S + 60)[0] == "UNAUTHENTICATED"


def test_the_token_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cashier.web.auth._MAX_CACHED", 3)
    bearer_auth = BearerAuth(BY_SECRET)
    for number in range(5):
        bearer_auth.admit(bearer(jti=str(number)), NOW_S)
    assert "cached=3" in repr(bearer_auth)


@pytest.mark.parametrize("authorization", [None, b"", b"Bearer", b"Bearer ", b"Basic dTpw", b"Bearer " + b"x" * 9000])
def test_a_request_without_a_bearer_token_is_refused_with_a_challenge(authorization: bytes | None) -> None:
    assert refused(BearerAuth(BY_SECRET), authorization) == ("UNAUTHENTICATED", 'Bearer realm="cashier"')


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"exp": NOW_S},
        {"exp": None},
        {"nbf": NOW_S + 1},
    ],
)
def test_a_token_of_another_issuer_audience_or_time_is_refused(claims: dict[str, Any]) -> None:
    code, challenge = refused(BearerAuth(BY_SECRET), bearer(**claims))
    assert code == "UNAUTHENTICATED"
    assert 'error="invalid_token"' in challenge


@pytest.mark.parametrize(
    "authorization", [b"Bearer x", b"Bearer a.b.c", b"Bearer \xff.\xff.\xff", bearer(key="t" * 32), bearer()[:-2]]
)
def test_a_token_without_a_trusted_signature_is_refused(authorization: bytes) -> None:
    assert refused(BearerAuth(BY_SECRET), authorization)[0] == "UNAUTHENTICATED"


def test_an_unsigned_token_is_refused() -> None:
    unsigned = b"Bearer " + jwt.encode(CLAIMS, "", algorithm="none").encode()
    assert refused(BearerAuth(BY_SECRET), unsigned)[0] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [(RSA_KEY, "RS256", "rsa"), (RSA_KEY, "PS384", "rsa"), (EC_KEY, "ES256", "ec"), (ED_KEY, "EdDSA", "ed")],
)
def test_keys_of_a_set_are_chosen_by_kid(key: Any, algorithm: str, kid: str) -> None:
    BearerAuth(BY_KEYS, KEYS).admit(bearer(key, algorithm, kid), NOW_S)


def test_a_public_key_is_never_used_as_a_shared_secret() -> None:
    pem = RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    begin, payload = (part.split(b".")[number] for number, part in ((0, _hs256_header("rsa")), (1, bearer(key=SECRET))))
    signing_input = begin + b"." + payload
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signing_input, pem)
    forged = b"Bearer " + signing_input + b"." + jwt.utils.base64url_encode(signature)
    assert refused(BearerAuth(BY_KEYS, KEYS), forged)[0] == "UNAUTHENTICATED"


def _hs256_header(kid: str) -> bytes:
    return jwt.utils.base64url_encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": kid}).encode()) + b"."


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(EC_KEY, "ES256", "rsa"), (RSA_KEY, "RS256", None), (RSA_KEY, "RS256", "nobody")]
)
def test_a_token_of_another_key_is_refused(key: Any, algorithm: str, kid: str | None) -> None:
    assert refused(BearerAuth(BY_KEYS, KEYS), bearer(key, algorithm, kid))[0] == "UNAUTHENTICATED"


def test_a_key_with_an_alg_verifies_no_other_algorithm() -> None:
    bearer_auth = BearerAuth(BY_KEYS, jwks(public_members()[0] | {"alg": "RS512"}))
    bearer_auth.admit(bearer(RSA_KEY, "RS512", "rsa"), NOW_S)
    assert refused(bearer_auth, bearer(RSA_KEY, "RS256", "rsa"))[0] == "UNAUTHENTICATED"


def test_a_set_of_one_key_needs_no_kid() -> None:
    member = public_members()[1]
    del member["kid"]
    BearerAuth(BY_KEYS, jwks(member)).admit(bearer(EC_KEY, "ES256"), NOW_S)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a JSON object"),
        ("[]", "not a JSON object"),
        ('{"keys": 5}', "not a JSON object"),
        ('{"keys": [5]}', "not a JSON object"),
        ('{"keys": []}', "no key to verify"),
        (jwks({"kty": "oct", "k": "c2VjcmV0"}), "is secret"),
        (jwks(RSAAlgorithm.to_jwk(RSA_KEY, as_dict=True)), "is secret"),
        (jwks({"kty": "RSA", "n": "!", "e": "AQAB"}), "cannot be read"),
        (jwks({"kty": "EC", "crv": "secp256k1"}), "not accepted"),
        (jwks(public_members()[0] | {"alg": "HS256"}), "not accepted"),
        (
            jwks(*[{name: value for name, value in member.items() if name != "kid"} for member in public_members()]),
            "a kid on each",
        ),
        (
            # Too weak on purpose.
            jwks(RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)),  # noqa: S505
            "fewer than 2048",
        ),
    ],
)
def test_an_unsuitable_key_set_is_refused_at_start(text: str, why: str) -> None:
    with pytest.raises(KeysRefused, match=why):
        BearerAuth(BY_KEYS, text)


def test_encryption_keys_are_ignored() -> None:
    assert "keys=1" in repr(BearerAuth(BY_KEYS, jwks(public_members()[0] | {"use": "enc"}, public_members()[1])))


def test_a_scope_is_required_only_if_configured() -> None:
    BearerAuth(BY_SECRET).admit(bearer(scope=None), NOW_S)
    scoped = BearerAuth(
        AuthSettings(mode="jwt", issuer=BY_SECRET.issuer, audience="cashier", secret=SECRET, scope="cashier:consult")
    )
    scoped.admit(bearer(), NOW_S)
    for scope in (None, "", "cashier:consulting", "cashier"):
        code, challenge = refused(scoped, bearer(scope=scope))
        assert code == "FORBIDDEN"
        assert 'error="insufficient_scope", scope="cashier:consult"' in challenge


def test_leeway_tolerates_clock_skew() -> None:
    lenient = BearerAuth(
        AuthSettings(mode="jwt", issuer=BY_SECRET.issuer, audience="cashier", secret=SECRET, leeway_s=5)
    )
    lenient.admit(bearer(exp=NOW_S - 4, nbf=NOW_S + 4), NOW_S)
    assert refused(lenient, bearer(exp=NOW_S - 5))[0] == "UNAUTHENTICATED"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_mode_none_is_accepted_on_loopback(host: str) -> None:
    assert auth_faults(AuthSettings(), host) == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "shop.example", ""])
def test_mode_none_is_refused_on_other_addresses_with_a_remedy(host: str) -> None:
    (fault,) = auth_faults(AuthSettings(), host)
    assert 'set mode = "jwt", or listen on 127.0.0.1' in fault


def test_every_error_in_the_jwt_settings_is_reported() -> None:
    assert auth_faults(BY_SECRET, "0.0.0.0") == ()
    assert len(auth_faults(AuthSettings(mode="jwt"), "127.0.0.1")) == 3
    (both,) = auth_faults(AuthSettings(mode="jwt", issuer="i", audience="a", jwks_file="f", secret=SECRET), "::")
    assert "not both" in both
    (short,) = auth_faults(AuthSettings(mode="jwt", issuer="i", audience="a", secret="short"), "::")
    assert "32 bytes" in short


async def test_consultations_need_a_token_and_health_checks_do_not() -> None:
    service = FakeService()
    application = app(service, bearer_auth=BearerAuth(BY_SECRET))
    response = await call(application)
    assert response.problem() == (401, "UNAUTHENTICATED")
    assert response.headers["www-authenticate"] == 'Bearer realm="cashier"'
    assert not service.calls
    token = bearer(exp=4_000_000_000).decode()
    assert (await call(application, headers=JSON | {"Authorization": token})).status == 200
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert (await call(application, b"", method="GET", path=path, headers={})).status == 200
