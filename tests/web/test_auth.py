"""Bearer authentication: tokens, keys, scopes, the cache and the checks of the settings."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from msgspec.structs import replace
from structlog.testing import capture_logs

from cashier.web import app
from cashier.web.auth import KEYS_CHECK_S, AuthSettings, BearerAuth, KeysRefused, auth_faults
from cashier.web.caller import PAYER_SCOPES, TokenScope
from cashier.web.key_file import KeyFile
from cashier.web.problem import RequestRefused
from tests.web.asgi_client import JSON, call
from tests.web.fake_service import FakeService

CONSULT = TokenScope.CONSULT
SECRET = "s" * 32
NOW_S = 1_700_000_000.0
CLAIMS: dict[str, Any] = {
    "iss": "https://id.example",
    "aud": "cashier",
    "exp": NOW_S + 60,
    "scope": "read consult",
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
        bearer_auth.admit(authorization, CONSULT, now)
    return caught.value.problem.code.value, dict(caught.value.headers)[b"www-authenticate"].decode()


def test_a_valid_token_is_admitted_and_cached() -> None:
    bearer_auth = BearerAuth(BY_SECRET)
    bearer_auth.admit(bearer(), CONSULT, NOW_S)
    bearer_auth.admit(bearer(), CONSULT, NOW_S)
    assert "cached=1" in repr(bearer_auth)


def test_a_cached_token_is_refused_after_its_expiry() -> None:
    bearer_auth = BearerAuth(BY_SECRET)
    bearer_auth.admit(bearer(), CONSULT, NOW_S)
    bearer_auth.admit(bearer(), CONSULT, NOW_S + 59.9)
    assert refused(bearer_auth, bearer(), NOW_S + 60)[0] == "UNAUTHENTICATED"
    assert "cached=0" in repr(bearer_auth)
    assert refused(bearer_auth, bearer(), NOW_S + 60)[0] == "UNAUTHENTICATED"


def test_the_token_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cashier.web.auth._MAX_CACHED", 3)
    bearer_auth = BearerAuth(BY_SECRET)
    for number in range(5):
        bearer_auth.admit(bearer(jti=str(number)), CONSULT, NOW_S)
    assert "cached=3" in repr(bearer_auth)


@pytest.mark.parametrize("before", [b"", b" " * 9000, b"\t" * 9000])
@pytest.mark.parametrize("after", [b"", b" " * 9000, b"\t" * 9000])
def test_spaces_around_a_token_take_no_memory(before: bytes, after: bytes) -> None:
    """Each number of them would be an entry of its own, of up to 64 KiB."""
    bearer_auth = BearerAuth(BY_SECRET)
    padded = bearer().replace(b" ", b" " + before) + after
    if before or after:
        assert refused(bearer_auth, padded)[0] == "UNAUTHENTICATED"
        assert "cached=0" in repr(bearer_auth)
    else:
        bearer_auth.admit(padded, CONSULT, NOW_S)


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
    BearerAuth(BY_KEYS, KEYS).admit(bearer(key, algorithm, kid), CONSULT, NOW_S)


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
    bearer_auth.admit(bearer(RSA_KEY, "RS512", "rsa"), CONSULT, NOW_S)
    assert refused(bearer_auth, bearer(RSA_KEY, "RS256", "rsa"))[0] == "UNAUTHENTICATED"


def test_a_set_of_one_key_needs_no_kid() -> None:
    member = public_members()[1]
    del member["kid"]
    BearerAuth(BY_KEYS, jwks(member)).admit(bearer(EC_KEY, "ES256"), CONSULT, NOW_S)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a JSON object"),
        ("[]", "not a JSON object"),
        ('{"keys": 5}', "not a JSON object"),
        ('{"keys": [5]}', "not a JSON object"),
        ('{"keys": []}', "no key to verify"),
        ('{"keys": [{"a": ' + "[" * 100_000, "not a JSON object"),
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


@pytest.mark.parametrize("value", [0, True, 1.5, [], ["rsa"], {}, {"a": 1}], ids=json.dumps)
@pytest.mark.parametrize("name", ["kid", "kty", "crv", "alg"])
def test_a_key_whose_names_are_no_texts_is_refused_at_start_and_leaves_the_old_keys(name: str, value: Any) -> None:
    for number, member in enumerate(public_members()):
        text = jwks(*(public_members()[:number]), member | {name: value})
        with pytest.raises(KeysRefused, match=f"key {number + 1} of the set has a {name} that is not text"):
            BearerAuth(BY_KEYS, text)
        with capture_logs() as logs:
            BearerAuth(BY_KEYS, KEYS, lambda: text).admit(bearer(RSA_KEY, "RS256", "rsa"), CONSULT, NOW_S)  # noqa: B023
        assert [line["event"] for line in logs] == ["the changed key set is refused: the old keys stay"]


def test_encryption_keys_are_ignored() -> None:
    assert "keys=1" in repr(BearerAuth(BY_KEYS, jwks(public_members()[0] | {"use": "enc"}, public_members()[1])))


def test_a_configured_scope_is_required_beside_that_of_the_endpoint() -> None:
    scoped = BearerAuth(
        AuthSettings(mode="jwt", issuer=BY_SECRET.issuer, audience="cashier", secret=SECRET, scope="cashier")
    )
    scoped.admit(bearer(scope="consult cashier"), CONSULT, NOW_S)
    for scope in (None, "", "consult", "cashiers consult", ["consult"]):
        code, challenge = refused(scoped, bearer(scope=scope))
        assert code == "FORBIDDEN"
        assert 'error="insufficient_scope", scope="cashier"' in challenge
    code, challenge = refused(scoped, bearer(scope="cashier"))
    assert (code, challenge) == ("FORBIDDEN", 'Bearer realm="cashier", error="insufficient_scope", scope="consult"')


def test_leeway_tolerates_clock_skew() -> None:
    lenient = BearerAuth(
        AuthSettings(mode="jwt", issuer=BY_SECRET.issuer, audience="cashier", secret=SECRET, leeway_s=5)
    )
    lenient.admit(bearer(exp=NOW_S - 4, nbf=NOW_S + 4), CONSULT, NOW_S)
    assert refused(lenient, bearer(exp=NOW_S - 5))[0] == "UNAUTHENTICATED"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_mode_none_is_accepted_on_loopback(host: str) -> None:
    assert auth_faults(AuthSettings(), host) == ()


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0", "::", "[::]", "10.0.0.1", "169.254.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "128.0.0.1",
        "shop.example", "localhost.example", "127.0.0.1.example", "cashier", "/run/cashier.sock", "unix:/run/c.sock",
        "*", "0", "",
    ],
)  # fmt: skip
def test_mode_none_beyond_loopback_is_refused_with_its_remedies_unless_declared_insecure(host: str) -> None:
    (fault,) = auth_faults(AuthSettings(), host)
    assert 'set mode = "jwt", or listen on 127.0.0.1' in fault
    assert "set insecure = true" in fault
    assert auth_faults(AuthSettings(insecure=True), host) == ()


def test_settings_that_would_have_no_effect_are_refused() -> None:
    for key in ("user_claim", "order_claim", "merchant_claim"):
        (fault,) = auth_faults(msgspec.convert({key: "sub"}, AuthSettings), "127.0.0.1")
        assert fault.startswith(f"[auth] {key} needs mode")
    (fault,) = auth_faults(replace(BY_SECRET, insecure=True), "127.0.0.1")
    assert fault == '[auth] insecure is for mode = "none"; remove it'


def test_every_error_in_the_jwt_settings_is_reported() -> None:
    assert auth_faults(BY_SECRET, "0.0.0.0") == ()
    assert len(auth_faults(AuthSettings(mode="jwt"), "127.0.0.1")) == 3
    (both,) = auth_faults(AuthSettings(mode="jwt", issuer="i", audience="a", jwks_file="f", secret=SECRET), "::")
    assert "not both" in both
    (short,) = auth_faults(AuthSettings(mode="jwt", issuer="i", audience="a", secret="short"), "::")
    assert "32 bytes" in short


PAYERS = replace(BY_SECRET, user_claim="sub", order_claim="order", merchant_claim="merchant")


@pytest.mark.parametrize(
    ("claims", "scopes", "ids"),
    [
        ({"scope": "consult pay"}, {"consult", "pay"}, (None, None, None)),
        ({"scope": "  consult\tinvalidate "}, {"consult", "invalidate"}, (None, None, None)),
        ({"scope": ["consult", "sessions", "read"]}, {"consult", "sessions"}, (None, None, None)),
        ({"scope": "operations", "merchant": "m_1"}, {"operations"}, (None, None, "m_1")),
        ({"scope": "pay", "order": "o_1"}, {"pay"}, (None, "o_1", None)),
        # A service's subject is its own client id.
        ({"scope": "pay", "sub": "shop", "client_id": "shop"}, {"pay"}, (None, None, None)),
        # A payer, whatever its scopes: they only narrow.
        ({"scope": None, "sub": "u_1"}, {"consult", "pay"}, ("u_1", None, None)),
        ({"scope": "openid email", "sub": "u_1"}, {"consult", "pay"}, ("u_1", None, None)),
        ({"scope": "consult", "sub": "u_1"}, {"consult"}, ("u_1", None, None)),
        ({"scope": ["pay", "invalidate"], "sub": "u_1"}, {"pay"}, ("u_1", None, None)),
        ({"scope": "invalidate operations", "sub": "u_1"}, set(), ("u_1", None, None)),
        ({"scope": "pay", "sub": "u_1", "client_id": "shop"}, {"pay"}, ("u_1", None, None)),
        ({"scope": "pay", "sub": "u_1", "client_id": ["u_1"]}, {"pay"}, ("u_1", None, None)),
        ({"scope": "", "sub": "u_1", "order": "o_1", "merchant": "m_1"}, {"consult", "pay"}, ("u_1", "o_1", "m_1")),
        # Neither.
        ({"scope": None}, set(), (None, None, None)),
        ({"scope": "CONSULT consult:all consultpay"}, set(), (None, None, None)),
        ({"scope": None, "sub": "shop", "client_id": "shop"}, set(), (None, None, None)),
    ],
)
def test_a_token_is_a_payers_if_it_has_the_user_claim_and_else_a_services(
    claims: dict[str, Any], scopes: set[str], ids: tuple[str | None, ...]
) -> None:
    bearer_auth = BearerAuth(PAYERS)
    token = bearer(**claims)
    for scope in TokenScope:
        if scope in scopes:
            caller = bearer_auth.admit(token, scope, NOW_S)
            assert (caller.user_id, caller.order_id, caller.merchant_id) == ids
            assert caller.is_bound == (ids != (None, None, None))
            assert caller.scopes == scopes
        else:
            with pytest.raises(RequestRefused) as caught:
                bearer_auth.admit(token, scope, NOW_S)
            assert caught.value.problem.code == "FORBIDDEN"


@pytest.mark.parametrize("name", ["scope", "sub", "order", "merchant"])
@pytest.mark.parametrize("value", [1, 0, True, False, 1.5, {}, {"u_1": 1}, [1], [None], [["consult"]], "null"])
def test_a_claim_of_the_wrong_type_makes_the_token_invalid(name: str, value: Any) -> None:
    claims = CLAIMS | {"sub": "u_1", name: None if value == "null" else value}
    # PyJWT refuses to write such a subject.
    token = b"Bearer " + jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, algorithm="HS256").encode()
    assert refused(BearerAuth(PAYERS), token)[0] == "UNAUTHENTICATED"


@pytest.mark.parametrize("name", ["sub", "order", "merchant"])
def test_an_empty_claim_does_not_unbind_the_token(name: str) -> None:
    claims: dict[str, Any] = {name: ""}
    assert refused(BearerAuth(PAYERS), bearer(**claims))[0] == "UNAUTHENTICATED"


def test_without_a_user_claim_every_token_is_a_services() -> None:
    caller = BearerAuth(BY_SECRET).admit(bearer(sub="u_1"), CONSULT, NOW_S)
    assert not caller.is_bound
    assert refused(BearerAuth(BY_SECRET), bearer(sub="u_1", scope="openid"))[0] == "FORBIDDEN"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(TokenScope),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=5,
)
NAMES = ("iss", "aud", "exp", "nbf", "iat", "jti", "sub", "client_id", "scope", "order", "merchant")


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(NAMES), JSON_VALUES), st.sampled_from(TokenScope))
def test_no_claims_are_a_bug_or_silently_allowed(changed: dict[str, Any], scope: TokenScope) -> None:
    claims = CLAIMS | changed
    token = b"Bearer " + jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, algorithm="HS256").encode()
    try:
        caller = BearerAuth(PAYERS).admit(token, scope, NOW_S)
    except RequestRefused as refusal:
        assert refusal.problem.code in ("UNAUTHENTICATED", "FORBIDDEN")  # noqa: PT017 - only one of two outcomes
        return
    assert scope in caller.scopes
    assert NOW_S < caller.expires_at < float("inf")
    if caller.user_id is None:
        assert scope in (claims["scope"].split() if isinstance(claims["scope"], str) else claims["scope"])
        assert "sub" not in claims or claims["sub"] == claims["client_id"]
    else:
        assert caller.user_id == claims["sub"] != ""
        assert scope in PAYER_SCOPES
    assert (caller.order_id, caller.merchant_id) == (claims.get("order"), claims.get("merchant"))


@pytest.mark.parametrize("exp", ["NaN", "Infinity", "1e400", "9" * 400, "-1e400", "true", '"9999999999"', "null"])
def test_an_expiry_that_is_no_time_makes_the_token_invalid(exp: str) -> None:
    payload = json.dumps(CLAIMS | {"exp": 0}).replace('"exp": 0', f'"exp": {exp}').encode()
    token = b"Bearer " + jwt.api_jws.encode(payload, SECRET, algorithm="HS256").encode()
    assert refused(BearerAuth(PAYERS), token)[0] == "UNAUTHENTICATED"


def test_payers_raise_no_priority_and_evict_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cashier.web.auth._MAX_CACHED", 3)
    bearer_auth, service = BearerAuth(PAYERS), bearer()
    bearer_auth.admit(service, CONSULT, NOW_S)
    for number in range(10):
        payer = bearer(sub=f"u_{number}")
        bearer_auth.admit(payer, CONSULT, NOW_S)
        assert not bearer_auth.is_verified(payer, NOW_S)
    assert bearer_auth.is_verified(service, NOW_S)
    # A service that may not consult gets no priority for it.
    other = bearer(scope="invalidate")
    bearer_auth.admit(other, TokenScope.INVALIDATE, NOW_S)
    assert not bearer_auth.is_verified(other, NOW_S)


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


def test_a_changed_key_set_is_taken_within_seconds_and_ends_what_the_old_one_verified() -> None:
    rsa_member, ec_member, _ = public_members()
    changes: list[str | None] = []
    bearer_auth = BearerAuth(BY_KEYS, jwks(rsa_member), lambda: changes.pop() if changes else None)
    old, new = bearer(RSA_KEY, "RS256", "rsa", exp=NOW_S + 600), bearer(EC_KEY, "ES256", "ec", exp=NOW_S + 600)
    bearer_auth.admit(old, CONSULT, NOW_S)
    assert refused(bearer_auth, new)[0] == "UNAUTHENTICATED"
    changes.append(jwks(rsa_member, ec_member))
    at_s = NOW_S + KEYS_CHECK_S
    bearer_auth.admit(new, CONSULT, at_s)
    bearer_auth.admit(old, CONSULT, at_s)
    changes.append(jwks(ec_member))
    bearer_auth.admit(old, CONSULT, at_s + KEYS_CHECK_S - 1)
    assert refused(bearer_auth, old, at_s + KEYS_CHECK_S)[0] == "UNAUTHENTICATED"
    bearer_auth.admit(new, CONSULT, at_s + KEYS_CHECK_S)


@pytest.mark.parametrize("text", ["", "{", '{"keys": []}', jwks({"kty": "oct", "k": "c2VjcmV0" * 8})])
def test_a_changed_key_set_that_must_not_be_used_leaves_the_old_keys(text: str) -> None:
    bearer_auth = BearerAuth(BY_KEYS, KEYS, lambda: text)
    with capture_logs() as logs:
        bearer_auth.admit(bearer(RSA_KEY, "RS256", "rsa"), CONSULT, NOW_S)
    assert [line["event"] for line in logs] == ["the changed key set is refused: the old keys stay"]
    assert "c2VjcmV0" not in str(logs)


def test_a_key_file_says_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text("one")
    keys = KeyFile(str(path))
    assert (keys.read(), keys.read_changed()) == ("one", None)
    (tmp_path / "next").write_text("another")
    (tmp_path / "next").rename(path)
    assert [keys.read_changed(), keys.read_changed()] == ["another", None]
    path.unlink()
    with capture_logs() as logs:
        assert [keys.read_changed(), keys.read_changed()] == [None, None]
    assert [line["reason"] for line in logs] == ["FileNotFoundError"]
    path.write_bytes(b"\xff")
    assert keys.read_changed() is None
    path.write_text("back")
    assert keys.read_changed() == "back"


KEY_FILES = {"read": "", "absent": "FileNotFoundError", "folder": "IsADirectoryError", "binary": "UnicodeDecodeError"}


@pytest.mark.parametrize("states", [*product(KEY_FILES, repeat=3)], ids="-".join)
def test_each_cause_of_an_unread_key_file_is_logged_once(tmp_path: Path, states: tuple[str, ...]) -> None:
    path = tmp_path / "jwks.json"
    path.write_text("first")
    keys = KeyFile(str(path))
    keys.read()
    expected, last = [], ""
    with capture_logs() as logs:
        for number, state in enumerate(states):
            if path.exists():
                path.rename(tmp_path / str(number))
            if state == "folder":
                path.mkdir()
            elif state != "absent":
                path.write_bytes(b"\xff" if state == "binary" else b"%d" % number)
            seen = [keys.read_changed() for _ in range(3)]
            assert seen == [str(number) if state == "read" else None, None, None]
            if KEY_FILES[state] not in ("", last):
                expected.append(KEY_FILES[state])
            last = KEY_FILES[state]
    assert [line["reason"] for line in logs] == expected
