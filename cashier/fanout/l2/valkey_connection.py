"""Connections to a Valkey server whose name is resolved elsewhere.

redis-py resolves on the loop's shared threads: a hung lookup would delay the exit of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection

# The addresses of a host, the best first, at least one. Raises OSError.
Resolve = Callable[[str], Awaitable[Sequence[str]]]


def connection_class(resolve: Resolve, *, tls: bool) -> type[Connection]:
    """A class of connections that try each address in turn.

    The server's certificate must have the name.
    """
    kind: type[Connection] = SSLConnection if tls else Connection

    class ResolvingConnection(kind):  # type: ignore[valid-type, misc]  # one of two classes
        ip = ""

        def _connection_arguments(self) -> Mapping[str, Any]:
            arguments = {**super()._connection_arguments(), "host": self.ip}
            return {**arguments, "server_hostname": self.host.removesuffix(".")} if tls else arguments

        async def _connect(self) -> None:
            async with asyncio.timeout(self.socket_connect_timeout):
                ips = await resolve(self.host)
            for ip in ips[:-1]:
                self.ip = ip
                try:
                    await super()._connect()
                except OSError:  # also a TimeoutError
                    continue
                return
            self.ip = ips[-1]
            await super()._connect()

    return ResolvingConnection
