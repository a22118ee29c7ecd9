"""When a quiet connection is closed, on a loop whose turns are in the hands of the test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from uvicorn import Config
from uvicorn.lifespan.off import LifespanOff

from cashier.web import app, connection
from cashier.web.connection import ClientConnection, StoppableState

from .offers import FakeEngine
from .process import asking


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[ClientConnection, socket.socket]]:
    """The server's side as an object, the client's as a socket that nobody reads for us."""
    config = Config(app(FakeEngine()), ws="none", interface="asgi3", lifespan="off", log_config=None, access_log=False)
    config.load()
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    ours.setblocking(False)
    theirs.setblocking(False)
    _, made = await loop.connect_accepted_socket(
        lambda: ClientConnection(config, StoppableState(), LifespanOff(config).state, loop), ours
    )
    try:
        yield made, theirs
    finally:
        made.transport.abort()
        theirs.close()
        await asyncio.sleep(0)


async def answer_to(theirs: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(theirs, 65_536), 30)


async def test_a_request_that_waits_in_the_kernel_keeps_its_connection_open() -> None:
    async with connected() as (ours, theirs):
        theirs.send(asking())
        ours.timeout_keep_alive_handler()
        assert (await answer_to(theirs)).startswith(b"HTTP/1.1 200 ")


async def test_of_requests_that_come_in_one_go_while_it_stops_only_the_last_ends_the_connection() -> None:
    async with connected() as (ours, theirs):
        ours.server_state.draining = True
        ours.data_received(asking() * 3)
        come = b""
        while piece := await answer_to(theirs):
            come += piece
        assert come.count(b"HTTP/1.1 200 ") == 3
        assert come.count(b"connection: close") == 1


async def test_a_quiet_connection_is_closed_when_its_time_is_up() -> None:
    async with connected() as (ours, theirs):
        ours.timeout_keep_alive_handler()
        assert await answer_to(theirs) == b""


async def test_a_half_sent_request_is_not_quiet() -> None:
    async with connected() as (ours, theirs):
        ours.data_received(asking()[:40])
        ours.timeout_keep_alive_handler()
        theirs.send(asking()[40:])
        assert (await answer_to(theirs)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [b"", b"POST /v1/consult HTTP/1.1\r\nHost:"])
async def test_a_head_that_does_not_come_is_not_waited_for(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.05)
    async with connected() as (_, theirs):
        theirs.send(sent)
        assert await answer_to(theirs) == b""


async def test_a_body_that_was_answered_early_is_not_swallowed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "DISCARD_BODY_S", 0.05)
    async with connected() as (_, theirs):
        theirs.send(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nContent-Length: 10000000\r\n\r\n")
        assert (await answer_to(theirs)).startswith(b"HTTP/1.1 413 ")
        assert await answer_to(theirs) == b""
