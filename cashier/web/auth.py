"""Authentication by bearer token (JWT), verified by PyJWT and cached.

Reads no files and no clock: callers pass the text of the keys and the time.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from msgspec import Struct

from cashier.web.problem import ProblemCode, RequestRefused

# RFC 7518, section 3.2: a key for HS256 has at least the size of its hash. Section 3.3: an RSA key
# has at least 2048 bits.
MIN_SECRET_BYTES = 32
MIN_RSA_BITS = 2048
# The algorithms of a key without `alg`. Never one of another family, so that a public key cannot
# serve as a shared secret.
_BY_TYPE = {"RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "OKP": ("EdDSA",)}
_BY_CURVE = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",)}
# A longer token is refused before parsing. Also bounds the memory of one cache entry.
_MAX_TOKEN_BYTES = 8192
_MAX_CACHED = 10_000

Key: TypeAlias = tuple[Any, tuple[str, ...]]


class AuthSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[auth]`. Mode `jwt` needs `issuer`, `audience`, and either `jwks_file` or `secret`.

    A non-empty `scope` must be among the space-separated values of the token's `scope` claim.
    `leeway_s` tolerates clock skew in `exp` and `nbf`.
    """

    mode: Literal["none", "jwt"] = "none"
    issuer: str = ""
    audience: str = ""
    jwks_file: str = ""
    secret: str = ""
    scope: str = ""
    leeway_s: int = 0


class KeysRefused(ValueError):
    """A key or key set that must not be used. The text never contains key material."""


def auth_faults(settings: AuthSettings, host: str) -> tuple[str, ...]:
    """The errors in the settings of a server that listens on `host`, each with its remedy."""
    if settings.mode == "none":
        if _is_loopback(host):
            return ()
        return (f'[auth] mode = "none" admits every caller on {host}: set mode = "jwt", or listen on 127.0.0.1',)
    faults = [f'[auth] mode = "jwt" needs {name}' for name in ("issuer", "audience") if not getattr(settings, name)]
    if bool(settings.jwks_file) == bool(settings.secret):
        faults.append('[auth] mode = "jwt" needs one of jwks_file and secret, and not both')
    if settings.secret and len(settings.secret.encode()) < MIN_SECRET_BYTES:
        faults.append(
            f"[auth] secret must have at least {MIN_SECRET_BYTES} bytes: make one with `openssl rand -base64 32`"
        )
    if settings.leeway_s < 0:
        faults.append("[auth] leeway_s must not be negative")
    return tuple(faults)


class _KeySet(Struct):
    keys: list[dict[str, Any]]


class BearerAuth:
    """Admits requests by Authorization header. A verified token is cached until it expires."""

    def __init__(self, settings: AuthSettings, jwks: str = "") -> None:
        """`jwks` is the text of `settings.jwks_file`. Raises `KeysRefused`."""
        self._settings = settings
        self._keys = _parse_key_set(jwks) if settings.jwks_file else _shared_secret(settings.secret)
        # Expiry (seconds since 1970, leeway included) by Authorization header, in order of
        # insertion.
        self._expiries: dict[bytes, float] = {}

    def __repr__(self) -> str:
        return f"<BearerAuth keys={len(self._keys)} cached={len(self._expiries)}>"

    def admit(self, authorization: bytes | None, now: float) -> None:
        """Verify the token. `now` in seconds since 1970.

        Raises `RequestRefused`: UNAUTHENTICATED or FORBIDDEN, with WWW-Authenticate.
        """
        if authorization is None:
            raise _unauthenticated("A bearer token is required.", "")
        expires_at = self._expiries.get(authorization)
        if expires_at is None:
            self._cache(authorization, self._verify(authorization, now))
        elif expires_at <= now:
            del self._expiries[authorization]
            raise _unauthenticated("The bearer token has expired.", "invalid_token")

    def is_verified(self, authorization: bytes, now: float) -> bool:
        """Whether the token was verified before and has not expired. Does not verify it.

        `now` in seconds since 1970.
        """
        return self._expiries.get(authorization, 0.0) > now

    def _cache(self, authorization: bytes, expires_at: float) -> None:
        if len(self._expiries) >= _MAX_CACHED:
            # Evict the oldest entry.
            del self._expiries[next(iter(self._expiries))]
        self._expiries[authorization] = expires_at

    def _verify(self, authorization: bytes, now: float) -> float:
        """The time at which the token expires, leeway included."""
        scheme, _, credentials = authorization.partition(b" ")
        token = credentials.strip()
        if scheme.lower() != b"bearer" or not token or len(token) > _MAX_TOKEN_BYTES:
            raise _unauthenticated("A bearer token is required.", "")
        claims = self._claims(token)
        leeway_s = self._settings.leeway_s
        not_before = claims.get("nbf", 0)
        expires_at = claims["exp"]
        if not _is_instant(expires_at) or not _is_instant(not_before) or not_before > now + leeway_s:
            raise _unauthenticated("The bearer token is not valid now.", "invalid_token")
        if expires_at + leeway_s <= now:
            raise _unauthenticated("The bearer token has expired.", "invalid_token")
        if self._settings.scope and self._settings.scope not in str(claims.get("scope", "")).split():
            raise _forbidden(self._settings.scope)
        return float(expires_at + leeway_s)

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
    except msgspec.DecodeError:
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


def _is_instant(claim: object) -> bool:
    return isinstance(claim, int | float) and not isinstance(claim, bool)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _unauthenticated(detail: str, error: str) -> RequestRefused:
    challenge = f'Bearer realm="cashier", error="{error}"' if error else 'Bearer realm="cashier"'
    return RequestRefused(ProblemCode.UNAUTHENTICATED, detail, headers=((b"www-authenticate", challenge.encode()),))


def _forbidden(scope: str) -> RequestRefused:
    challenge = f'Bearer realm="cashier", error="insufficient_scope", scope="{scope}"'
    return RequestRefused(
        ProblemCode.FORBIDDEN,
        f"The bearer token lacks the scope {scope}.",
        headers=((b"www-authenticate", challenge.encode()),),
    )
