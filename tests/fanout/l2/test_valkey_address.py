"""The URL of the shared cache, and the addresses behind its name."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from cashier.fanout.l2.valkey_backend import ValkeySettings
from cashier.fanout.l2.valkey_url import ValkeyAddress, parse_valkey_url

from .valkey_server import FOREVER_S, PATIENT, L2Worker, Server, Wire, raw_client, valkey_server


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", ValkeyAddress("cache", 6379, 0, None, None, False)),
        ("redis://cache:7000/3", ValkeyAddress("cache", 7000, 3, None, None, False)),
        ("redis://:p%40ss@cache/", ValkeyAddress("cache", 6379, 0, None, "p@ss", False)),
        ("rediss://me:secret@[::1]:7000/1", ValkeyAddress("::1", 7000, 1, "me", "secret", True)),
    ],
)
def test_a_url_is_parsed_into_an_address(url: str, expected: ValkeyAddress) -> None:
    assert parse_valkey_url(url) == expected


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("", "neither redis://"),
        ("cache:6379", "neither redis://"),
        ("http://:secret@cache", "neither redis://"),
        ("redis://", "no host"),
        ("redis://:secret@:6379", "no host"),
        ("redis://:secret@cache:port", "host or port"),
        ("redis://:secret@cache:70000", "host or port"),
        ("redis://cache:0", "port is 0"),
        ("redis://:secret@cache/name", "database is not a number"),
        ("redis://cache/0?db=1", "after ? or #"),
        ("redis://secret@cache", "user without a password"),
    ],
)
def test_an_invalid_url_is_explained_without_its_password(url: str, wrong: str) -> None:
    with pytest.raises(ValueError, match="the URL of the shared cache is invalid") as raised:
        parse_valkey_url(url)
    assert wrong in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_password_is_not_shown() -> None:
    assert repr(parse_valkey_url("rediss://me:secret@cache/2")) == "rediss://cache:6379/2"


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


@pytest.mark.parametrize(
    ("name", "trusted", "reachable"),
    [("cache.test.", True, True), ("other.test", True, False), ("cache.test", False, False)],
)
async def test_the_certificate_must_have_the_name_and_a_trusted_issuer(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool, reachable: bool
) -> None:
    async def resolve(_host: str) -> list[str]:
        return ["127.0.0.1"]

    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("cache.test").configure_cert(tls)
    if trusted:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with await asyncio.start_server(Wire(server).serve, "127.0.0.1", 0, ssl=tls) as proxy:
        worker = L2Worker(f"rediss://{name}:{proxy.sockets[0].getsockname()[1]}", PATIENT, resolve=resolve)
        await worker.level.open()
        assert worker.level.reachable is reachable
        await worker.level.close()


async def test_the_database_and_the_user_of_the_url_are_used(server: Server) -> None:
    async with raw_client(server) as client:
        await client.acl_setuser(
            "me", enabled=True, passwords=["+s3cret"], categories=["+@all"], keys=["*"], channels=["*"]
        )
        worker = L2Worker(f"redis://me:s3cret@127.0.0.1:{server.port}/3", PATIENT)
        await worker.level.open()
        await worker.put("u_1")
        assert await worker.get("u_1") is not None
        names = {(each["user"], each["db"]) for each in await client.client_list() if each["cmd"] == "evalsha"}
        assert names == {("me", "3")}
        await worker.level.close()
