"""aiohttp's names, resolved by our resolver: its own one runs on the loop's shared threads."""

from __future__ import annotations

import socket
from collections import deque

from aiohttp.abc import AbstractResolver, ResolveResult

from cashier.wire.resolver import Resolution, ResolvedName, Resolver


class SharedResolver(AbstractResolver):
    """`resolve_s` and `timeout_s` as of `ResolvedName.wait`. Answers rotate the addresses."""

    def __init__(self, resolver: Resolver, resolve_s: float, timeout_s: float) -> None:
        self._resolver = resolver
        self._resolve_s = resolve_s
        self._timeout_s = timeout_s
        self._names: dict[str, ResolvedName] = {}
        self._turn = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError, which aiohttp reports as a failed connect."""
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = self._resolver.name(host)
            name.watch(self._on_resolution)
        resolution = await name.wait(self._resolve_s, self._timeout_s)
        results = deque(
            ResolveResult(
                hostname=host,
                host=address.ip,
                port=port if address.port is None else address.port,
                family=socket.AF_INET6 if ":" in address.ip else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in resolution.addresses
        )
        results.rotate(-self._turn)
        self._turn += 1
        return [result for result in results if family in (socket.AF_UNSPEC, result["family"])]

    def _on_resolution(self, _resolution: Resolution) -> None:
        """Each connect reads the addresses anew. To watch a name keeps its lookup alive."""

    async def close(self) -> None:
        for name in self._names.values():
            name.unwatch(self._on_resolution)
        self._names.clear()
