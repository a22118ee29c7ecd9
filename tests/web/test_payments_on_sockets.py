"""Payments over real connections: who leaves, who stalls, five hundred who wait, and a server that stops."""

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

from .offers import FakeEngine
from .payments import BODY, LIVE, ONE, PAID, TOKEN, FakePayments
from .process import PATIENCE_S

LOOK = f"GET {ONE}?wait_ms=30000 HTTP/1.1\r\nHost: shop\r\nX-Payment-Token: {TOKEN}\r\n\r\n".encode()
FOLLOW = f"GET {ONE}/events HTTP/1.1\r\nHost: shop\r\nX-Payment-Token: {TOKEN}\r\n\r\n".encode()
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
    async def asking(cls, port: int, data: bytes) -> Client:
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client._writer.write(data)
        return client

    async def answer(self) -> tuple[int, bytes]:
        """Status and body, of an answer of a known length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head.split()[1]), await self.reader.readexactly(length)

    def leave(self) -> None:
        self._writer.close()

    async def gone(self) -> None:
        self.leave()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Running:
    def __init__(self, server: StoppableServer, port: int, payments: FakePayments) -> None:
        self.server = server
        self.port = port
        self.payments = payments
        self.clients: list[Client] = []

    async def asking(self, data: bytes) -> Client:
        self.clients.append(await Client.asking(self.port, data))
        return self.clients[-1]


@asynccontextmanager
async def running(drain_s: int = 10) -> AsyncIterator[Running]:
    """A server in this loop, until it has stopped."""
    payments = FakePayments()
    payments.open.clear()
    server = make_server(ServerSettings(port=0, drain_s=drain_s), lambda: app(FakeEngine(payments)))
    threshold = gc.get_threshold()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        service = Running(server, listening.getsockname()[1], payments)
        task = asyncio.create_task(server.serve([listening]))
        try:
            await until(lambda: server.started)
            yield service
        finally:
            await asyncio.gather(*(client.gone() for client in service.clients))
            server.should_exit = True
            await asyncio.wait_for(task, PATIENCE_S)
            gc.unfreeze()
            gc.set_threshold(*threshold)


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not so():  # noqa: ASYNC110 - much of it is the server's own state, which sets no event
            await asyncio.sleep(0.005)


async def test_five_hundred_long_polls_wait_at_once_and_who_leaves_frees_its_place_at_once() -> None:
    async with running() as service:
        clients = await asyncio.gather(*(service.asking(LOOK) for _ in range(500)))
        await until(lambda: service.payments.waiting == 500)
        for client in clients[::2]:
            client.leave()
        began = asyncio.get_running_loop().time()
        await until(lambda: service.payments.waiting == 250)
        assert asyncio.get_running_loop().time() - began < 25.0, "they would have waited for thirty"
        assert service.payments.cancelled == ["look"] * 250
        service.payments.told = PAID
        service.payments.open.set()
        answers = await asyncio.gather(*(client.answer() for client in clients[1::2]))
        assert {status for status, _ in answers} == {200}


async def test_a_submit_whose_client_leaves_goes_on() -> None:
    async with running() as service:
        client = await service.asking(SUBMIT)
        await service.payments.entered.wait()
        client.leave()
        await asyncio.sleep(0.3)  # long enough for the vigil to have noticed, were there one
        assert service.payments.waiting == 1
        service.payments.open.set()
        await until(lambda: service.payments.waiting == 0)
        assert service.payments.cancelled == []


async def test_a_long_poll_behind_a_submit_on_one_connection_is_answered_in_turn_with_the_longest_token_too() -> None:
    async with running() as service:
        client = await service.asking(SUBMIT + LOOK.replace(TOKEN.encode(), b"t" * 49_152))
        await service.payments.entered.wait()
        service.payments.open.set()
        assert [(await client.answer())[0] for _ in range(2)] == [202, 202]
        assert [asked.what for asked in service.payments.asked] == ["submit", "look"]
        assert service.payments.asked[1].args[1] == "t" * 49_152


async def test_a_server_that_stops_keeps_nobody_waiting_and_breaks_no_submit_off() -> None:
    async with running(drain_s=20) as service:
        polls = [await service.asking(LOOK) for _ in range(20)]
        streams = [await service.asking(FOLLOW) for _ in range(3)]
        await until(lambda: service.payments.waiting == 20 and len(service.payments.asked) == 23)
        service.payments.show(*[LIVE] * 3)
        for stream in streams:
            await stream.reader.readuntil(b"event: payment")
        service.payments.show(*[None] * 2)  # the third is told by the stop itself
        began = asyncio.get_running_loop().time()
        service.server.should_exit = True
        assert {(await poll.answer())[0] for poll in polls} == {202}
        told = [await stream.reader.read() for stream in streams]
        assert [each.count(b"event: end") for each in told] == [1, 1, 1]
        assert b'{"reason":"STOPPING"}' in b"".join(told)
        assert asyncio.get_running_loop().time() - began < 15.0, "the bound for what is under way is twenty"
        assert service.payments.stopped
        assert service.payments.cancelled == []


async def test_a_submit_under_way_is_answered_though_the_server_stops() -> None:
    async with running(drain_s=20) as service:
        service.payments.stop_waiting = lambda: None  # type: ignore[method-assign] # a submit does not wait for that
        client = await service.asking(SUBMIT)
        await service.payments.entered.wait()
        service.server.should_exit = True
        await asyncio.sleep(0.4)
        assert service.payments.waiting == 1
        service.payments.open.set()
        status, body = await client.answer()
        assert (status, json.loads(body)["status"]) == (202, "PROCESSING")
        assert service.payments.cancelled == []


async def test_readers_that_stall_are_cut_off_and_hold_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cashier.web.sse.STALL_S", 0.2)
    async with running() as service:
        stalled = socket.create_connection(("127.0.0.1", service.port))
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.sendall(FOLLOW)
        await service.payments.entered.wait()
        while not service.payments.closed.is_set():
            service.payments.show(*[LIVE] * 2000)
            await asyncio.sleep(0.01)
        service.payments.open.set()
        client = await service.asking(LOOK)
        assert (await client.answer())[0] == 202
        stalled.close()
