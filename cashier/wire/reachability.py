"""Which transports can connect to their source: a connect, not a call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from cashier.wire.transport import Transport

# Between a failed connect and the next one to the same source.
RETRY_S = 0.25


async def await_reachable(transports: Mapping[str, Transport], limit_s: float) -> tuple[str, ...]:
    """Connect to each until it has succeeded once, for at most `limit_s` seconds.

    Returns the names of those that were never reached.
    """
    missing = dict(transports)

    async def reach(name: str, transport: Transport) -> None:
        while True:
            if await transport.is_reachable():
                del missing[name]
                return
            await asyncio.sleep(RETRY_S)

    try:
        async with asyncio.timeout(limit_s), asyncio.TaskGroup() as tasks:
            for name, transport in transports.items():
                tasks.create_task(reach(name, transport))
    except TimeoutError:
        pass
    return tuple(missing)
