"""Behaviour of the guards around aiohttp that no upstream can reproduce reliably."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest

from cashier.source_errors import Garbled, Shed
from cashier.wire.aiohttp_client import AiohttpClient, AiohttpSettings
from cashier.wire.aiohttp_guards import fail_when_closed
from tests.wire.client_side import PATIENT, no_leaks, send
from tests.wire.scripted_upstream import tcp_upstream, unused_port


async def test_a_connection_that_breaks_after_its_answer_reports_no_bug() -> None:
    bugs: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: bugs.append(context))
    closed = loop.create_future()
    answer: Any = SimpleNamespace(connection=SimpleNamespace(protocol=SimpleNamespace(closed=closed)), content=None)
    for _ in range(3):
        with fail_when_closed(answer, Garbled("never")):
            pass
    closed.set_exception(ConnectionResetError())
    await asyncio.sleep(0)
    del answer, closed
    gc.collect()
    assert bugs == []


async def test_calls_beyond_the_connections_and_the_queue_are_refused_at_once() -> None:
    async with no_leaks(), tcp_upstream() as upstream:
        transport = AiohttpClient(
            [f"http://127.0.0.1:{upstream.port}"], AiohttpSettings(connections=1, queue=2, **PATIENT)
        )
        waiting = [send(transport) for _ in range(3)]
        assert isinstance(await send(transport).outcome(), Shed)
        assert not any(call.outcomes for call in waiting)
        await transport.close()


async def test_an_address_that_refuses_is_skipped() -> None:
    async with no_leaks(), tcp_upstream() as upstream:
        transport = AiohttpClient(
            [f"http://127.0.0.1:{unused_port()}", f"http://127.0.0.1:{upstream.port}"], AiohttpSettings(**PATIENT)
        )
        for _ in range(4):
            call = send(transport)
            peer = await upstream.peer_with_request()
            await peer.read_request()
            peer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await call.outcome()
        assert transport._pools[0].back_off.failures >= 1
        await transport.close()


async def test_a_proxy_from_the_environment_is_used_only_if_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with no_leaks(), tcp_upstream() as upstream, tcp_upstream() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        for trusted, expected in ((False, upstream), (True, proxy)):
            transport = AiohttpClient(
                [f"http://127.0.0.1:{upstream.port}"], AiohttpSettings(trust_env=trusted, **PATIENT)
            )
            call = send(transport)
            peer = await expected.peer()
            await peer.read_request()
            peer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await call.outcome()
            await transport.close()
