"""The Host allow-list of the operations port, against DNS rebinding.

A page of another site can point its own name at this port, and would then read it as its own
origin. Its requests have that name in `Host`, so every name that is not allowed is refused, on
every path.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

# RFC 9110, section 7.2: a name or address, and a port.
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\s]+)(?::[0-9]{1,5})?")
_REFUSAL = (
    b"This name is not one of this port's. Use the address that it listens on, or add the name to [operations] hosts.\n"
)


class HostGuard:
    """ASGI middleware in front of everything else.

    Allowed are loopback names and addresses, the address that the connection came to, and `hosts`.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(map(_normal, hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self.allows(host_names(scope), scope.get("server")):
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 421, "headers": headers})
            await send({"type": "http.response.body", "body": _REFUSAL})
            return
        await self._app(scope, receive, send)

    def allows(self, names: list[str], server: tuple[str, int | None] | None) -> bool:
        """`names`: from all Host headers; exactly one is valid."""
        if len(names) != 1:
            return False
        name = names[0]
        if is_loopback_name(name) or name in self._hosts:
            return True
        # An address is no name that could be rebound, and the client knows it.
        return server is not None and _is_address(name) and name == _normal(server[0])


def host_names(scope: Scope) -> list[str]:
    """The normalized name of each Host header; empty for an invalid one."""
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
    matches = [_HOST.fullmatch(value) for value in values]
    return [_normal(match["name"]) if match else "" for match in matches]


def is_loopback_name(name: str) -> bool:
    """`name` as from `host_names`. Browsers resolve `localhost` and names below it themselves."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _normal(name: str) -> str:
    """Lower case, without brackets, port and the dot of the root."""
    name = name.strip("[]").lower().removesuffix(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name
