"""Whether a source can be connected to: of every transport and address; the wait for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from socket import socket

import pytest

from cashier.wire.aiohttp_client import AiohttpClient, AiohttpSettings
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.in_process import InProcessTransport
from cashier.wire.reachability import await_reachable
from cashier.wire.transport import Request, Response, Transport
from tests.wire.client_side import no_leaks
from tests.wire.scripted_names import Names, resolution
from tests.wire.scripted_upstream import tcp_upstream, unused_port

from .conftest import Authority, Wired

CLIENTS = ("http1", "aiohttp")


def client_of(kind: str, *urls: str, connect_timeout_ms: int = 30_000, ca_file: str | None = None) -> Transport:
    if kind == "http1":
        settings = Http1Settings(ahead=0, connect_timeout_ms=connect_timeout_ms, ca_file=ca_file)
        return Http1Client(urls, settings)
    return AiohttpClient(urls, AiohttpSettings(connect_timeout_ms=connect_timeout_ms, ca_file=ca_file))


@asynccontextmanager
async def closing(transport: Transport) -> AsyncIterator[Transport]:
    await transport.open()
    yield transport
    await transport.close()


@pytest.fixture(autouse=True)
async def _without_leaks() -> AsyncIterator[None]:
    async with no_leaks():
        yield


@contextmanager
def silent_port() -> Iterator[int]:
    """A port whose accept queue is full, so that the kernel ignores further connects."""
    with socket() as listener, socket() as first, socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_a_source_that_accepts_is_reachable_and_gets_no_request(wired: Wired) -> None:
    assert await wired.transport.is_reachable()
    assert not (await wired.upstream.peer()).has_unread
    assert await wired.transport.is_reachable(), "also the second time"


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_source_that_refuses_is_not_reachable(kind: str) -> None:
    async with closing(client_of(kind, f"http://127.0.0.1:{unused_port()}")) as transport:
        assert not await transport.is_reachable()


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_source_with_an_unknown_name_is_not_reachable(kind: str) -> None:
    async with closing(client_of(kind, "http://there-is-none.invalid:80")) as transport:
        assert not await transport.is_reachable()


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_source_that_ignores_connects_is_not_reachable(kind: str) -> None:
    with silent_port() as port:
        async with closing(client_of(kind, f"http://127.0.0.1:{port}", connect_timeout_ms=50)) as transport:
            assert not await transport.is_reachable()


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_source_with_an_untrusted_certificate_is_not_reachable(kind: str, authority: Authority) -> None:
    async with (
        tcp_upstream(authority.server_tls()) as upstream,
        closing(client_of(kind, f"https://127.0.0.1:{upstream.port}")) as transport,
    ):
        assert not await transport.is_reachable()


@pytest.mark.parametrize("kind", CLIENTS)
async def test_one_address_that_accepts_is_enough(kind: str) -> None:
    async with tcp_upstream() as upstream:
        urls = [f"http://127.0.0.1:{port}" for port in (unused_port(), upstream.port)]
        async with closing(client_of(kind, *urls)) as transport:
            assert await transport.is_reachable()


async def test_an_address_that_ignores_connects_does_not_delay_the_others() -> None:
    with silent_port() as port:
        async with tcp_upstream() as upstream:
            urls = [f"http://127.0.0.1:{each}" for each in (port, upstream.port)]
            async with closing(client_of("http1", *urls)) as transport, asyncio.timeout(20):
                assert await transport.is_reachable(), "the connect timeout is 30 s"


async def test_behind_a_proxy_the_proxy_has_to_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    async with tcp_upstream() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        client = AiohttpClient(["http://there-is-none.invalid"], AiohttpSettings(trust_env=True))
        async with closing(client) as transport:
            assert await transport.is_reachable()


def client_with_names(kind: str, names: Names, url: str, connect_timeout_ms: int = 30_000) -> Transport:
    if kind == "http1":
        return Http1Client([url], Http1Settings(ahead=0, connect_timeout_ms=connect_timeout_ms), names.resolver)
    return AiohttpClient([url], AiohttpSettings(connect_timeout_ms=connect_timeout_ms), names.resolver)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_name_is_looked_up_by_the_shared_resolver_only(kind: str) -> None:
    """The loop's own one, asked again and again, would delay all others and the exit."""
    names = Names(card=resolution("127.0.0.3", "127.0.0.1"))
    async with tcp_upstream() as upstream:
        async with closing(client_with_names(kind, names, f"http://card:{upstream.port}")) as transport:
            assert await transport.is_reachable()
        assert names.started["card"] == 1


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_name_that_hangs_is_not_reachable_and_is_looked_up_once(kind: str) -> None:
    names = Names()
    async with closing(client_with_names(kind, names, "http://hangs:80", connect_timeout_ms=50)) as transport:
        for _ in range(5):
            assert not await transport.is_reachable()
    assert names.started["hangs"] == 1


async def test_a_function_of_this_process_is_always_reachable() -> None:
    async def function(request: Request) -> Response:
        raise AssertionError("it must not be called")

    async with closing(InProcessTransport(function)) as transport:
        assert await transport.is_reachable()


class Scripted(InProcessTransport):
    """Reachable at the `n`-th attempt; never for 0."""

    def __init__(self, attempt: int) -> None:
        self._left = attempt

    async def is_reachable(self) -> bool:
        self._left -= 1
        return self._left == 0


@pytest.mark.looptime
async def test_the_wait_ends_when_all_have_been_reached() -> None:
    assert await await_reachable({"order": Scripted(1), "member": Scripted(3)}, 600.0) == ()


@pytest.mark.looptime
@pytest.mark.parametrize("limit_s", [0.0, 0.3])
async def test_the_wait_is_limited_and_names_what_was_not_reached(limit_s: float) -> None:
    transports = {"order": Scripted(1), "merchant": Scripted(0), "member": Scripted(0)}
    missing = await await_reachable(transports, limit_s)
    assert set(missing) - {"order"} == {"merchant", "member"}


async def test_nothing_to_wait_for_takes_no_time() -> None:
    assert await await_reachable({}, 60.0) == ()
