"""Sources behind names: all addresses are used, bad ones last; changes and ages. Real sockets.

The addresses of a name are 127.0.0.2 and so on, with the same port.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import pytest

from cashier.source_errors import Unreachable
from cashier.wire.aiohttp_client import AiohttpClient, AiohttpSettings
from cashier.wire.host_pool import RETIRED
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.transport import Request, Response, Transport
from tests.support.process_files import open_sockets
from tests.wire.client_side import PATIENT, RecordedCall, answer, no_leaks, send, settle, until
from tests.wire.scripted_names import Names, resolution
from tests.wire.scripted_upstream import Peer, Upstream, silent_listener, tcp_upstream

from .conftest import Authority

HELLO = Response(200, b"hello")
A, B, C = "127.0.0.2", "127.0.0.3", "127.0.0.4"
FAILED = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@contextlib.asynccontextmanager
async def client(names: Names, port: int, url: str = "http://card:{}", **settings: Any) -> AsyncIterator[Http1Client]:
    """Not opened, so that a test sees the first connect."""
    transport = Http1Client([url.format(port)], Http1Settings(**{"ahead": 0, **PATIENT, **settings}), names.resolver)
    try:
        yield transport
    finally:
        await transport.close()
    assert not transport._hosts.draining
    assert not transport._connects


@contextlib.asynccontextmanager
async def upstreams(*hosts: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Upstream, ...]]:
    """One at each host, all with the same port."""
    async with no_leaks(), contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(tcp_upstream(tls, hosts[0]))
        others = [await stack.enter_async_context(tcp_upstream(tls, host, first.port)) for host in hosts[1:]]
        yield (first, *others)


async def serve(upstream: Upstream) -> None:
    """Answer every request on every connection until cancelled."""

    async def serve_one(peer: Peer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await peer.read_request()
                peer.write(answer(b"hello"))

    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(serve_one(await upstream._untaken.get()))


@contextlib.asynccontextmanager
async def serving(*served: Upstream) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(serve(upstream)) for upstream in served]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def ip_of(transport: Http1Client, call: RecordedCall) -> str:
    target = transport._pools[call.address_index].target
    assert target is not None
    return target.ip


async def test_calls_are_balanced_over_all_addresses_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("http1", "http1_call"):
        monkeypatch.setattr(f"cashier.wire.{module}.monotonic", lambda: 1000.0)  # no latency tells them apart
    names = Names(card=resolution(A, B, C, B))
    async with upstreams(A, B, C) as served, serving(*served), client(names, served[0].port) as transport:
        assert await send(transport).outcome() == HELLO
        await until(lambda: all(pool.idle for pool in transport._pools))
        used = []
        for _ in range(9):
            call = send(transport)
            used.append(ip_of(transport, call))
            assert await call.outcome() == HELLO
        assert sorted(used) == [A] * 3 + [B] * 3 + [C] * 3
        assert names.started == {"card": 1}


async def test_the_host_header_has_the_name() -> None:
    names = Names(card=resolution(A))
    async with upstreams(A) as (upstream,), client(names, upstream.port) as transport:
        call = send(transport)
        peer = await upstream.peer()
        assert (await peer.read_request()).headers["host"] == f"card:{upstream.port}"
        peer.write(answer(b"hello"))
        assert await call.outcome() == HELLO
        assert transport.addresses == (f"http://card:{upstream.port} ({A})",)


@pytest.mark.parametrize("bad", ["silent", "refusing", "no route"])
async def test_an_address_that_cannot_be_connected_to_costs_no_call(bad: str) -> None:
    """Each call has 100 ms, a quarter of the time after which RFC 8305 tries the next address."""
    bad_ip = "::1" if bad == "no route" else B
    names = Names(card=resolution(bad_ip, A))
    async with upstreams(A) as (upstream,), serving(upstream):
        with silent_listener(B, upstream.port) if bad == "silent" else contextlib.nullcontext():
            async with client(names, upstream.port, connect_timeout_ms=30_000) as transport:
                for _ in range(20):
                    call = send(transport)
                    assert await call.outcome() == HELLO
                    assert ip_of(transport, call) == A
                bad_pool = next(pool for pool in transport._pools if pool.target and pool.target.ip == bad_ip)
                assert not bad_pool.open
                assert bad_pool.connecting <= 1


async def test_a_connect_that_takes_long_gets_a_rival_and_loses() -> None:
    """The address worked, then fell silent."""
    names = Names(card=resolution(A, B))
    async with upstreams(A) as (upstream,), serving(upstream):
        with silent_listener(B, upstream.port):
            async with client(names, upstream.port, connect_timeout_ms=30_000) as transport:
                assert await send(transport).outcome() == HELLO
                good, bad = sorted(transport._pools, key=lambda pool: not pool.open)
                for task in list(transport._connects):
                    task.cancel()
                await until(lambda: not bad.connecting)
                transport._hosts.record_success(bad, monotonic())
                call = RecordedCall(transport, Request("/thing"), budget_ms=100)
                while call.address_index != bad.address_index:  # calls take turns
                    assert await call.outcome() == HELLO
                    call = RecordedCall(transport, Request("/thing"), budget_ms=100)
                assert bad.connecting == 1
                assert await call.outcome() == HELLO
                assert call.address_index == good.address_index
                assert transport._hosts.unproven == [bad] or bad.connecting == 1


async def test_if_no_address_connects_the_call_ends_with_the_last_failure() -> None:
    names = Names(card=resolution(A, B, C))
    async with upstreams(A) as (upstream,):
        port = upstream.port
        upstream.refuse()
        with silent_listener(B, port):
            async with client(names, port, connect_timeout_ms=60) as transport:
                calls = [send(transport) for _ in range(5)]
                for call in calls:
                    outcome = await call.outcome()
                    assert isinstance(outcome, Unreachable)
                    assert f"http://card:{port}" in outcome.detail
                    assert not outcome.sent


async def test_a_vanished_address_drains_and_a_new_one_is_used() -> None:
    names = Names(card=resolution(A, B))
    reported: list[tuple[str, ...]] = []
    async with upstreams(A, B, C) as (old, other, new), client(names, old.port, ahead=2) as transport:
        transport.on_addresses = reported.append
        await transport.open()
        await until(lambda: all(len(pool.idle) == 2 for pool in transport._pools))
        calls = {}
        for _ in range(2):
            call = send(transport)
            calls[ip_of(transport, call)] = call
        assert set(calls) == {A, B}
        before = transport.addresses
        names.answers["card"] = resolution(C, B)
        names.resolver.name("card")._resolved_s = float("-inf")
        names.resolver.name("card").refresh()
        await until(lambda: bool(reported[1:]))
        assert reported == [before, transport.addresses]
        assert sorted(transport.addresses) == [f"http://card:{old.port} ({ip})" for ip in (B, C)]
        assert calls[A].address_index == RETIRED
        assert ip_of(transport, calls[B]) == B
        (draining,) = transport._hosts.draining
        await until(lambda: len(draining.open) == 1)  # the idle one is closed
        busy = await old.peer_with_request()
        await busy.read_request()
        busy.write(answer(b"hello"))
        assert await calls[A].outcome() == HELLO
        await busy.wait_closed()
        await until(lambda: not transport._hosts.draining)
        async with serving(other, new):
            await until(lambda: all(pool.idle for pool in transport._pools))
            used: set[str] = set()
            while C not in used:  # it is warmed up, so that not every second call goes there
                call = send(transport)
                used.add(ip_of(transport, call))
                assert await call.outcome() == HELLO
            assert used <= {B, C}
        calls[B].abandon()


async def test_calls_that_wait_for_a_vanished_address_are_served_by_the_new_one() -> None:
    """A service that was not called for long: its pods have moved meanwhile."""
    names = Names(card=resolution(A))
    async with upstreams(A, B) as (old, new), serving(old, new), client(names, old.port, connections=4) as transport:
        assert await send(transport).outcome() == HELLO
        for pool in transport._pools:
            for connection in list(pool.idle):
                connection.drop()
        await until(lambda: not transport._pools[0].open)
        names.answers["card"], names.delay_s = resolution(B), 0.01
        names.resolver.name("card")._resolved_s = float("-inf")
        calls = [send(transport) for _ in range(8)]
        for call in calls:
            assert await call.outcome() == HELLO
            assert ip_of(transport, call) == B
        assert len(old.peers) == 1


async def test_a_name_that_hangs_leaves_other_sources_alone_and_its_callers_their_deadline() -> None:
    names = Names(card=resolution(A))
    async with (
        upstreams(A) as (upstream,),
        serving(upstream),
        client(names, upstream.port, "http://slow:{}") as slow,
        client(names, upstream.port) as other,
    ):
        waiting = [send(slow) for _ in range(50)]
        for _ in range(20):
            assert await send(other).outcome() == HELLO
        for call in waiting[:49]:
            call.abandon()
        names.release("slow", resolution(A))
        assert await waiting[49].outcome() == HELLO
        assert names.started == {"slow": 1, "card": 1}
        assert names.at_once == 1


async def test_a_name_that_is_not_resolved_in_the_time_of_a_connect_is_unreachable() -> None:
    names = Names()
    async with no_leaks(), client(names, 1, connect_timeout_ms=30) as transport:
        outcome = await send(transport).outcome()
        assert isinstance(outcome, Unreachable)
        assert "http://card:1: the name is not resolved within 30 ms" in outcome.detail
        assert not outcome.sent


async def test_a_first_lookup_that_fails_is_repeated_soon() -> None:
    names = Names(card=FAILED)
    async with upstreams(A) as (upstream,), serving(upstream), client(names, upstream.port, ahead=2) as transport:
        await transport.open()
        outcome = await send(transport).outcome()
        assert isinstance(outcome, Unreachable)
        assert "Temporary failure in name resolution" in outcome.detail
        assert names.started["card"] == 1
        names.answers["card"] = resolution(A)
        async with asyncio.timeout(30):
            while isinstance(await send(transport).outcome(), Unreachable):  # noqa: ASYNC110 — as a caller would
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("then", ["hangs", "fails", "is empty"])
async def test_known_addresses_take_new_connections_while_lookups_give_none(then: str) -> None:
    names = Names(card=resolution(A, B))
    async with (
        upstreams(A, B) as served,
        serving(*served),
        # A connect waits as long for the lookup.
        client(names, served[0].port, ahead=1, connect_timeout_ms=1_000) as transport,
    ):
        await transport.open()
        if then == "hangs":
            names.hang("card")
        else:
            names.answers["card"] = FAILED if then == "fails" else resolution()
        name = names.resolver.name("card")
        name._resolved_s = float("-inf")
        name.refresh()
        await settle()
        calls = [send(transport) for _ in range(20)]
        for call in calls:
            assert await call.outcome() == HELLO
        await until(lambda: sum(len(pool.open) for pool in transport._pools) > 2)
        assert len(transport.addresses) == 2


@pytest.mark.parametrize("url", ["http://127.0.0.2:{}", "http://localhost:{}", "http://card.:{}"])
async def test_names_and_literals_work_side_by_side(url: str) -> None:
    names = Names(localhost=resolution("::1", A), **{"card.": resolution(A)})
    async with upstreams(A) as (upstream,), serving(upstream), client(names, upstream.port, url) as transport:
        for _ in range(4):
            assert await send(transport).outcome() == HELLO
        assert bool(names.started) is ("127" not in url)


# TLS


@contextlib.contextmanager
def certified(authority: Authority, name: str, seen: list[str | None]) -> Any:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.ca.issue_cert(name).configure_cert(tls)
    tls.sni_callback = lambda _socket, server_name, _context: seen.append(server_name)
    yield tls


def http1(names: Names, url: str, ca_file: str) -> Transport:
    return Http1Client([url], Http1Settings(ahead=0, ca_file=ca_file, **PATIENT), names.resolver)


def aiohttp(names: Names, url: str, ca_file: str) -> Transport:
    return AiohttpClient([url], AiohttpSettings(ca_file=ca_file, **PATIENT), names.resolver)


@pytest.mark.parametrize("make", [http1, aiohttp])
@pytest.mark.parametrize("host", ["card.example", "card.example.", "CARD.example"])
async def test_the_certificate_is_checked_against_the_name(make: Any, host: str, authority: Authority) -> None:
    names = Names(**{"card.example": resolution(A), "card.example.": resolution(A)})
    seen: list[str | None] = []
    with certified(authority, "card.example", seen) as tls:
        async with upstreams(A, tls=tls) as (upstream,), serving(upstream):
            transport = make(names, f"https://{host}:{upstream.port}", authority.ca_file)
            assert await send(transport).outcome() == HELLO
            assert seen == ["card.example"]
            await transport.close()


@pytest.mark.parametrize("make", [http1, aiohttp])
@pytest.mark.parametrize("certified_name", ["other.example", A])
async def test_a_certificate_for_the_address_or_another_name_is_refused(
    make: Any, certified_name: str, authority: Authority
) -> None:
    names = Names(**{"card.example": resolution(A)})
    with certified(authority, certified_name, []) as tls:
        async with upstreams(A, tls=tls) as (upstream,):
            transport = make(names, f"https://card.example:{upstream.port}", authority.ca_file)
            outcome = await send(transport).outcome()
            assert isinstance(outcome, Unreachable)
            assert "certificate" in outcome.detail.lower()
            await transport.close()


# Age


async def test_a_connection_that_is_too_old_is_replaced_before_it_is_closed() -> None:
    async with upstreams(A) as (upstream,), client(Names(), upstream.port, f"http://{A}:{{}}") as transport:
        first = send(transport)
        old = await upstream.peer()
        (pool,) = transport._pools
        (connection,) = pool.open
        connection.expires_s = monotonic()
        await old.read_request()
        old.write(answer(b"hello"))
        assert await first.outcome() == HELLO  # a request in flight is never cut
        second = send(transport)  # served by the old one while the new one is opened
        await old.read_request()
        new = await upstream.peer()
        await until(lambda: bool(pool.idle))
        old.write(answer(b"hello"))
        assert await second.outcome() == HELLO
        await old.wait_closed()
        third = send(transport)
        await new.read_request()
        new.write(answer(b"hello"))
        assert await third.outcome() == HELLO
        assert len(upstream.peers) == 2


async def test_an_idle_connection_that_is_too_old_is_closed() -> None:
    async with upstreams(A) as (upstream,), client(Names(), upstream.port, f"http://{A}:{{}}", ahead=2) as transport:
        transport._settings = Http1Settings(max_age_s=0.02, **PATIENT)
        await transport.open()
        assert len(transport._pools[0].open) == 2
        await until(lambda: not transport._pools[0].open)


async def test_connections_end_at_different_times_before_their_largest_age() -> None:
    async with upstreams(A) as (upstream,), client(Names(), upstream.port, f"http://{A}:{{}}", ahead=20) as transport:
        started_s = asyncio.get_running_loop().time()
        await transport.open()
        ended_s = asyncio.get_running_loop().time()
        ages = [connection.expires_s - started_s for connection in transport._pools[0].open]
        assert len(set(ages)) == 20
        assert all(240 <= age <= 300 + ended_s - started_s + 0.01 for age in ages)


# aiohttp


async def test_aiohttp_takes_its_addresses_from_the_same_lookups() -> None:
    names = Names(card=resolution(A, B))
    async with upstreams(A, B) as served, serving(*served):
        transports = [
            AiohttpClient([f"http://card:{served[0].port}"], AiohttpSettings(**PATIENT), names.resolver)
            for _ in range(3)
        ]
        calls = [send(transport) for transport in transports for _ in range(4)]
        for call in calls:
            assert await call.outcome() == HELLO
        assert names.started == {"card": 1}
        assert all(upstream.peers for upstream in served)
        for transport in transports:
            await transport.close()


async def test_aiohttp_leaves_a_hung_lookup_to_the_callers_deadline() -> None:
    names = Names(card=resolution(A))
    async with upstreams(A) as (upstream,), serving(upstream):
        slow = AiohttpClient([f"http://slow:{upstream.port}"], AiohttpSettings(connect_timeout_ms=30), names.resolver)
        other = AiohttpClient([f"http://card:{upstream.port}"], AiohttpSettings(**PATIENT), names.resolver)
        waiting = send(slow)
        assert await send(other).outcome() == HELLO
        outcome = await waiting.outcome()
        assert isinstance(outcome, Unreachable)
        assert not outcome.sent
        await slow.close()
        await other.close()


async def test_aiohttps_connections_are_replaced_at_their_largest_age() -> None:
    async with upstreams(A) as (upstream,):
        transport = AiohttpClient([f"http://{A}:{upstream.port}"], AiohttpSettings(**PATIENT))
        (pool,) = transport._pools
        first = send(transport)
        old = await upstream.peer()
        await old.read_request()
        pool.session().expires_s = 0.0
        second = send(transport)  # while the first is in flight
        new = await upstream.peer()
        await new.read_request()
        for peer, call in ((old, first), (new, second)):
            peer.write(answer(b"hello"))
            assert await call.outcome() == HELLO
        await old.wait_closed()
        third = send(transport)
        await new.read_request()
        new.write(answer(b"hello"))
        assert await third.outcome() == HELLO
        await transport.close()


async def test_a_closed_client_leaves_no_lookup_behind() -> None:
    names = Names()
    async with no_leaks():
        sockets = open_sockets(os.getpid())
        clients: list[Transport] = [
            Http1Client(["http://card:1"], None, names.resolver),
            AiohttpClient(["http://card:1"], None, names.resolver),
        ]
        calls = [send(transport) for transport in clients]
        await until(lambda: bool(names.started))
        for transport in clients:
            await transport.close()
        for call in calls:
            assert isinstance(await call.outcome(), Unreachable)
        assert open_sockets(os.getpid()) == sockets


async def test_a_source_whose_addresses_are_all_silent_gets_few_connects_beside_those_of_its_calls() -> None:
    hosts = [f"127.0.1.{number}" for number in range(1, 5)]
    names = Names(card=resolution(*hosts))
    async with no_leaks():
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(silent_listener(hosts[0]))
            for host in hosts[1:]:
                stack.enter_context(silent_listener(host, port))
            async with client(names, port, connect_timeout_ms=200) as transport:
                calls = [RecordedCall(transport, Request("/thing"), budget_ms=40) for _ in range(20)]
                for call in calls:
                    assert isinstance(await call.outcome(), Unreachable)
                assert not any(pool.proven for pool in transport._pools)
                calls = [RecordedCall(transport, Request("/thing"), budget_ms=40) for _ in range(20)]
                await asyncio.sleep(0.1)  # ten times the least delay of RFC 8305
                assert sum(pool.connecting for pool in transport._pools) <= 20 + len(hosts)
                for call in calls:
                    call.abandon()


async def test_of_two_urls_one_whose_name_hangs_costs_no_call() -> None:
    names = Names(card=resolution(A))
    async with upstreams(A) as (upstream,), serving(upstream):
        urls = [f"http://hangs:{upstream.port}", f"http://card:{upstream.port}"]
        transport = Http1Client(urls, Http1Settings(ahead=0, connect_timeout_ms=30_000), names.resolver)
        for _ in range(20):
            assert await RecordedCall(transport, Request("/thing"), budget_ms=100).outcome() == HELLO
        assert names.started["hangs"] == 1
        await transport.close()
