"""How a Valkey or Redis server is spoken to: the client, its bounds and its names of keys. When it is spoken to is decided elsewhere."""

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

from cashier.fanout.l2.valkey_url import ValkeyAddress

# Another form of entries or messages gets another number, and then neither sees the other's.
NAMESPACE = "cashier:1"
CHANNEL = f"{NAMESPACE}:dropped"
# What a server or a network does. Anything else is a bug.
TROUBLE = (RedisError, OSError, EOFError, TimeoutError)
_SCAN_KEYS = 500


class ValkeySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`get_ms`: a read that takes longer is a miss, and slow. `command_ms`: the same for what nobody waits for.

    `gets` under way at a time, and as many scripts, over at most `connections`; `writes` queued; `alone_ms` for which a lost server is
    left alone, at least; `silence_ms` after which a quiet subscription is asked whether it lives.
    """

    get_ms: int = 20
    command_ms: int = 1000
    gets: int = 32
    connections: int = 8
    writes: int = 2000
    alone_ms: int = 500
    silence_ms: int = 5000


def back_end(where: ValkeyAddress, settings: ValkeySettings) -> Any:
    """aiocache's, which has no types; its `client` is redis.asyncio's. Nothing is connected yet."""
    return RedisBackend(
        serializer=NullSerializer(encoding=None),
        timeout=0,  # bounded by who calls: what aiocache would use makes a task of each call
        endpoint=where.host,
        port=where.port,
        db=where.database,
        password=where.password,
        ssl=where.tls,
        pool_max_size=settings.connections + 2,  # and the writer, and the subscription
        create_connection_timeout=settings.command_ms / 1000,
        connection_pool_class=BlockingConnectionPool,
        connection_pool_kwargs={
            "username": where.user,
            "timeout": settings.command_ms / 1000,
            # Bounded by who calls: redis makes a task of each send that it bounds, and Python 3.11's wait_for may swallow a cancellation.
            "socket_timeout": None,
            # A subscription that reconnects by itself hides what was missed, and a read has no time for a second try.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,  # nothing of 3 is needed, and every server has it
            "driver_info": None,
        },
    )


def key_of(source: str, key: str) -> bytes:
    return f"{NAMESPACE}:{source}:{key}".encode("utf-8", "surrogatepass")


async def keys_beginning(client: Any, source: str, prefix: str) -> AsyncIterator[list[bytes]]:
    """In batches, some of them empty. What is there from the beginning to the end of this is among them."""
    pattern = re.sub(rb"([*?\[\]\\^-])", rb"\\\1", key_of(source, prefix)) + b"*"
    cursor = 0
    while True:
        cursor, keys = await client.scan(cursor, match=pattern, count=_SCAN_KEYS)
        yield keys
        if not cursor:
            return
