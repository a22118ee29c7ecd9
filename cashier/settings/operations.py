"""`[operations]`: where operators see metrics, records and the console."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from cashier.web.auth import AuthSettings, is_loopback
from cashier.web.server import ServerSettings

# A name or address without scheme, port and path.
HOST_PATTERN = r"^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(?![\s\S])"


class OperationsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[operations]`. `enabled = false`: no port, and nothing is counted.

    On an address beyond loopback, every request but health needs a token with the scope
    `operations`. `hosts`: names by which browsers and scrapers may reach the port, beside loopback
    and its own address. `sandbox`: the url of a sandbox, whose weather the console then changes.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 9464
    hosts: tuple[Annotated[str, Meta(pattern=HOST_PATTERN)], ...] = ()
    sandbox: Annotated[str, Meta(pattern=r"^(https?://[!-\"$-.0->A-~]+/?)?(?![\s\S])")] = ""


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
