"""Payments over real connections: disconnects, stalled readers, many long polls, a server stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from cashier.web import app
from cashier.web.server import ServerSettings, StoppableServer, make_server
from tests.web.fake_payments import BODY, LIVE, PAID, PAYMENT_PATH, TOKEN, FakePayments
from tests.web.fake_service import FakeService
from tests.web.server_process import TIMEOUT_S

LOOK = f"GET {PAYMENT_PATH}?wait_ms=30000 HTTP/1.1\r\nHost: shop\r\nX-Payment-Token: {TOKEN}\r\n\r\n".encode()
FOLLOW = f"GET {PAYMENT_PATH}/events HTTP/1.1\r\nHost: shop\r\nX-Payment-Token: {TOKEN}\r\n\r\n".encode()
SUBMIT = (
    f"POST /v1/payments HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nIdempotency-Key: k-1\r\n"
    f"Content-Length: {len(BODY)}\r\n\r\n"
).encode() + BODY


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int, data: bytes) -> Client:
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client._writer.write(data)
        return client

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of a response with Content-Length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head.split()[1]), await self.reader.readexactly(length)

    def leave(self) -> None:
        self._writer.close()

    async def close(self) -> None:
        self.leave()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Running:
    def __init__(self, server: StoppableServer, port: int, payments: FakePayments) -> None:
        self.server = server
        self.port = port
        self.payments = payments
        self.clients: list[Client] = []

    async def connect(self, data: bytes) -> Client:
        self.clients.append(await Client.connect(self.port, data))
        return self.clients[-1]


@asynccontextmanager
async def running(drain_s: int = 10) -> AsyncIterator[Running]:
    """A server in this event loop."""
    payments = FakePayments()
    payments.open.clear()
    server = make_server(ServerSettings(port=0, drain_s=drain_s), lambda: app(FakeService(payments)))
    threshold = gc.get_threshold()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        service = Running(server, listening.getsockname()[1], payments)
        task = asyncio.create_task(server.serve([listening]))
        try:
            await until(lambda: server.started)
            yield service
        finally:
            await asyncio.gather(*(client.close() for client in service.clients))
            server.should_exit = True
            await asyncio.wait_for(task, TIMEOUT_S)
            gc.set_threshold(*threshold)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - the server's state sets no event
            await asyncio.sleep(0.005)


async def test_of_five_hundred_long_polls_a_disconnected_one_ends_at_once() -> None:
    async with running() as service:
        clients = await asyncio.gather(*(service.connect(LOOK) for _ in range(500)))
        await until(lambda: service.payments.waiting == 500)
        for client in clients[::2]:
            client.leave()
        began = asyncio.get_running_loop().time()
        await until(lambda: service.payments.waiting == 250)
        assert asyncio.get_running_loop().time() - began < 25.0, "the long polls wait 30 s"
        assert service.payments.cancelled == ["look"] * 250
        service.payments.outcome = PAID
        service.payments.open.set()
        answers = await asyncio.gather(*(client.answer() for client in clients[1::2]))
        assert {status for status, _ in answers} == {200}


async def test_a_submit_continues_after_a_disconnect() -> None:
    async with running() as service:
        client = await service.connect(SUBMIT)
        await service.payments.entered.wait()
        client.leave()
        await asyncio.sleep(0.3)  # longer than a disconnect watch would take
        assert service.payments.waiting == 1
        service.payments.open.set()
        await until(lambda: service.payments.waiting == 0)
        assert service.payments.cancelled == []


async def test_a_pipelined_long_poll_with_the_longest_token_is_answered_after_the_submit() -> None:
    async with running() as service:
        client = await service.connect(SUBMIT + LOOK.replace(TOKEN.encode(), b"t" * 49_152))
        await service.payments.entered.wait()
        service.payments.open.set()
        assert [(await client.answer())[0] for _ in range(2)] == [202, 202]
        assert [recorded.operation for recorded in service.payments.calls] == ["submit", "look"]
        assert service.payments.calls[1].args[1] == "t" * 49_152


async def test_a_stopping_server_ends_long_polls_and_streams() -> None:
    async with running(drain_s=20) as service:
        polls = [await service.connect(LOOK) for _ in range(20)]
        streams = [await service.connect(FOLLOW) for _ in range(3)]
        await until(lambda: service.payments.waiting == 20 and len(service.payments.calls) == 23)
        service.payments.publish(*[LIVE] * 3)
        for stream in streams:
            await stream.reader.readuntil(b"event: payment")
        service.payments.publish(*[None] * 2)  # the stop itself ends the third
        began = asyncio.get_running_loop().time()
        service.server.should_exit = True
        assert {(await poll.answer())[0] for poll in polls} == {202}
        bodies = [await stream.reader.read() for stream in streams]
        assert [body.count(b"event: end") for body in bodies] == [1, 1, 1]
        assert b'{"reason":"STOPPING"}' in b"".join(bodies)
        assert asyncio.get_running_loop().time() - began < 15.0, "the drain time is 20 s"
        assert service.payments.stopped
        assert service.payments.cancelled == []


async def test_a_stopping_server_answers_a_submit_in_progress() -> None:
    async with running(drain_s=20) as service:
        service.payments.stop_waiting = lambda: None  # type: ignore[method-assign] # must not release the submit
        client = await service.connect(SUBMIT)
        await service.payments.entered.wait()
        service.server.should_exit = True
        await asyncio.sleep(0.4)
        assert service.payments.waiting == 1
        service.payments.open.set()
        status, body = await client.answer()
        assert (status, json.loads(body)["status"]) == (202, "PROCESSING")
        assert service.payments.cancelled == []


async def test_a_stalled_reader_is_disconnected_and_blocks_no_other_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cashier.web.sse.STALL_S", 0.2)
    async with running() as service:
        stalled = socket.create_connection(("127.0.0.1", service.port))
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.sendall(FOLLOW)
        await service.payments.entered.wait()
        while not service.payments.closed.is_set():
            service.payments.publish(*[LIVE] * 2000)
            await asyncio.sleep(0.01)
        service.payments.open.set()
        client = await service.connect(LOOK)
        assert (await client.answer())[0] == 202
        stalled.close()
