"""Whether a request may have left: decisive for money. False has to be certain; and what is not safe leaves once."""

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

from .asking import OK, Asked, answer, arrival, ask, nothing_left, until
from .conftest import Authority, Wired, answered
from .hostile import Peer, tcp_upstream, unused_port

HELLO = Response(200, b"hello")
Make = Callable[..., Transport]


def over_http1(urls: list[str], **settings: Any) -> Transport:
    return Http1Client(urls, Http1Settings(ahead=0, **settings))


def over_aiohttp(urls: list[str], **settings: Any) -> Transport:
    return AiohttpClient(urls, AiohttpSettings(**settings))


both = pytest.mark.parametrize("make", [over_http1, over_aiohttp], ids=["http1", "aiohttp"])


def pay(wire: Transport) -> Asked:
    return ask(wire, "/pay", method="POST", safe=False, body=b'{"legs": []}')


async def error_of(asked: Asked) -> SourceError:
    outcome = await asked.outcome()
    assert isinstance(outcome, SourceError)
    return outcome


# What never left


@both
@pytest.mark.parametrize("address", ["refused", "no such name", "no such socket"])
async def test_what_has_no_connection_was_not_sent(make: Make, address: str) -> None:
    urls = {
        "refused": f"http://127.0.0.1:{unused_port()}",
        "no such name": "http://no-such-host.invalid:1",
        "no such socket": "unix:/nowhere/s",
    }
    async with nothing_left():
        wire = make([urls[address]])
        error = await error_of(pay(wire))
        assert isinstance(error, Unreachable)
        assert not error.sent
        await wire.close()


@both
async def test_what_every_address_refuses_was_not_sent(make: Make) -> None:
    async with nothing_left():
        wire = make([f"http://127.0.0.1:{unused_port()}" for _ in range(3)])
        assert not (await error_of(pay(wire))).sent
        await wire.close()


@both
async def test_a_certificate_that_is_not_trusted_keeps_the_request_from_leaving(
    make: Make, authority: Authority
) -> None:
    async with nothing_left(), tcp_upstream(authority.server_tls()) as upstream:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, _context: None
        )  # the server's side of a failed handshake
        wire = make([f"https://127.0.0.1:{upstream.port}"])
        assert not (await error_of(pay(wire))).sent
        await wire.close()


@both
async def test_a_server_that_does_not_speak_tls_never_gets_the_request(make: Make) -> None:
    async with nothing_left(), tcp_upstream() as upstream:
        wire = make([f"https://127.0.0.1:{upstream.port}"])
        asked = pay(wire)
        peer = await upstream.peer()
        peer.say(answer(b"hello"))
        assert not (await error_of(asked)).sent
        await wire.close()


@both
async def test_a_connect_that_nobody_answers_has_sent_nothing(make: Make) -> None:
    with socket.socket() as deaf:  # a backlog that is full: further SYNs are dropped
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        async with nothing_left():
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            wire = make([f"http://127.0.0.1:{port}"], connect_timeout_ms=30)
            assert not (await error_of(pay(wire))).sent
            await wire.close()
            for filler in fillers:
                filler.close()


@both
async def test_what_finds_the_queue_full_was_not_sent(make: Make) -> None:
    async with nothing_left(), tcp_upstream() as upstream:
        wire = make([f"http://127.0.0.1:{upstream.port}"], connections=1, queue=1)
        filling = [pay(wire) for _ in range(4)]
        await upstream.peer()
        error = await error_of(filling[-1])
        assert isinstance(error, Shed)
        assert not error.sent
        await wire.close()


async def test_after_close_nothing_is_sent(wired: Wired) -> None:
    await wired.wire.close()
    assert not (await error_of(pay(wired.wire))).sent


@both
async def test_closing_tells_who_was_sent_from_who_still_waited(make: Make) -> None:
    async with nothing_left(), tcp_upstream() as upstream:
        wire = make([f"http://127.0.0.1:{upstream.port}"], connections=1)
        under_way = pay(wire)
        await (await upstream.peer()).question()
        waiting = pay(wire)
        await arrival()
        assert under_way.exchange.sent
        assert not waiting.exchange.sent
        await wire.close()
        assert (await error_of(under_way)).sent
        assert not (await error_of(waiting)).sent


async def test_a_connection_that_ends_before_it_is_written_to_has_sent_nothing() -> None:
    """It is open, its end has come, and its close is not through yet: the moment between two turns of the loop."""
    async with nothing_left(), tcp_upstream() as upstream:
        wire = Http1Client([f"http://127.0.0.1:{upstream.port}"], Http1Settings(ahead=0))
        asked = pay(wire)
        (connecting,) = wire._connects

        def end(_task: asyncio.Task[Any]) -> None:
            connecting.result().eof_received()

        told = list(connecting._callbacks)  # to be told before the pool is
        for callback, _context in told:
            connecting.remove_done_callback(callback)
        connecting.add_done_callback(end)
        for callback, _context in told:
            connecting.add_done_callback(callback)
        assert not (await error_of(asked)).sent
        await wire.close()


# What may have left


def hang_up(peer: Peer) -> None:
    peer.hang_up()


def reset(peer: Peer) -> None:
    peer.reset()


def break_off(peer: Peer) -> None:
    peer.say(OK + b"Content-Length: 5\r\n\r\nhe")
    peer.hang_up()


def say_nonsense(peer: Peer) -> None:
    peer.say(b"NONSENSE\r\n\r\n")


@pytest.mark.parametrize("end", [hang_up, reset, break_off, say_nonsense])
@pytest.mark.parametrize("kept", [False, True], ids=["fresh", "kept"])
async def test_what_was_read_may_have_been_done_and_is_never_sent_again(
    wired: Wired, kept: bool, end: Callable[[Peer], None]
) -> None:
    peer = await answered(wired, safe=False) if kept else None
    asked = pay(wired.wire)
    peer = peer or await wired.upstream.peer()
    await peer.question()
    end(peer)
    error = await error_of(asked)
    assert isinstance(error, Unreachable | Garbled)
    assert error.sent
    await arrival()
    assert wired.upstream.unseen == 0
    assert not any(each.asked for each in wired.upstream.peers)


@pytest.mark.parametrize("end", [hang_up, reset])
@pytest.mark.parametrize("kept", [False, True], ids=["fresh", "kept"])
async def test_a_connection_that_ends_unread_is_not_replaced_by_another(
    wired: Wired, kept: bool, end: Callable[[Peer], None]
) -> None:
    """The upstream closes when the request is on its way, or before. It goes out once, here or, where it certainly had not, elsewhere."""
    peer = await answered(wired, safe=False) if kept else None
    asked = pay(wired.wire)
    peer = peer or await wired.upstream.peer()
    end(peer)
    await until(lambda: bool(asked.outcomes) or wired.upstream.unseen > 0)
    if wired.upstream.unseen:  # aiohttp has noticed before it wrote
        assert wired.client == "aiohttp"
        assert kept
        fresh = await wired.upstream.peer()
        await fresh.question()
        assert not peer.asked
        fresh.say(answer(b"hello"))
        assert await asked.outcome() == HELLO
    else:
        assert isinstance(await error_of(asked), Unreachable)


async def test_a_retry_that_finds_nobody_has_sent_all_the_same() -> None:
    for make in (over_http1, over_aiohttp):
        async with nothing_left(), tcp_upstream() as upstream:
            wire = make([f"http://127.0.0.1:{upstream.port}"])
            first = ask(wire)
            peer = await upstream.peer()
            await peer.question()
            peer.say(answer(b"hello"))
            assert await first.outcome() == HELLO
            again = ask(wire)
            await peer.question()
            upstream.refuse()
            peer.hang_up()
            error = await error_of(again)
            assert isinstance(error, Unreachable)
            assert error.sent
            await wire.close()


async def test_a_call_says_that_it_may_have_been_sent_once_it_may(wired: Wired) -> None:
    asked = pay(wired.wire)
    said = [asked.exchange.sent]
    await (await wired.upstream.peer()).question()
    said.append(asked.exchange.sent)
    asked.exchange.abandon()
    assert said == [False, True]


async def test_what_is_abandoned_unsent_never_leaves(wired: Wired) -> None:
    asked = pay(wired.wire)
    assert not asked.exchange.sent
    asked.exchange.abandon()
    await arrival()
    assert not any(peer.asked for peer in wired.upstream.peers)


# Connections for what must not be sent twice


async def idle(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The clocks that say how long a connection has been idle go forward."""
    for module in (http1, aiohttp.connector):
        now = module.monotonic  # imported there by name
        monkeypatch.setattr(module, "monotonic", lambda now=now: now() + seconds)


@pytest.mark.parametrize("safe", [True, False])
async def test_only_what_is_safe_goes_out_on_a_connection_that_was_idle_for_long(
    wired: Wired, monkeypatch: pytest.MonkeyPatch, safe: bool
) -> None:
    kept = await answered(wired, safe=safe)
    await idle(monkeypatch, MAX_UNSAFE_IDLE_S)
    asked = ask(wired.wire, "/pay", method="POST", safe=safe)
    peer = await wired.upstream.asked()
    assert (peer is kept) is safe
    await peer.question()
    peer.say(answer(b"hello"))
    assert await asked.outcome() == HELLO


async def test_a_connection_used_a_moment_ago_serves_what_is_not_safe(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await answered(wired, safe=False)
    await idle(monkeypatch, MAX_UNSAFE_IDLE_S * 0.5)
    asked = pay(wired.wire)
    await kept.question()
    kept.say(answer(b"hello"))
    assert await asked.outcome() == HELLO
    assert wired.upstream.unseen == 0


async def test_where_every_connection_is_idle_for_long_one_is_closed_to_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with nothing_left(), tcp_upstream() as upstream, tcp_upstream() as other:
        urls = [f"http://127.0.0.1:{each.port}" for each in (upstream, other)]
        for several in (urls[:1], urls):
            wire = Http1Client(several, Http1Settings(ahead=2, connections=2))
            await wire.open()
            await idle(monkeypatch, 2 * MAX_UNSAFE_IDLE_S)
            asked = [pay(wire) for _ in range(3)]
            for _ in asked:
                await until(lambda: any(peer.asked for peer in (*upstream.peers, *other.peers)))
                peer = next(peer for peer in (*upstream.peers, *other.peers) if peer.asked)
                await peer.question()
                peer.say(answer(b"hello"))
            for each in asked:
                assert await each.outcome() == HELLO
            assert "0 queued" in repr(wire)
            await wire.close()


# What aiohttp does when it is left alone: why there are guards around it


@pytest.mark.parametrize(("method", "times"), [("POST", 1), ("PATCH", 1), ("GET", 2), ("PUT", 2), ("DELETE", 2)])
async def test_aiohttp_by_itself_repeats_by_method_and_never_a_post(method: str, times: int) -> None:
    async with tcp_upstream() as upstream, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{upstream.port}/"

        async def asking() -> None:
            with pytest.raises(aiohttp.ClientError):
                await session.request(method, url, data=b"[]")

        task = asyncio.create_task(asking())
        for _ in range(times):
            peer = await upstream.peer()
            await peer.question()
            peer.hang_up()
        await task
        assert upstream.unseen == 0
