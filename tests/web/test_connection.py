"""When an idle connection is closed."""

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
from tests.web.fake_service import FakeService
from tests.web.server_process import consult_request


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[ClientConnection, socket.socket]]:
    """The connection's protocol on the server side, and the client's raw socket."""
    config = Config(app(FakeService()), ws="none", interface="asgi3", lifespan="off", log_config=None, access_log=False)
    config.load()
    server_socket, client_socket = socket.socketpair()
    loop = asyncio.get_running_loop()
    server_socket.setblocking(False)
    client_socket.setblocking(False)
    _, protocol = await loop.connect_accepted_socket(
        lambda: ClientConnection(config, StoppableState(), LifespanOff(config).state, loop), server_socket
    )
    try:
        yield protocol, client_socket
    finally:
        protocol.transport.abort()
        client_socket.close()
        await asyncio.sleep(0)


async def receive_from(client_socket: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client_socket, 65_536), 30)


async def test_a_request_in_the_kernel_buffer_keeps_its_connection_open() -> None:
    async with connected() as (protocol, client_socket):
        client_socket.send(consult_request())
        protocol.timeout_keep_alive_handler()
        assert (await receive_from(client_socket)).startswith(b"HTTP/1.1 200 ")


async def test_during_a_stop_only_the_last_pipelined_response_closes_the_connection() -> None:
    async with connected() as (protocol, client_socket):
        protocol.server_state.draining = True
        protocol.data_received(consult_request() * 3)
        received = b""
        while piece := await receive_from(client_socket):
            received += piece
        assert received.count(b"HTTP/1.1 200 ") == 3
        assert received.count(b"connection: close") == 1


async def test_an_idle_connection_is_closed_after_its_timeout() -> None:
    async with connected() as (protocol, client_socket):
        protocol.timeout_keep_alive_handler()
        assert await receive_from(client_socket) == b""


async def test_a_partially_sent_request_keeps_its_connection_open() -> None:
    async with connected() as (protocol, client_socket):
        protocol.data_received(consult_request()[:40])
        protocol.timeout_keep_alive_handler()
        client_socket.send(consult_request()[40:])
        assert (await receive_from(client_socket)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [b"", b"POST /v1/consult HTTP/1.1\r\nHost:"])
async def test_a_connection_without_a_complete_head_is_closed_after_a_timeout(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.05)
    async with connected() as (_, client_socket):
        client_socket.send(sent)
        assert await receive_from(client_socket) == b""


async def test_the_rest_of_an_answered_body_is_discarded_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "DISCARD_BODY_S", 0.05)
    async with connected() as (_, client_socket):
        client_socket.send(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nContent-Length: 10000000\r\n\r\n")
        assert (await receive_from(client_socket)).startswith(b"HTTP/1.1 413 ")
        assert await receive_from(client_socket) == b""
