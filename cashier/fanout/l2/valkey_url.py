"""The address of a Valkey or Redis server, parsed from its URL.

Errors never repeat the URL: it may hold a password.
"""

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
    """Raises ValueError with the reason."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _invalid("its host or port cannot be parsed") from None
    if parts.scheme not in ("redis", "rediss"):
        raise _invalid("it starts with neither redis:// nor rediss://")
    if not parts.hostname:
        raise _invalid("it has no host")
    if port == 0:
        raise _invalid("its port is 0")
    if parts.query or parts.fragment:
        raise _invalid("a part after ? or # is not supported")
    database = parts.path.removeprefix("/")
    if re.fullmatch(r"[0-9]{0,4}", database) is None:
        raise _invalid("its database is not a number")
    user, password = (unquote(part) if part else None for part in (parts.username, parts.password))
    if user and not password:
        raise _invalid("it has a user without a password; a password alone is written :password@")
    return ValkeyAddress(parts.hostname, port or 6379, int(database or 0), user, password, parts.scheme == "rediss")


def _invalid(reason: str) -> ValueError:
    return ValueError(f"the URL of the shared cache is invalid: {reason}. It must be {_SHAPE}")
