"""`[pages]`: the cashier pages that payers see."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from cashier.domain.money import Currency
from cashier.domain.order import Id
from cashier.web.auth import AuthSettings, is_loopback
from cashier.web.server import ServerSettings
from cashier.wire.address_parser import address_faults

PUBLIC_URL_PATTERN = r"^(https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*)?(?![\s\S])"


WEB_ADDRESS_PATTERN = r"^(https?://[!-~]{1,2040})?(?![\s\S])"
WebAddress = Annotated[str, Meta(pattern=WEB_ADDRESS_PATTERN)]


LOGO_TYPES = (".svg", ".png")
MAX_LOGO_BYTES = 64 * 1024


class BrandSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[pages.brand]`. `color`: of buttons and links, moved where it could not be read.

    `logo`: the path of an SVG or PNG file; empty: the name is shown.
    """

    name: Annotated[str, Meta(min_length=1, max_length=40)] = "Cashier"
    color: Annotated[str, Meta(pattern=r"^#[0-9a-fA-F]{6}(?![\s\S])")] = "#1456f0"
    logo: str = ""


class LinksSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[pages.links]`: where a payer does what a remedy names. Empty: the remedy is text."""

    top_up: WebAddress = ""
    bind_card: WebAddress = ""
    update_card: WebAddress = ""


class VaultSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[pages.vault]`. `url`: of the form in which payers enter a card; empty: there is none."""

    url: WebAddress = ""


class CodeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[pages.codes.NAME]`: what the printed code of a merchant asks for.

    `name`: the merchant's, for the payer.
    """

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}(?![\s\S])")]


class PagesSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[pages]`. `public_url`: the address by which browsers reach the pages, without a slash at
    its end; empty, on loopback only: that of the request.

    `trusted_proxies`: networks of the gateways whose `X-Forwarded-For` names the payer's address.
    `session_s`: how long a page may be used once its link has run out. `first_answer_ms`: what a
    page waits for the sources before it is sent. `order_url`: of the service that creates orders
    for tills and printed codes; empty: there are no tills and no codes. `codes`: by merchant id.
    `developer`: a checkout says why methods are withheld, on loopback only.
    """

    enabled: bool = False
    public_url: Annotated[str, Meta(pattern=PUBLIC_URL_PATTERN)] = ""
    trusted_proxies: tuple[str, ...] = ()
    session_s: Annotated[int, Meta(ge=300, le=172_800)] = 7200
    first_answer_ms: Annotated[int, Meta(ge=5, le=60_000)] = 100
    order_url: WebAddress = ""
    developer: bool = False
    brand: BrandSettings = BrandSettings()
    links: LinksSettings = LinksSettings()
    vault: VaultSettings = VaultSettings()
    codes: dict[str, CodeSettings] = {}

    @property
    def proxies(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        return tuple(ipaddress.ip_network(each) for each in self.trusted_proxies)


def pages_faults(settings: PagesSettings, auth: AuthSettings, server: ServerSettings) -> Iterator[str]:
    """The contradictions with the other sections, each with its remedy."""
    yield from _proxy_faults(settings.trusted_proxies)
    yield from _code_faults(settings)
    yield from _order_url_faults(settings.order_url)
    yield from _logo_faults(settings.brand.logo)
    if not settings.enabled:
        return
    url = urlsplit(settings.public_url)
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        yield f'[pages] public_url = "{settings.public_url}" is not encrypted: payers need https'
    yield from _reach_faults(settings, auth, server)


def _reach_faults(settings: PagesSettings, auth: AuthSettings, server: ServerSettings) -> Iterator[str]:
    """What is missing where others than this machine reach the pages: directly, or by a gateway
    beside the service."""
    if not is_loopback(server.host):
        where = f"on {server.host or 'every address'}"
    elif settings.public_url and not is_loopback(urlsplit(settings.public_url).hostname or ""):
        where = f"at {settings.public_url}"
    else:
        return
    if settings.developer:
        yield f"[pages] developer: {where} payers would see codes and sources that are for engineers; leave it out"
    if auth.mode == "none":
        # Not even with `insecure`: a mesh authenticates services, and payers' browsers are none.
        yield (
            f'[pages] enabled: pages {where} need [auth] mode = "jwt", because only an authenticated shop'
            " may open a payer's session; or listen on 127.0.0.1, without a public_url elsewhere"
        )
    if not settings.public_url:
        yield f"[pages] public_url is missing: {where} a request does not prove by which address it came"
    if not settings.trusted_proxies:
        yield (
            f"[pages] trusted_proxies is missing: {where} name the networks of your gateways, so that risk"
            ' sees the address of the payer; without a gateway write ["127.0.0.1/32"]'
        )


def _order_url_faults(url: str) -> Iterator[str]:
    """Of its beginning: path and query are the service's own."""
    if url:
        beginning = re.match(r"[a-z]+://[^/?#]*", url)
        yield from (f"[pages] order_url: {fault}" for fault in address_faults([beginning[0] if beginning else url]))


def _logo_faults(logo: str) -> Iterator[str]:
    if not logo:
        return
    path = Path(logo)
    if path.suffix.lower() not in LOGO_TYPES:
        yield f'[pages.brand] logo: "{logo}" is neither .svg nor .png'
    try:
        size = path.stat().st_size
    except OSError as fault:
        yield f'[pages.brand] logo: "{logo}" cannot be read ({fault.strerror})'
    except ValueError:
        yield f"[pages.brand] logo: {logo!r} cannot be read (no file can have this name)"
    else:
        if size > MAX_LOGO_BYTES:
            yield f'[pages.brand] logo: "{logo}" has {size} bytes and would delay each page; at most {MAX_LOGO_BYTES}'


def _code_faults(settings: PagesSettings) -> Iterator[str]:
    for name, code in settings.codes.items():
        try:
            msgspec.convert(code.currency, Currency)
        except msgspec.ValidationError:
            yield f'[pages.codes.{name}] currency: "{code.currency}" is no currency of ISO 4217'
        try:
            msgspec.convert(name, Id)
        except msgspec.ValidationError:
            yield f'[pages.codes] "{name}" is no merchant_id: that is 1 to 64 of A-Za-z0-9_.:@~-'
    if settings.codes and not settings.order_url:
        yield "[pages] order_url is missing: [pages.codes] need a service that creates their orders"


def _proxy_faults(networks: tuple[str, ...]) -> Iterator[str]:
    for text in networks:
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            yield f'[pages] trusted_proxies: "{text}" is no network such as "10.0.0.0/8"'
            continue
        if network.prefixlen == 0:
            yield f'[pages] trusted_proxies: "{text}" trusts every caller to name any address'
