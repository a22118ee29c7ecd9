"""The client of a Valkey or Redis server: its bounds and its key names.

`valkey_cache` decides when to call it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from aiocache.backends.redis import RedisBackend  # type: ignore[import-untyped] # it has no types
from aiocache.serializers import NullSerializer  # type: ignore[import-untyped] # it has no types
from msgspec import Struct
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cashier.fanout.l2.valkey_connection import Resolve, connection_class
from cashier.fanout.l2.valkey_url import ValkeyAddress

# Increment the number when the format of entries or messages changes: versions then ignore each
# other.
NAMESPACE = "cashier:1"
CHANNEL = f"{NAMESPACE}:dropped"
# Faults of a server or a network. Anything else is a bug.
FAULTS = (RedisError, OSError, EOFError, TimeoutError)
_SCAN_KEYS = 500


class ValkeySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`get_ms`: a read that takes longer is a miss, and slow.

    `command_ms`: the same for background commands.

    `gets`: concurrent reads, and as many scripts, over at most `connections`. `writes`: queued
    writes. `alone_ms`: the least time before a lost server is probed. `silence_ms`: after this time
    without a message the subscription is checked.
    """

    get_ms: int = 20
    command_ms: int = 1000
    gets: int = 32
    connections: int = 8
    writes: int = 2000
    alone_ms: int = 500
    silence_ms: int = 5000


def backend_for(address: ValkeyAddress, settings: ValkeySettings, resolve: Resolve | None = None) -> Any:
    """Return aiocache's untyped back end, with redis.asyncio's client in `client`.

    It does not connect yet. `resolve`: None leaves names to the event loop.
    """
    chosen = {} if resolve is None else {"connection_class": connection_class(resolve, tls=address.tls)}
    return RedisBackend(
        serializer=NullSerializer(encoding=None),
        timeout=0,  # callers set timeouts: aiocache's own makes a task of each call
        endpoint=address.host,
        port=address.port,
        db=address.database,
        password=address.password,
        ssl=address.tls and resolve is None,  # aiocache would replace the class
        pool_max_size=settings.connections + 2,  # and the writer, and the subscription
        create_connection_timeout=settings.command_ms / 1000,
        connection_pool_class=BlockingConnectionPool,
        connection_pool_kwargs={
            **chosen,
            "username": address.user,
            "timeout": settings.command_ms / 1000,
            # Callers set timeouts: redis makes a task of each send that it bounds, and wait_for of
            # Python 3.11 may swallow a cancellation.
            "socket_timeout": None,
            # A subscription that reconnects by itself hides lost messages, and a read has no time
            # for a second try.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,  # every server supports it, and nothing of 3 is needed
            "driver_info": None,
        },
    )


def key_of(source: str, key: str) -> bytes:
    return f"{NAMESPACE}:{source}:{key}".encode("utf-8", "surrogatepass")


async def keys_with_prefix(client: Any, source: str, prefix: str) -> AsyncIterator[list[bytes]]:
    """Yield keys in batches, some of them empty.

    Includes every key that exists during the whole scan.
    """
    pattern = re.sub(rb"([*?\[\]\\^-])", rb"\\\1", key_of(source, prefix)) + b"*"
    cursor = 0
    while True:
        cursor, keys = await client.scan(cursor, match=pattern, count=_SCAN_KEYS)
        yield keys
        if not cursor:
            return
