"""`[operations]`: where operators see metrics, records and the console."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from cashier.web.auth import AuthSettings, is_loopback
from cashier.web.server import ServerSettings


class OperationsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[operations]`. `enabled = false`: no port, and nothing is counted.

    On an address beyond loopback, every request but health needs a token with the scope
    `operations`.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 9464


def operations_faults(settings: OperationsSettings, auth: AuthSettings, server: ServerSettings) -> Iterator[str]:
    """The contradictions with the other sections, each with its remedy."""
    if not settings.enabled:
        return
    if auth.mode == "none" and not is_loopback(settings.host):
        yield (
            f"[operations] host: {settings.host or 'every address'} needs authentication: set [auth] mode ="
            ' "jwt", and send a token with the scope operations; or listen on 127.0.0.1, where a sidecar that'
            " authenticates operators reaches it"
        )
    if settings.port and settings.port == server.port:
        yield f"[operations] port = {settings.port} is also the [server] port; choose another"
