"""`cashier jwks` and `cashier token`: keys and bearer tokens for `[auth] mode = "jwt"`."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Annotated, Any

import jwt
import typer

from cashier.asgi import bearer_auth
from cashier.cli.invocation import print_json, refuse, stop
from cashier.settings.loader import load
from cashier.settings.schema import ConfigurationError
from cashier.web.auth import AuthSettings
from cashier.web.caller import TokenScope
from cashier.web.problem import RequestRefused
from cashier.web.token_issue import KeyUnusable, key_set, signed_token

_DEFAULT_CONFIG = Path("config/cashier.toml")


def jwks(
    keys: Annotated[list[Path], typer.Argument(help="PEM files with private or public keys, the newest first.")],
) -> None:
    """Print the public keys of PEM files as a JSON Web Key Set, for `[auth] jwks_file`.

    \b
    openssl genpkey -algorithm ed25519 -out key.pem
    cashier jwks key.pem > jwks.json
    """
    pems = [_read(path) for path in keys]
    for path, pem in zip(keys, pems, strict=True):
        try:
            key_set([pem])
        except KeyUnusable as fault:
            stop(f"{path}: {fault}")
    print_json(key_set(pems))


def token(
    config: Annotated[
        Path, typer.Option("--config", "-c", help="Configuration whose [auth] accepts the token.")
    ] = Path("config/cashier.toml"),
    key: Annotated[
        Path | None, typer.Option(help="PEM file of the private key.", show_default="[auth] secret signs")
    ] = None,
    scope: Annotated[list[TokenScope] | None, typer.Option(help="What the token permits; repeat it for more.")] = None,
    user_id: Annotated[str | None, typer.Option(help="Make it a payer's, who acts for this user only.")] = None,
    order_id: Annotated[str | None, typer.Option(help="Bind it to this order.")] = None,
    merchant_id: Annotated[str | None, typer.Option(help="Bind it to this merchant.")] = None,
    expires_s: Annotated[int, typer.Option(min=1, max=31_536_000, help="How long it is valid, in s.")] = 3600,
) -> None:
    """Print a bearer token that a service with this configuration accepts, to try it with."""
    try:
        loaded = load(config)
        authentication = bearer_auth(loaded)
    except ConfigurationError as error:
        refuse(error)
    auth = loaded.settings.auth
    if authentication is None:
        stop(f'{config}: [auth] mode = "none" needs no token; set mode = "jwt"')
    bound = {"user_claim": user_id, "order_claim": order_id, "merchant_claim": merchant_id}
    claims = _claims(auth, scope or [], bound, expires_s, str(config))
    try:
        made = signed_token(claims, _read(key)) if key is not None else _by_secret(auth, claims)
    except KeyUnusable as fault:
        stop(f"{key}: {fault}")
    asked = next(iter(scope or []), TokenScope.CONSULT)
    try:
        authentication.admit(f"Bearer {made}".encode(), asked, time.time())
    except RequestRefused as refused:
        stop(f"{config} does not accept this token: {refused.problem.detail}", *_remedies(auth, key))
    typer.echo(made)


def _claims(
    auth: AuthSettings, scopes: list[TokenScope], bound: dict[str, str | None], expires_s: int, config: str
) -> dict[str, Any]:
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": auth.issuer,
        "aud": auth.audience,
        "iat": now,
        "exp": now + expires_s,
        "jti": secrets.token_hex(8),
    }
    for setting, value in bound.items():
        if value is None:
            continue
        if not getattr(auth, setting):
            stop(f"{config}: [auth] {setting} names no claim, so a token cannot be bound by it")
        claims[getattr(auth, setting)] = value
    if not scopes and bound["user_claim"] is None:
        stop("--scope says what a service's token permits; --user-id makes a payer's")
    named = [scope.value for scope in scopes] + ([auth.scope] if auth.scope else [])
    return claims | ({"scope": " ".join(named)} if named else {})


def _by_secret(auth: AuthSettings, claims: dict[str, Any]) -> str:
    if not auth.secret:
        stop("[auth] jwks_file verifies tokens, so --key has to name the private key that signs this one")
    return jwt.encode(claims, auth.secret, algorithm="HS256")


def _remedies(auth: AuthSettings, key: Path | None) -> list[str]:
    if key is not None and auth.jwks_file:
        return [f"`cashier jwks {key}` prints the key set that {auth.jwks_file} has to contain"]
    if key is not None:
        return ["[auth] secret verifies tokens: leave --key out"]
    return []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        stop(f"{path}: {error.strerror}")
