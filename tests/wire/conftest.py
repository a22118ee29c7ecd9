"""Every test of the wire runs on asyncio's loop and on uvloop; those that take `wired` also over every transport and kind of address."""

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

from .asking import answer, ask, nothing_left
from .hostile import Peer, Upstream, tcp_upstream, unix_upstream

Loops = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories() -> Loops:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each transport on each loop, each to every kind of address, and each kind of address on each loop: by default not all three."""
    for item in items:
        if isinstance(item, pytest.Function) and "wired" in item.fixturenames:
            client, place = str(item.callspec.params["wired"]).split()
            on_asyncio = "asyncio" in item.callspec.id.split("-")
            if place != "http" and on_asyncio is (client == "http1"):
                item.add_marker(pytest.mark.proof)


class Authority(NamedTuple):
    """A certificate authority and what it signed for 127.0.0.1."""

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
    """A transport and the upstream at its other end. `client` is `http1` or `aiohttp`."""

    wire: Transport
    upstream: Upstream
    client: str


# Bounds small enough to be exceeded in a test; the shapes of the tests hold for any.
BOUNDS: dict[str, Any] = {"max_head_bytes": 2048, "max_headers": 20, "max_body_bytes": 4096}


def make_wire(client: str, url: str, ca_file: str | None) -> Transport:
    if client == "http1":
        return Http1Client([url], Http1Settings(ahead=0, ca_file=ca_file, **BOUNDS))
    return AiohttpClient([url], AiohttpSettings(ca_file=ca_file, **BOUNDS))


@contextlib.asynccontextmanager
async def upstream_at(place: str, tls: ssl.SSLContext) -> AsyncIterator[tuple[Upstream, str]]:
    if place == "unix":
        with TemporaryDirectory() as folder:
            path = f"{folder}/s"
            async with unix_upstream(path) as upstream:
                yield upstream, f"unix:{path}"
    else:
        async with tcp_upstream(tls if place == "https" else None) as upstream:
            yield upstream, f"{place}://127.0.0.1:{upstream.port}"


@pytest.fixture(params=[f"{client} {place}" for client in ("http1", "aiohttp") for place in ("http", "unix", "https")])
async def wired(
    request: pytest.FixtureRequest, authority: Authority, server_tls: ssl.SSLContext
) -> AsyncIterator[Wired]:
    client, place = request.param.split()
    async with nothing_left(), upstream_at(place, server_tls) as (upstream, url):
        wire = make_wire(client, url, authority.ca_file)
        await wire.open()
        yield Wired(wire, upstream, client)
        await wire.close()
        if client == "http1":
            assert "0 queued" in repr(wire)
            assert "0 open, 0 idle, 0 outstanding, 0 connecting" in repr(wire)


async def answered(wired: Wired, peer: Peer | None = None, **options: Any) -> Peer:
    """One whole exchange; returns its connection, which is now kept."""
    first = ask(wired.wire, "/before", **options)
    peer = peer or await wired.upstream.peer()
    await peer.question()
    peer.say(answer(b"before"))
    assert await first.outcome() == Response(200, b"before")
    return peer
