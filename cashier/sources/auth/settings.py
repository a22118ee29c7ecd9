"""The tables below `[sources.NAME.auth]`. None of them holds a secret: they name where one is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from cashier.wire.address_parser import is_visible_ascii, parse_address

# The name of a variable. A secret by mistake in its place is hardly one.
Variable = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(?![\s\S])")]
# What may stand in a quoted parameter of a header as it is.
Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:@/+~-]{1,256}(?![\s\S])")]


class BearerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A token, from one of the two."""

    token_file: str | None = None
    token_env: Variable | None = None


class ClientCredentialsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """OAuth 2.0 client credentials, RFC 6749, section 4.4.

    `token_url`: of the token endpoint. `client_auth`: how the client identifies itself: `basic` by
    the header, `post` in the form.
    """

    token_url: str
    client_id: str
    client_secret_file: str | None = None
    client_secret_env: Variable | None = None
    scope: str = ""
    audience: str = ""
    client_auth: Literal["basic", "post"] = "basic"
    ca_file: str | None = None


class HmacSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """HTTP message signatures with hmac-sha256, RFC 9421. `encoding`: of the secret."""

    key_id: Identifier
    secret_file: str | None = None
    secret_env: Variable | None = None
    encoding: Literal["text", "base64", "hex"] = "text"


class Rsa2Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """RSA2 of Alipay's gateway. `alipay_public_key_file`: verifies answers; or a certificate."""

    app_id: Identifier
    alipay_public_key_file: str
    private_key_file: str | None = None
    private_key_env: Variable | None = None


class WechatPaySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """WeChat Pay API v3. `serial_no`: of the merchant's certificate.

    `platform_keys`: files of the keys or certificates that verify answers, by the serial number or
    `PUB_KEY_ID_…` that answers name.
    """

    mchid: Identifier
    serial_no: Identifier
    platform_keys: dict[Identifier, str]
    private_key_file: str | None = None
    private_key_env: Variable | None = None


class UpstreamAuthSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """One of the tables. Client certificates are settings of the transport."""

    bearer: BearerSettings | None = None
    oauth2: ClientCredentialsSettings | None = None
    hmac: HmacSettings | None = None
    rsa2: Rsa2Settings | None = None
    wechat_pay: WechatPaySettings | None = None


# The beginning of the two keys of each method's secret.
SECRET_OF = {
    "bearer": "token",
    "oauth2": "client_secret",
    "hmac": "secret",
    "rsa2": "private_key",
    "wechat_pay": "private_key",
}


def upstream_auth_faults(auth: UpstreamAuthSettings, *, adapted: bool, local: bool, batched: bool) -> Iterator[str]:
    """Contradictions in the `auth` of a source, each with its key. No text has a secret."""
    methods = [name for name in SECRET_OF if getattr(auth, name) is not None]
    if local:
        yield "auth is for calls over a network, but a function of this process is called without"
    if len(methods) != 1:
        found = f"not {' and '.join(methods)}" if methods else "but none is there"
        yield f"auth takes one of {', '.join(SECRET_OF)}, {found}"
    for method in methods:
        settings, secret = getattr(auth, method), SECRET_OF[method]
        if (getattr(settings, f"{secret}_file") is None) == (getattr(settings, f"{secret}_env") is None):
            yield f"auth.{method} takes one of {secret}_file and {secret}_env"
    if auth.oauth2 is not None:
        yield from _token_url_faults(auth.oauth2.token_url)
    if auth.wechat_pay is not None and not auth.wechat_pay.platform_keys:
        yield "auth.wechat_pay.platform_keys names no key: without one no answer can be verified"
    if auth.rsa2 is not None and (not adapted or batched):
        yield "auth.rsa2 needs an adapter, and no batch: Alipay's gateway takes forms, and has a shape of its own"


def _token_url_faults(url: str) -> Iterator[str]:
    if not is_visible_ascii(url) or "#" in url:
        # Its query may hold a key.
        yield "auth.oauth2.token_url is no address: it holds other characters than an address may"
        return
    try:
        parse_address(url.partition("?")[0])
    except ValueError as fault:
        yield f"auth.oauth2.token_url: {fault}"
