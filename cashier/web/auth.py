"""Who may ask: bearer tokens, verified by PyJWT and remembered. Reads no files and no clock; the keys' text and the time are handed in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from msgspec import Struct

from cashier.web.problem import ProblemCode, RequestRefused

# RFC 7518, section 3.2: a key for HS256 has at least the size of its hash. Section 3.3: an RSA key has at least 2048 bits.
MIN_SECRET_BYTES = 32
MIN_RSA_BITS = 2048
# Where a key does not name its one algorithm, these; never one of another family, so a public key cannot be taken for a shared secret.
_BY_TYPE = {"RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "OKP": ("EdDSA",)}
_BY_CURVE = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",)}
# A token longer than this is refused unread; so much of a client's header is also the most that is kept of one.
_MAX_TOKEN_BYTES = 8192
_MAX_REMEMBERED = 10_000

Key: TypeAlias = tuple[Any, tuple[str, ...]]


class AuthSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[auth]`. With mode `jwt`: who issues (`iss`), for whom (`aud`), and either `jwks_file` or `secret`.

    `scope`, where it is not empty, must be among the token's space-separated `scope`. `leeway_s` forgives clocks that differ.
    """

    mode: Literal["none", "jwt"] = "none"
    issuer: str = ""
    audience: str = ""
    jwks_file: str = ""
    secret: str = ""
    scope: str = ""
    leeway_s: int = 0


class KeysRefused(ValueError):
    """Keys that nothing should be verified with. The text says which and why, never what."""


def auth_faults(settings: AuthSettings, host: str) -> tuple[str, ...]:
    """What is wrong with the settings of a server that listens on `host`; each with its remedy. Empty: nothing."""
    if settings.mode == "none":
        if _is_loopback(host):
            return ()
        return (f'[auth] mode = "none" lets everybody on {host} ask: set mode = "jwt", or listen on 127.0.0.1',)
    found = [f'[auth] mode = "jwt" needs {name}' for name in ("issuer", "audience") if not getattr(settings, name)]
    if bool(settings.jwks_file) == bool(settings.secret):
        found.append('[auth] mode = "jwt" needs one of jwks_file and secret, and not both')
    if settings.secret and len(settings.secret.encode()) < MIN_SECRET_BYTES:
        found.append(
            f"[auth] secret must have at least {MIN_SECRET_BYTES} bytes: make one with `openssl rand -base64 32`"
        )
    if settings.leeway_s < 0:
        found.append("[auth] leeway_s must not be negative")
    return tuple(found)


class _KeySet(Struct):
    keys: list[dict[str, Any]]


class BearerAuth:
    """Admits requests by their Authorization header. A verified token costs a dict look-up until it expires."""

    def __init__(self, settings: AuthSettings, jwks: str = "") -> None:
        """`jwks` is the text of `settings.jwks_file`. Raises `KeysRefused`."""
        self._settings = settings
        self._keys = _keys_of_set(jwks) if settings.jwks_file else _key_of_secret(settings.secret)
        self._admitted: dict[bytes, float] = {}

    def __repr__(self) -> str:
        return f"<Doorkeeper keys={len(self._keys)} remembered={len(self._admitted)}>"

    def admit(self, authorization: bytes | None, now: float) -> None:
        """`now` in seconds since 1970. Raises `RequestRefused`: UNAUTHENTICATED or FORBIDDEN, with WWW-Authenticate."""
        if authorization is None:
            raise _unauthenticated("A bearer token is required.", "")
        until = self._admitted.get(authorization)
        if until is None:
            self._remember(authorization, self._verify(authorization, now))
        elif until <= now:
            del self._admitted[authorization]
            raise _unauthenticated("The bearer token has expired.", "invalid_token")

    def knows(self, authorization: bytes, now: float) -> bool:
        """Whether the header was verified before and still holds. `now` in seconds since 1970. Costs a look-up, and admits nobody."""
        return self._admitted.get(authorization, 0.0) > now

    def _remember(self, authorization: bytes, until: float) -> None:
        if len(self._admitted) >= _MAX_REMEMBERED:
            # Dicts keep the order of insertion: the one that was verified first goes first.
            del self._admitted[next(iter(self._admitted))]
        self._admitted[authorization] = until

    def _verify(self, authorization: bytes, now: float) -> float:
        """Until when the token is good, leeway included."""
        scheme, _, credentials = authorization.partition(b" ")
        token = credentials.strip()
        if scheme.lower() != b"bearer" or not token or len(token) > _MAX_TOKEN_BYTES:
            raise _unauthenticated("A bearer token is required.", "")
        claims = self._claims(token)
        leeway_s = self._settings.leeway_s
        not_before = claims.get("nbf", 0)
        until = claims["exp"]
        if not _is_instant(until) or not _is_instant(not_before) or not_before > now + leeway_s:
            raise _unauthenticated("The bearer token is not valid now.", "invalid_token")
        if until + leeway_s <= now:
            raise _unauthenticated("The bearer token has expired.", "invalid_token")
        if self._settings.scope and self._settings.scope not in str(claims.get("scope", "")).split():
            raise _forbidden(self._settings.scope)
        return float(until + leeway_s)

    def _claims(self, token: bytes) -> dict[str, Any]:
        try:
            key, algorithms = self._key(jwt.get_unverified_header(token).get("kid"))
            # The clock is ours, not the library's: what depends on time is compared by the caller of this.
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
            raise _unauthenticated("The bearer token is not one that is accepted here.", "invalid_token") from None
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


def _key_of_secret(secret: str) -> dict[str | None, Key]:
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise KeysRefused(f"the shared secret must have at least {MIN_SECRET_BYTES} bytes")
    return {None: (secret, ("HS256", "HS384", "HS512"))}


def _keys_of_set(jwks: str) -> dict[str | None, Key]:
    try:
        members = msgspec.json.decode(jwks, type=_KeySet).keys
    except msgspec.DecodeError:
        raise KeysRefused('the key set is not a JSON object with an array "keys" of objects') from None
    found = list(_signing_keys(members))
    keys = dict(found)
    if not keys:
        raise KeysRefused("the key set has no key to verify signatures with")
    if len(keys) < len(found) or (None in keys and len(keys) > 1):
        raise KeysRefused("a key set of several keys needs a kid on each, and no kid twice")
    return keys


def _signing_keys(members: Iterable[dict[str, Any]]) -> Iterable[tuple[str | None, Key]]:
    for number, member in enumerate(members, start=1):
        if member.get("use", "sig") != "sig":
            continue
        called = f"key {number} of the set"
        if member.get("kty") == "oct" or "d" in member:
            raise KeysRefused(
                f"{called} is secret: a key set holds public keys only; a shared secret goes into [auth] secret"
            )
        family = (
            _BY_CURVE.get(member.get("crv", "")) if member.get("kty") == "EC" else _BY_TYPE.get(member.get("kty", ""))
        )
        algorithms = tuple(name for name in family or () if member.get("alg", name) == name)
        if not algorithms:
            raise KeysRefused(f"{called} has a type, curve or alg that is not accepted")
        try:
            key = jwt.PyJWK(member, algorithms[0]).key
        except jwt.PyJWTError:
            raise KeysRefused(f"{called} cannot be read") from None
        if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
            raise KeysRefused(f"{called} has fewer than {MIN_RSA_BITS} bits")
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
