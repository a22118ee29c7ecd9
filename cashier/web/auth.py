"""Authentication by bearer token (JWT), verified by PyJWT and cached.

A token without a user claim is a service's, and its scopes say what the service may call. A token
with one is a payer's: it acts for that user only, and scopes can only narrow what it may call. Many
issuers give every token a subject. That of a service is its own `client_id` (RFC 9068, section
2.2), so a token with both equal is a service's.

Reads no files and no clock: callers pass the text of the keys, what reads it again, and the time.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeAlias

import jwt
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from msgspec import Struct

from cashier.web.caller import PAYER_SCOPES, Caller, TokenScope, lacks_scope
from cashier.web.problem import ProblemCode, RequestRefused

_log = structlog.get_logger("cashier.web")

# How often changed keys are looked for, at a request.
KEYS_CHECK_S = 5
# RFC 7518, section 3.2: a key for HS256 has at least the size of its hash. Section 3.3: an RSA key
# has at least 2048 bits.
MIN_SECRET_BYTES = 32
MIN_RSA_BITS = 2048
# The algorithms of a key without `alg`. Never one of another family, so that a public key cannot
# serve as a shared secret.
_BY_TYPE = {"RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "OKP": ("EdDSA",)}
_BY_CURVE = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",)}
# A longer token, with spaces around it, is refused before parsing. Also bounds the memory of one
# cache entry.
_MAX_TOKEN_BYTES = 8192
_MAX_CACHED = 10_000
# RFC 9068: the claim that names the client, which for a service is also the subject.
_CLIENT_CLAIM = "client_id"
# JSON in Python has NaN, infinity and endless integers. Issuers write large numbers for "never".
_END_OF_TIME_S = 1e15

Key: TypeAlias = tuple[Any, tuple[str, ...]]


class AuthSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[auth]`. Mode `jwt` needs `issuer`, `audience`, and either `jwks_file` or `secret`.

    A non-empty `scope` must be among the scopes of every token, beside those of `TokenScope`.
    `leeway_s` tolerates clock skew in `exp` and `nbf`.
    `user_claim`: the claim that makes a token a payer's; empty: all are services'. `order_claim`,
    `merchant_claim`: bind each token that has them, a service's too.
    `insecure` permits mode `none` beyond loopback.
    """

    mode: Literal["none", "jwt"] = "none"
    issuer: str = ""
    audience: str = ""
    jwks_file: str = ""
    secret: str = ""
    scope: str = ""
    leeway_s: int = 0
    user_claim: str = ""
    order_claim: str = ""
    merchant_claim: str = ""
    insecure: bool = False


class KeysRefused(ValueError):
    """A key or key set that must not be used. The text never contains key material."""


def auth_faults(settings: AuthSettings, host: str) -> tuple[str, ...]:
    """The errors in the settings of a server that listens on `host`, each with its remedy."""
    if settings.mode == "none":
        return tuple(_faults_without_authentication(settings, host))
    faults = [f'[auth] mode = "jwt" needs {name}' for name in ("issuer", "audience") if not getattr(settings, name)]
    if bool(settings.jwks_file) == bool(settings.secret):
        faults.append('[auth] mode = "jwt" needs one of jwks_file and secret, and not both')
    if settings.secret and len(settings.secret.encode()) < MIN_SECRET_BYTES:
        faults.append(
            f"[auth] secret must have at least {MIN_SECRET_BYTES} bytes: make one with `openssl rand -base64 32`"
        )
    if settings.leeway_s < 0:
        faults.append("[auth] leeway_s must not be negative")
    if settings.insecure:
        faults.append('[auth] insecure is for mode = "none"; remove it')
    return tuple(faults)


def _faults_without_authentication(settings: AuthSettings, host: str) -> Iterator[str]:
    if not settings.insecure and not is_loopback(host):
        yield (
            f'[auth] mode = "none" admits every caller on {host or "every address"}: set mode = "jwt", or listen on'
            " 127.0.0.1; if a mesh or sidecar authenticates all callers, set insecure = true"
        )
    for key in ("user_claim", "order_claim", "merchant_claim"):
        if getattr(settings, key):
            yield f'[auth] {key} needs mode = "jwt": without tokens there are no claims'


class _KeySet(Struct):
    keys: list[dict[str, Any]]


class BearerAuth:
    """Authenticates callers by Authorization header. Caches each caller until its token expires."""

    def __init__(
        self, settings: AuthSettings, jwks: str = "", changed_jwks: Callable[[], str | None] = lambda: None
    ) -> None:
        """`jwks`: the text of `settings.jwks_file`. Raises `KeysRefused`.

        `changed_jwks`: the text when it has changed, else None; a refused one leaves the old keys.
        """
        self._settings = settings
        self._keys = _parse_key_set(jwks) if settings.jwks_file else _shared_secret(settings.secret)
        self._changed_jwks = changed_jwks
        self._check_keys_at = 0.0
        # By Authorization header, in order of insertion. Apart, because payers are many: they would
        # evict the services.
        self._services: dict[bytes, Caller] = {}
        self._payers: dict[bytes, Caller] = {}

    def __repr__(self) -> str:
        return f"<BearerAuth keys={len(self._keys)} cached={len(self._services) + len(self._payers)}>"

    def admit(self, authorization: bytes | None, scope: TokenScope, now: float) -> Caller:
        """The caller, which has `scope`. `now` in seconds since 1970.

        Raises `RequestRefused`: UNAUTHENTICATED or FORBIDDEN, with WWW-Authenticate.
        """
        if authorization is None:
            raise _unauthenticated("A bearer token is required.", "")
        if now >= self._check_keys_at:
            self._check_keys_at = now + KEYS_CHECK_S
            self._take_changed_keys()
        caller = self._services.get(authorization) or self._payers.get(authorization)
        if caller is None:
            caller = self._verify(authorization, now)
            _cache(self._services if caller.user_id is None else self._payers, authorization, caller)
        elif caller.expires_at <= now:
            del (self._services if caller.user_id is None else self._payers)[authorization]
            raise _unauthenticated("The bearer token has expired.", "invalid_token")
        caller.require_scope(scope)
        return caller

    def is_verified(self, authorization: bytes, now: float) -> bool:
        """Whether this is the token of a service that may consult, verified before and not expired.

        Does not verify it. `now` in seconds since 1970.
        """
        caller = self._services.get(authorization)
        return caller is not None and caller.expires_at > now and TokenScope.CONSULT in caller.scopes

    def _take_changed_keys(self) -> None:
        """A token of a key that is gone is refused from now on, although it was verified before."""
        jwks = self._changed_jwks()
        if jwks is None:
            return
        try:
            self._keys = _parse_key_set(jwks)
        except KeysRefused as refused:
            _log.error("the changed key set is refused: the old keys stay", reason=str(refused))
            return
        self._services.clear()
        self._payers.clear()
        _log.info("the key set has changed", keys=len(self._keys))

    def _verify(self, authorization: bytes, now: float) -> Caller:
        scheme, _, credentials = authorization.partition(b" ")
        token = credentials.strip()
        if scheme.lower() != b"bearer" or not token or len(credentials) > _MAX_TOKEN_BYTES:
            raise _unauthenticated("A bearer token is required.", "")
        claims = self._claims(token)
        leeway_s = self._settings.leeway_s
        not_before = claims.get("nbf", 0)
        expires_at = claims["exp"]
        if not _is_instant(expires_at) or not _is_instant(not_before) or not_before > now + leeway_s:
            raise _unauthenticated("The bearer token is not valid now.", "invalid_token")
        if expires_at + leeway_s <= now:
            raise _unauthenticated("The bearer token has expired.", "invalid_token")
        return self._caller(claims, float(expires_at + leeway_s))

    def _caller(self, claims: dict[str, Any], expires_at: float) -> Caller:
        settings, granted = self._settings, _read_scopes(claims)
        if settings.scope and settings.scope not in granted:
            raise lacks_scope(settings.scope)
        scopes = frozenset(scope for scope in TokenScope if scope in granted)
        user_id = _read_text(claims, settings.user_claim)
        if user_id is not None and claims.get(_CLIENT_CLAIM) == user_id:
            user_id = None
        if user_id is not None:
            scopes = (scopes or PAYER_SCOPES) & PAYER_SCOPES
        order_id, merchant_id = (_read_text(claims, name) for name in (settings.order_claim, settings.merchant_claim))
        return Caller(scopes, expires_at, user_id, order_id, merchant_id)

    def _claims(self, token: bytes) -> dict[str, Any]:
        try:
            key, algorithms = self._key(jwt.get_unverified_header(token).get("kid"))
            # `_verify` checks the times, with the caller's clock.
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                options={
                    "require": ["exp", "iss", "aud"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, UnicodeDecodeError, RecursionError):
            raise _unauthenticated("The bearer token is not accepted.", "invalid_token") from None
        return claims

    def _key(self, kid: object) -> Key:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None and None in self._keys:
            return self._keys[None]
        if key is None:
            raise jwt.InvalidKeyError("no such key")
        return key


def _shared_secret(secret: str) -> dict[str | None, Key]:
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise KeysRefused(f"the shared secret must have at least {MIN_SECRET_BYTES} bytes")
    return {None: (secret, ("HS256", "HS384", "HS512"))}


def _parse_key_set(jwks: str) -> dict[str | None, Key]:
    try:
        members = msgspec.json.decode(jwks, type=_KeySet).keys
    except (msgspec.DecodeError, RecursionError):
        raise KeysRefused('the key set is not a JSON object with an array "keys" of objects') from None
    signing_keys = list(_signing_keys(members))
    keys = dict(signing_keys)
    if not keys:
        raise KeysRefused("the key set has no key to verify signatures with")
    if len(keys) < len(signing_keys) or (None in keys and len(keys) > 1):
        raise KeysRefused("a key set of several keys needs a kid on each, and no duplicate kid")
    return keys


def _signing_keys(members: Iterable[dict[str, Any]]) -> Iterable[tuple[str | None, Key]]:
    for number, member in enumerate(members, start=1):
        if member.get("use", "sig") != "sig":
            continue
        label = f"key {number} of the set"
        for name in ("kid", "kty", "crv", "alg"):
            if not isinstance(member.get(name), str | None):
                raise KeysRefused(f"{label} has a {name} that is not text")
        if member.get("kty") == "oct" or "d" in member:
            raise KeysRefused(
                f"{label} is secret: a key set holds public keys only; a shared secret goes into [auth] secret"
            )
        family = (
            _BY_CURVE.get(member.get("crv", "")) if member.get("kty") == "EC" else _BY_TYPE.get(member.get("kty", ""))
        )
        algorithms = tuple(name for name in family or () if member.get("alg", name) == name)
        if not algorithms:
            raise KeysRefused(f"{label} has a type, curve or alg that is not accepted")
        try:
            key = jwt.PyJWK(member, algorithms[0]).key
        except jwt.PyJWTError:
            raise KeysRefused(f"{label} cannot be read") from None
        if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
            raise KeysRefused(f"{label} has fewer than {MIN_RSA_BITS} bits")
        yield member.get("kid"), (key, algorithms)


def _cache(callers: dict[bytes, Caller], authorization: bytes, caller: Caller) -> None:
    if len(callers) >= _MAX_CACHED:
        # Evict the oldest entry.
        del callers[next(iter(callers))]
    callers[authorization] = caller


def _read_scopes(claims: dict[str, Any]) -> frozenset[str]:
    """The claim `scope`: text separated by spaces (RFC 8693, section 4.2), or a list of texts."""
    scopes = claims.get("scope", "")
    if isinstance(scopes, str):
        return frozenset(scopes.split())
    if isinstance(scopes, list) and all(isinstance(scope, str) for scope in scopes):
        return frozenset(scopes)
    raise _unauthenticated("The claim scope of the bearer token is neither text nor a list of texts.", "invalid_token")


def _read_text(claims: dict[str, Any], name: str) -> str | None:
    """None if no claim is configured or the token has none."""
    if not name or name not in claims:
        return None
    value = claims[name]
    if isinstance(value, str) and value:
        return value
    raise _unauthenticated("A claim of the bearer token that must be text is empty or not text.", "invalid_token")


def _is_instant(claim: object) -> bool:
    return isinstance(claim, int | float) and not isinstance(claim, bool) and abs(claim) < _END_OF_TIME_S


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _unauthenticated(detail: str, error: str) -> RequestRefused:
    challenge = f'Bearer realm="cashier", error="{error}"' if error else 'Bearer realm="cashier"'
    return RequestRefused(ProblemCode.UNAUTHENTICATED, detail, headers=((b"www-authenticate", challenge.encode()),))
