"""The client of one Valkey server: two connections for commands, one more for each subscription.

Why not redis-py: a read costs it 2.5 to 4 times the CPU, because every command takes a connection
from a pool, a write and a timer of its own; and it looks names up on the loop's shared threads,
where a hung lookup would delay the exit of the process.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from cashier.fanout.l2.resp import command
from cashier.fanout.l2.valkey_connection import OnMessage, ValkeyConnection
from cashier.fanout.l2.valkey_url import ValkeyAddress

# The addresses of a host, the best first, at least one. Raises OSError.
Resolve: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]


class ValkeyClient:
    """`reads`: for what has little time. `background`: for the rest, which may be large.

    Each stands in for the other while that is closed or late, so one lost packet or one closed
    connection delays few reads. A connection that ends is opened again by `open` only.

    `timeout_s`: of a connect. `resolve`: None leaves names to the event loop. With TLS the server's
    certificate must have the host's name.
    """

    def __init__(self, address: ValkeyAddress, timeout_s: float, resolve: Resolve | None) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._resolve = resolve
        self._tls = ssl.create_default_context() if address.tls else None
        self._reads, self._background = ValkeyConnection(), ValkeyConnection()

    def __repr__(self) -> str:
        return f"<ValkeyClient {self._address!r} {self._reads!r} {self._background!r}>"

    @property
    def reads(self) -> ValkeyConnection:
        return _better(self._reads, self._background)

    @property
    def background(self) -> ValkeyConnection:
        return _better(self._background, self._reads)

    @property
    def connections(self) -> tuple[ValkeyConnection, ValkeyConnection]:
        return self._reads, self._background

    async def open(self) -> None:
        """Open the connections that are closed. Raises `FAULTS`."""
        if self._reads.closed:
            self._reads = await self.connect()
        if self._background.closed:
            self._background = await self.connect()

    def close(self) -> None:
        """Close both. Callers that wait get a fault in the next turn."""
        for connection in self.connections:
            connection.close()

    async def aclose(self) -> None:
        """Close both, and return when all callers have their fault."""
        self.close()
        for connection in self.connections:
            await connection.ends_within(self._timeout_s)

    async def connect(self, on_message: OnMessage | None = None) -> ValkeyConnection:
        """Try each address of the host, within equal parts of the time. Raises `FAULTS`."""
        host = self._address.host
        async with asyncio.timeout(self._timeout_s):
            ips = (host,) if self._resolve is None else await self._resolve(host)
        for ip in ips[:-1]:
            try:
                return await self._connect_to(ip, on_message, self._timeout_s / len(ips))
            except OSError:  # also a TimeoutError
                continue
        return await self._connect_to(ips[-1], on_message, self._timeout_s / len(ips))

    async def _connect_to(self, ip: str, on_message: OnMessage | None, timeout_s: float) -> ValkeyConnection:
        address = self._address
        connection = ValkeyConnection(on_message)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection,
                    ip,
                    address.port,
                    ssl=self._tls,
                    server_hostname=address.host.removesuffix(".") if address.tls else None,
                )
                for reply in await connection.ask(*_log_in(address)):
                    if isinstance(reply, Exception):
                        raise reply
        except BaseException:
            connection.close()
            raise
        return connection


def _better(own: ValkeyConnection, other: ValkeyConnection) -> ValkeyConnection:
    if own.closed or (own.overdue and not other.overdue and not other.closed):
        return other
    return own


def _log_in(address: ValkeyAddress) -> list[bytes]:
    commands = [command("SELECT", address.database)] if address.database else []
    if address.password is not None:
        who = (address.user,) if address.user else ()
        commands.insert(0, command("AUTH", *who, address.password))
    return commands or [command("PING")]  # shows a server that takes no further connection
