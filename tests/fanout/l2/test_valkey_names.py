"""A Valkey behind a name: each of its addresses is tried; a hung lookup holds up nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.asyncio.connection import Connection, SSLConnection

from cashier.fanout.l2.valkey_backend import ValkeySettings, client_for
from cashier.fanout.l2.valkey_url import parse_valkey_url

from .valkey_server import FOREVER_S, PATIENT, L2Worker, Server, valkey_server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with valkey_server() as server:
        yield server


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.9", "127.0.0.1"], ["::1", "127.0.0.9", "127.0.0.1"]])
async def test_each_address_of_the_name_is_tried(server: Server, addresses: list[str]) -> None:
    asked: list[str] = []

    async def resolve(host: str) -> list[str]:
        asked.append(host)
        return addresses

    worker = L2Worker(f"redis://cache.test:{server.port}/0", PATIENT, resolve=resolve)
    await worker.level.open()
    await worker.put("u_1", b"{}")
    answer = await worker.get("u_1")
    assert answer is not None
    assert worker.level.reachable
    assert set(asked) == {"cache.test"}
    await worker.level.close()


@pytest.mark.parametrize("then", ["hangs", "fails"])
async def test_a_name_without_an_address_is_a_lost_server(then: str) -> None:
    async def resolve(_host: str) -> list[str]:
        if then == "hangs":
            await asyncio.Event().wait()
        raise OSError("Name or service not known")

    worker = L2Worker("redis://cache.test:1/0", ValkeySettings(command_ms=50), resolve=resolve)
    async with asyncio.timeout(FOREVER_S):
        await worker.level.open()
        assert not worker.level.reachable
        assert await worker.get("u_1") is None
        await worker.level.close()


@pytest.mark.parametrize(("scheme", "kind"), [("redis", Connection), ("rediss", SSLConnection)])
async def test_a_certificate_must_have_the_name_and_not_the_address(scheme: str, kind: type[Connection]) -> None:
    async def resolve(_host: str) -> list[str]:
        return ["127.0.0.1"]

    client = client_for(parse_valkey_url(f"{scheme}://cache.test."), ValkeySettings(), resolve)
    connection = client.connection_pool.make_connection()
    assert isinstance(connection, kind)
    connection.ip = "10.0.0.1"  # type: ignore[attr-defined]  # of the class made for the name
    arguments = connection._connection_arguments()
    assert arguments["host"] == "10.0.0.1"
    assert arguments.get("server_hostname") == ("cache.test" if scheme == "rediss" else None)
