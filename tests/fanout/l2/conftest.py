"""A Valkey server for a module, emptied before each test, with two workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from .valkey_server import L2Worker, Server, l2_worker, raw_client, valkey_server


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with valkey_server() as server:
        yield server


@pytest.fixture
async def client(running: Server) -> AsyncIterator[Any]:
    async with raw_client(running) as client:
        await client.flushall()
        await client.config_resetstat()
        yield client


@pytest.fixture
async def server(running: Server, client: Any) -> Server:
    """An empty server."""
    return running


@pytest.fixture
async def worker(server: Server) -> AsyncIterator[L2Worker]:
    async with l2_worker(server) as worker:
        yield worker


@pytest.fixture
async def other(server: Server) -> AsyncIterator[L2Worker]:
    async with l2_worker(server) as worker:
        yield worker
