"""Whether a request may have left, which decides about money.

`sent` False must be certain, and an unsafe request leaves at most once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from cashier.source_errors import Garbled, Shed, SourceError, Unreachable
from cashier.wire import http1
from cashier.wire.aiohttp_client import AiohttpClient, AiohttpSettings
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.transport import MAX_UNSAFE_IDLE_S, Response, Transport
from tests.wire.client_side import OK, PATIENT, RecordedCall, answer, no_leaks, send, settle, until
from tests.wire.scripted_upstream import Peer, tcp_upstream, unused_port

from .conftest import Authority, Wired, exchange

HELLO = Response(200, b"hello")
MakeTransport = Callable[..., Transport]


def over_http1(urls: list[str], **settings: Any) -> Transport:
    return Http1Client(urls, Http1Settings(ahead=0, **{**PATIENT, **settings}))


def over_aiohttp(urls: list[str], **settings: Any) -> Transport:
    return AiohttpClient(urls, AiohttpSettings(**{**PATIENT, **settings}))


both = pytest.mark.parametrize("make", [over_http1, over_aiohttp], ids=["http1", "aiohttp"])


def pay(transport: Transport) -> RecordedCall:
    return send(transport, "/pay", method="POST", safe=False, body=b'{"legs": []}')


async def error_of(call: RecordedCall) -> SourceError:
    outcome = await call.outcome()
    assert isinstance(outcome, SourceError)
    return outcome


# Requests that never left


@both
@pytest.mark.parametrize("address", ["refused", "no such name", "no such socket"])
async def test_a_call_without_a_connection_was_not_sent(make: MakeTransport, address: str) -> None:
    urls = {
        "refused": f"http://127.0.0.1:{unused_port()}",
        "no such name": "http://no-such-host.invalid:1",
        "no such socket": "unix:/nowhere/s",
    }
    async with no_leaks():
        transport = make([urls[address]])
        error = await error_of(pay(transport))
        assert isinstance(error, Unreachable)
        assert not error.sent
        await transport.close()


@both
async def test_a_call_refused_by_every_address_was_not_sent(make: MakeTransport) -> None:
    async with no_leaks():
        transport = make([f"http://127.0.0.1:{unused_port()}" for _ in range(3)])
        assert not (await error_of(pay(transport))).sent
        await transport.close()


@both
async def test_an_untrusted_certificate_keeps_the_request_from_leaving(
    make: MakeTransport, authority: Authority
) -> None:
    async with no_leaks(), tcp_upstream(authority.server_tls()) as upstream:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, _context: None
        )  # of the server's side of the failed handshake
        transport = make([f"https://127.0.0.1:{upstream.port}"])
        assert not (await error_of(pay(transport))).sent
        await transport.close()


@both
async def test_a_server_without_tls_never_gets_the_request(make: MakeTransport) -> None:
    async with no_leaks(), tcp_upstream() as upstream:
        transport = make([f"https://127.0.0.1:{upstream.port}"])
        call = pay(transport)
        peer = await upstream.peer()
        peer.write(answer(b"hello"))
        assert not (await error_of(call)).sent
        await transport.close()


@both
async def test_an_unanswered_connect_has_sent_nothing(make: MakeTransport) -> None:
    with socket.socket() as deaf:  # its backlog is full: further SYNs are dropped
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        async with no_leaks():
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            transport = make([f"http://127.0.0.1:{port}"], connect_timeout_ms=30)
            assert not (await error_of(pay(transport))).sent
            await transport.close()
            for filler in fillers:
                filler.close()


@both
async def test_a_call_refused_by_a_full_queue_was_not_sent(make: MakeTransport) -> None:
    async with no_leaks(), tcp_upstream() as upstream:
        transport = make([f"http://127.0.0.1:{upstream.port}"], connections=1, queue=1)
        filling = [pay(transport) for _ in range(4)]
        await upstream.peer()
        error = await error_of(filling[-1])
        assert isinstance(error, Shed)
        assert not error.sent
        await transport.close()


async def test_after_close_nothing_is_sent(wired: Wired) -> None:
    await wired.transport.close()
    assert not (await error_of(pay(wired.transport))).sent


@both
async def test_closing_distinguishes_sent_calls_from_queued_ones(make: MakeTransport) -> None:
    async with no_leaks(), tcp_upstream() as upstream:
        transport = make([f"http://127.0.0.1:{upstream.port}"], connections=1)
        outstanding = pay(transport)
        await (await upstream.peer()).read_request()
        waiting = pay(transport)
        await settle()
        assert outstanding.sent
        assert not waiting.sent
        await transport.close()
        assert (await error_of(outstanding)).sent
        assert not (await error_of(waiting)).sent


async def test_a_connection_that_ends_before_it_is_written_to_has_sent_nothing() -> None:
    """Between two loop turns the connection has received EOF, but is not closed yet."""
    async with no_leaks(), tcp_upstream() as upstream:
        transport = Http1Client([f"http://127.0.0.1:{upstream.port}"], Http1Settings(ahead=0, **PATIENT))
        call = pay(transport)
        (connecting,) = transport._connects

        def end(_task: asyncio.Task[Any]) -> None:
            connecting.result().eof_received()

        callbacks = list(connecting._callbacks)
        for callback, _context in callbacks:
            connecting.remove_done_callback(callback)
        connecting.add_done_callback(end)  # before the pool's own callback
        for callback, _context in callbacks:
            connecting.add_done_callback(callback)
        assert not (await error_of(call)).sent
        await transport.close()


# Requests that may have left


def close(peer: Peer) -> None:
    peer.close()


def reset(peer: Peer) -> None:
    peer.reset()


def close_within_body(peer: Peer) -> None:
    peer.write(OK + b"Content-Length: 5\r\n\r\nhe")
    peer.close()


def write_nonsense(peer: Peer) -> None:
    peer.write(b"NONSENSE\r\n\r\n")


@pytest.mark.parametrize("end", [close, reset, close_within_body, write_nonsense])
@pytest.mark.parametrize("reused", [False, True], ids=["new", "reused"])
async def test_an_unsafe_request_that_was_read_counts_as_sent_and_is_not_repeated(
    wired: Wired, reused: bool, end: Callable[[Peer], None]
) -> None:
    peer = await exchange(wired, safe=False) if reused else None
    call = pay(wired.transport)
    peer = peer or await wired.upstream.peer()
    await peer.read_request()
    end(peer)
    error = await error_of(call)
    assert isinstance(error, Unreachable | Garbled)
    assert error.sent
    await settle()
    assert wired.upstream.untaken == 0
    assert not any(peer.has_unread for peer in wired.upstream.peers)


@pytest.mark.parametrize("end", [close, reset])
@pytest.mark.parametrize("reused", [False, True], ids=["new", "reused"])
async def test_an_unsafe_request_on_a_connection_that_ends_unread_leaves_once(
    wired: Wired, reused: bool, end: Callable[[Peer], None]
) -> None:
    """The upstream closes while the request is on its way, or before.

    It leaves once: here, or elsewhere if it certainly had not left here.
    """
    peer = await exchange(wired, safe=False) if reused else None
    call = pay(wired.transport)
    peer = peer or await wired.upstream.peer()
    end(peer)
    await until(lambda: bool(call.outcomes) or wired.upstream.untaken > 0)
    if wired.upstream.untaken:  # aiohttp noticed before it wrote
        assert wired.client == "aiohttp"
        assert reused
        fresh = await wired.upstream.peer()
        await fresh.read_request()
        assert not peer.has_unread
        fresh.write(answer(b"hello"))
        assert await call.outcome() == HELLO
    else:
        assert isinstance(await error_of(call), Unreachable)


async def test_a_failed_retry_still_counts_as_sent() -> None:
    for make in (over_http1, over_aiohttp):
        async with no_leaks(), tcp_upstream() as upstream:
            transport = make([f"http://127.0.0.1:{upstream.port}"])
            first = send(transport)
            peer = await upstream.peer()
            await peer.read_request()
            peer.write(answer(b"hello"))
            assert await first.outcome() == HELLO
            again = send(transport)
            await peer.read_request()
            upstream.refuse()
            peer.close()
            error = await error_of(again)
            assert isinstance(error, Unreachable)
            assert error.sent
            await transport.close()


async def test_a_call_counts_as_sent_from_the_moment_it_may_have_left(wired: Wired) -> None:
    call = pay(wired.transport)
    observed = [call.sent]
    await (await wired.upstream.peer()).read_request()
    observed.append(call.sent)
    call.abandon()
    assert observed == [False, True]


async def test_a_call_abandoned_unsent_never_leaves(wired: Wired) -> None:
    call = pay(wired.transport)
    assert not call.sent
    call.abandon()
    await settle()
    assert not any(peer.has_unread for peer in wired.upstream.peers)


# Connections for unsafe requests


async def idle(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Advance the clocks that measure the idle time of connections."""
    for module in (http1, aiohttp.connector):
        now = module.monotonic  # imported there by name
        monkeypatch.setattr(module, "monotonic", lambda now=now: now() + seconds)


@pytest.mark.parametrize("safe", [True, False])
async def test_only_a_safe_request_uses_a_connection_that_was_idle_for_long(
    wired: Wired, monkeypatch: pytest.MonkeyPatch, safe: bool
) -> None:
    reused = await exchange(wired, safe=safe)
    await idle(monkeypatch, MAX_UNSAFE_IDLE_S)
    call = send(wired.transport, "/pay", method="POST", safe=safe)
    peer = await wired.upstream.peer_with_request()
    assert (peer is reused) is safe
    await peer.read_request()
    peer.write(answer(b"hello"))
    assert await call.outcome() == HELLO


async def test_an_unsafe_request_uses_a_recently_used_connection(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    reused = await exchange(wired, safe=False)
    await idle(monkeypatch, MAX_UNSAFE_IDLE_S * 0.5)
    call = pay(wired.transport)
    await reused.read_request()
    reused.write(answer(b"hello"))
    assert await call.outcome() == HELLO
    assert wired.upstream.untaken == 0


async def test_if_all_connections_were_idle_for_long_one_is_closed_to_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with no_leaks(), tcp_upstream() as upstream, tcp_upstream() as other:
        urls = [f"http://127.0.0.1:{server.port}" for server in (upstream, other)]
        for several in (urls[:1], urls):
            transport = Http1Client(several, Http1Settings(ahead=2, connections=2, **PATIENT))
            await transport.open()
            await idle(monkeypatch, 2 * MAX_UNSAFE_IDLE_S)
            calls = [pay(transport) for _ in range(3)]
            for _ in calls:
                await until(lambda: any(peer.has_unread for peer in (*upstream.peers, *other.peers)))
                peer = next(peer for peer in (*upstream.peers, *other.peers) if peer.has_unread)
                await peer.read_request()
                peer.write(answer(b"hello"))
            for call in calls:
                assert await call.outcome() == HELLO
            assert "0 queued" in repr(transport)
            await transport.close()


# aiohttp without guards


@pytest.mark.parametrize(("method", "times"), [("POST", 1), ("PATCH", 1), ("GET", 2), ("PUT", 2), ("DELETE", 2)])
async def test_aiohttp_alone_repeats_by_method_and_never_a_post(method: str, times: int) -> None:
    async with tcp_upstream() as upstream, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{upstream.port}/"

        async def request() -> None:
            with pytest.raises(aiohttp.ClientError):
                await session.request(method, url, data=b"[]")

        task = asyncio.create_task(request())
        for _ in range(times):
            peer = await upstream.peer()
            await peer.read_request()
            peer.close()
        await task
        assert upstream.untaken == 0
