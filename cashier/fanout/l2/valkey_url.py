"""Where a Valkey or Redis server is, from its url. What is wrong with one is said without repeating it: it may hold a password."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from msgspec import Struct

_SHAPE = "redis://[[user]:password@]host[:port][/database], or rediss:// for TLS"


class ValkeyAddress(Struct, frozen=True):
    host: str
    port: int
    database: int
    user: str | None
    password: str | None
    tls: bool

    def __repr__(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.database}"


def parse_valkey_url(url: str) -> ValkeyAddress:
    """Raises ValueError, which says what is wrong."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _wrong("its host or port cannot be read") from None
    if parts.scheme not in ("redis", "rediss"):
        raise _wrong("it begins with neither redis:// nor rediss://")
    if not parts.hostname:
        raise _wrong("it has no host")
    if port == 0:
        raise _wrong("its port is 0")
    if parts.query or parts.fragment:
        raise _wrong("it has a part behind ? or #, which nothing here reads")
    database = parts.path.removeprefix("/")
    if re.fullmatch(r"[0-9]{0,4}", database) is None:
        raise _wrong("its database is no number")
    user, password = (unquote(part) if part else None for part in (parts.username, parts.password))
    if user and not password:
        raise _wrong("it has a user without a password; a password alone is written :password@")
    return ValkeyAddress(parts.hostname, port or 6379, int(database or 0), user, password, parts.scheme == "rediss")


def _wrong(what: str) -> ValueError:
    return ValueError(f"the url of a shared cache is wrong: {what}. It must be {_SHAPE}")
