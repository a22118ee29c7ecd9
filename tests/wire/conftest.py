"""Fixtures of the wire tests. All run on asyncio and, but for virtual time, on uvloop.

Tests that take `wired` also run over every client and every kind of address.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import trustme
import uvloop

from cashier.wire.aiohttp_client import AiohttpClient, AiohttpSettings
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.transport import Response, Transport
from tests.wire.client_side import PATIENT, answer, no_leaks, send
from tests.wire.scripted_upstream import Peer, Upstream, tcp_upstream, unix_upstream

Loops = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Loops:
    """Virtual time is asyncio's only."""
    if item.get_closest_marker("looptime") is not None:
        return {"asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """By default run all pairs of client, loop and kind of address, but not all triples."""
    for item in items:
        if isinstance(item, pytest.Function) and "wired" in item.fixturenames:
            client, address_kind = str(item.callspec.params["wired"]).split()
            on_asyncio = "asyncio" in item.callspec.id.split("-")
            if address_kind != "http" and on_asyncio is (client == "http1"):
                item.add_marker(pytest.mark.proof)


class Authority(NamedTuple):
    """A certificate authority and its server certificate for 127.0.0.1."""

    ca: trustme.CA
    ca_file: str
    server: trustme.LeafCert

    def server_tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.configure_cert(context)
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    ca = trustme.CA()
    ca_file = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    return Authority(ca, str(ca_file), ca.issue_cert("127.0.0.1"))


@pytest.fixture(scope="session")
def server_tls(authority: Authority) -> ssl.SSLContext:
    return authority.server_tls()


class Wired(NamedTuple):
    """A transport and the upstream at the other end. `client` is `http1` or `aiohttp`."""

    transport: Transport
    upstream: Upstream
    client: str


# Small enough to be exceeded in a test.
BOUNDS: dict[str, Any] = {"max_head_bytes": 2048, "max_headers": 20, "max_body_bytes": 4096}


def make_transport(client: str, url: str, ca_file: str | None) -> Transport:
    if client == "http1":
        return Http1Client([url], Http1Settings(ahead=0, ca_file=ca_file, **BOUNDS, **PATIENT))
    return AiohttpClient([url], AiohttpSettings(ca_file=ca_file, **BOUNDS, **PATIENT))


@contextlib.asynccontextmanager
async def upstream_at(address_kind: str, tls: ssl.SSLContext) -> AsyncIterator[tuple[Upstream, str]]:
    if address_kind == "unix":
        with TemporaryDirectory() as folder:
            path = f"{folder}/s"
            async with unix_upstream(path) as upstream:
                yield upstream, f"unix:{path}"
    else:
        async with tcp_upstream(tls if address_kind == "https" else None) as upstream:
            yield upstream, f"{address_kind}://127.0.0.1:{upstream.port}"


@pytest.fixture(
    params=[f"{client} {address_kind}" for client in ("http1", "aiohttp") for address_kind in ("http", "unix", "https")]
)
async def wired(
    request: pytest.FixtureRequest, authority: Authority, server_tls: ssl.SSLContext
) -> AsyncIterator[Wired]:
    client, address_kind = request.param.split()
    async with no_leaks(), upstream_at(address_kind, server_tls) as (upstream, url):
        transport = make_transport(client, url, authority.ca_file)
        await transport.open()
        yield Wired(transport, upstream, client)
        await transport.close()
        if client == "http1":
            assert "0 queued" in repr(transport)
            assert "0 open, 0 idle, 0 outstanding, 0 connecting" in repr(transport)


async def exchange(wired: Wired, peer: Peer | None = None, **options: Any) -> Peer:
    """Make one call with its answer; return the connection, which can now be reused."""
    first = send(wired.transport, "/before", **options)
    peer = peer or await wired.upstream.peer()
    await peer.read_request()
    peer.write(answer(b"before"))
    assert await first.outcome() == Response(200, b"before")
    return peer
