"""Upstream addresses as a configuration names them, parsed once at start. No I/O."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

ADDRESS_FORMS = "http://host[:port][/prefix], https://host[:port][/prefix] or unix:/path/to.sock"
DEFAULT_PORTS = {"http": 80, "https": 443}
# sun_path in Linux's sockaddr_un, less the terminating NUL.
MAX_SOCKET_PATH_BYTES = 107
_SCHEME = re.compile(r"[a-z]+:/*")
# A scheme, a host, a port of digits and a path.
_WITHOUT_SECRETS = re.compile(
    r"(?:[a-z+]*:)?/*+(?:[^/:\[\]]*|\[[^\]]*\])(?::[0-9]*)?(?:/(?!/).*)?", re.IGNORECASE | re.DOTALL
)


class UpstreamAddress(Struct, frozen=True):
    """One address of a source.

    `name` is for operators. `prefix` precedes every target and never ends in a slash. `socket_path`
    is set for `unix:` only; `port` is 0 there.
    """

    name: str
    host: str
    port: int
    prefix: str
    tls: bool = False
    socket_path: str | None = None

    @property
    def authority(self) -> str:
        """The value of `Host`: with the port only if it is not the scheme's default.

        Without the zone of an IPv6 address: it means something on this machine only (RFC 6874).
        """
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        default = self.socket_path is not None or self.port == DEFAULT_PORTS["https" if self.tls else "http"]
        return host if default else f"{host}:{self.port}"

    @property
    def server_name(self) -> str:
        """The name or address that the server's certificate must have (RFC 6066, RFC 6125)."""
        return self.host.partition("%")[0].removesuffix(".")

    @property
    def origin(self) -> str:
        """Scheme and authority, the beginning of a URL."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"


def parse_addresses(urls: Sequence[str]) -> list[UpstreamAddress]:
    """Parse at least one address. ValueError names the address that has no supported form."""
    if not urls:
        raise ValueError(f"no address given; supported are {ADDRESS_FORMS}")
    return [parse_address(url) for url in urls]


def address_faults(urls: Sequence[str]) -> Iterator[str]:
    """One sentence for each address that has no supported form."""
    for url in urls:
        try:
            parse_address(url)
        except ValueError as fault:
            yield str(fault)


def parse_address(url: str) -> UpstreamAddress:
    """ValueError names the address and the supported forms."""
    try:
        return _unix(url) if url.startswith("unix:") else _tcp(url)
    except ValueError as error:
        raise ValueError(f"address {_shown(url)!r}: {error}; supported are {ADDRESS_FORMS}") from None


def _shown(url: str) -> str:
    """What may reach a log: no user, password or query, and nothing that may be one."""
    before, _, rest = url.rpartition("@")
    plain = re.split("[?#]", rest)[0]
    if _WITHOUT_SECRETS.fullmatch(plain) and not set(before) & set("?#"):
        return plain
    scheme = _SCHEME.match(url)
    return f"{scheme[0] if scheme else ''}…"


def _unix(url: str) -> UpstreamAddress:
    path = url.removeprefix("unix:")
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError("a socket path must be absolute")
    if "\0" in path or len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"a socket path has at most {MAX_SOCKET_PATH_BYTES} bytes")
    return UpstreamAddress(name=url, host="localhost", port=0, prefix="", socket_path=path)


def _tcp(url: str) -> UpstreamAddress:
    if not is_visible_ascii(url):
        raise ValueError("an address is printable ASCII without spaces")
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("the scheme is unknown")
    if parts.username is not None or parts.password is not None:
        raise ValueError("user and password are not supported")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("an address has no query and no fragment")
    host, port = _host(parts), _port(parts)
    return UpstreamAddress(name=url, host=host, port=port, prefix=parts.path.rstrip("/"), tls=parts.scheme == "https")


def _host(parts: SplitResult) -> str:
    host = parts.hostname
    if not host:
        raise ValueError("the host is missing")
    host.encode("idna")  # a label that is too long or empty would otherwise fail during a connect
    # RFC 6874 escapes the % before the zone of an IPv6 address.
    return host.replace("%25", "%", 1) if ":" in host else host


def _port(parts: SplitResult) -> int:
    try:
        port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    except ValueError:  # its text has the port, which may be a password before a forgotten @
        port = 0
    if not port:
        raise ValueError("a port is a number from 1 to 65535")
    return port


def is_visible_ascii(text: str) -> bool:
    """Printable ASCII without spaces: such a text cannot end a header or request line."""
    return text.isascii() and text.isprintable() and " " not in text
