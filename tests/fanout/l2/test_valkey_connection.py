"""One connection, and the two of a client, against a scripted server and a real one."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from cashier.fanout.l2.resp import MalformedReplyError, command
from cashier.fanout.l2.valkey_backend import ValkeySettings, require_primary
from cashier.fanout.l2.valkey_client import ValkeyClient
from cashier.fanout.l2.valkey_connection import ValkeyConnection
from cashier.fanout.l2.valkey_url import parse_valkey_url
from tests.fanout.l2.valkey_server import FOREVER_S, Server, Wire, l2_worker, raw_client, until, valkey_server

PING = command("PING")
# It checks nothing by itself.
SILENT = ValkeySettings(get_ms=10_000, command_ms=10_000, alone_ms=1, silence_ms=60_000)


class Script:
    """A server of one connection: what it received in each read, and what it sends."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.writer: asyncio.StreamWriter | None = None
        self._more = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        while data := await reader.read(1 << 20):
            self.received.append(data)
            self._more.set()
        writer.close()

    async def next(self) -> bytes:
        async with asyncio.timeout(FOREVER_S):
            await self._more.wait()
        self._more.clear()
        return self.received[-1]

    def send(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)


@asynccontextmanager
async def scripted() -> AsyncIterator[tuple[ValkeyConnection, Script]]:
    script = Script()
    async with await asyncio.start_server(script.serve, "127.0.0.1", 0) as server:
        loop = asyncio.get_running_loop()
        address = server.sockets[0].getsockname()
        _, connection = await loop.create_connection(ValkeyConnection, *address)
        try:
            yield connection, script
        finally:
            connection.close()
            assert await connection.ends_within(FOREVER_S)


async def test_all_commands_of_a_turn_leave_in_one_write_and_get_their_own_replies() -> None:
    async with scripted() as (connection, script):
        got: list[Any] = []
        for _ in range(6):
            connection.send(PING, got.append)
        assert await script.next() == PING * 6
        assert len(script.received) == 1
        script.send(b":0\r\n:1\r\n$1\r\n")
        await until(lambda: len(got) == 2)
        script.send(b"2\r\n-ERR 3\r\n*0\r\n$-1\r\n")
        await until(lambda: len(got) == 6)
        assert list(map(str, got)) == ["0", "1", "b'2'", "ERR 3", "[]", "None"]


async def test_a_caller_that_was_cancelled_leaves_its_place_in_the_order() -> None:
    async with scripted() as (connection, script):
        asking = asyncio.create_task(connection.ask(PING, PING))
        await script.next()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        other = asyncio.create_task(connection.ask(PING))
        await script.next()
        script.send(b":1\r\n:2\r\n:3\r\n")
        assert await other == [3]


@pytest.mark.parametrize("data", [b"garbage\r\n", b":1\r\n:2\r\n:3\r\n", b":1\r\n$2\r\nabc"], ids=repr)
async def test_malformed_and_surplus_replies_close_the_connection(data: bytes) -> None:
    async with scripted() as (connection, script):
        got: list[Any] = []
        connection.send(PING, got.append)
        connection.send(PING, got.append)
        await script.next()
        script.send(data)
        assert await connection.ends_within(FOREVER_S)
        assert connection.closed
        await until(lambda: len(got) == 2)
        assert [reply for reply in got if not isinstance(reply, MalformedReplyError)] == [1, 2][: data.count(b":")]
        with pytest.raises(MalformedReplyError):
            await connection.ask(PING)


async def test_a_lost_connection_answers_all_callers_after_they_have_called() -> None:
    async with scripted() as (connection, script):
        got: list[Any] = []
        connection.send(PING, got.append)
        await script.next()
        connection.send(PING, got.append)
        connection.close()
        connection.send(PING, got.append)
        assert got == []
        await until(lambda: len(got) == 3)
        assert all(isinstance(reply, ConnectionError) for reply in got)
        assert script.received == [PING], "nothing is sent after the close"


async def test_a_bug_of_one_caller_is_reported_and_costs_the_others_nothing() -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def broken(_reply: Any) -> None:
        raise ZeroDivisionError

    async with scripted() as (connection, script):
        connection.send(PING, broken)
        asking = asyncio.create_task(connection.ask(PING))
        await script.next()
        script.send(b":1\r\n:2\r\n")
        assert await asking == [2]
    assert [type(bug) for bug in reported] == [ZeroDivisionError]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with valkey_server() as server:
        yield server


async def test_the_connections_of_a_client_stand_in_for_each_other(server: Server) -> None:
    client = ValkeyClient(parse_valkey_url(server.url), FOREVER_S, None)
    assert client.reads.closed
    await client.open()
    reads, background = client.reads, client.background
    assert reads is not background
    reads.overdue = 1
    assert (client.reads, client.background) == (background, background)
    background.overdue = 1
    assert (client.reads, client.background) == (reads, background)
    background.overdue = 0
    background.close()
    assert (client.reads, client.background) == (reads, reads)
    reads.overdue = 0
    await client.open()
    assert client.reads is reads
    assert client.background not in (reads, background)
    await client.aclose()


def socket_of(connection: ValkeyConnection) -> socket.socket:
    assert connection._transport is not None
    found: socket.socket = connection._transport.get_extra_info("socket")
    return found


async def test_a_script_that_the_server_has_forgotten_is_sent_again(server: Server) -> None:
    async with raw_client(server) as client, l2_worker(server) as worker:
        await worker.put("u_1")
        await client.script_flush()
        reads = await asyncio.gather(*[worker.get("u_1") for _ in range(5)])
        assert all(answer is not None for answer in reads)
        await client.script_flush()
        await worker.put("u_2")
        assert await worker.get("u_2") is not None
        assert worker.level.errors.value == 0


async def test_a_connection_that_is_closed_while_idle_is_replaced_without_a_loss(server: Server) -> None:
    async with raw_client(server) as client, l2_worker(server, SILENT) as worker:
        await worker.put("u_1")
        before = worker.level._client.reads
        await client.execute_command("CLIENT", "KILL", "ADDR", f"127.0.0.1:{socket_of(before).getsockname()[1]}")
        await until(lambda: before.closed)
        assert await worker.get("u_1") is not None, "over the other one"
        await worker.level._check()
        assert worker.level._client.reads not in (before, worker.level._client.background)
        assert await worker.get("u_1") is not None
        assert worker.level.losses.value == 0


async def test_reads_go_on_over_the_other_connection_while_one_is_late(server: Server) -> None:
    settings = ValkeySettings(get_ms=100, command_ms=10_000, alone_ms=1, silence_ms=10_000)
    wire = Wire(server)
    async with await asyncio.start_server(wire.serve, "127.0.0.1", 0) as proxy:
        behind = Server()
        behind.port = proxy.sockets[0].getsockname()[1]
        async with l2_worker(behind, settings) as worker:
            await until(lambda: worker.level.reachable)
            late, good = worker.level._client.connections
            wire.only = socket_of(late).getsockname()[1]
            wire.open.clear()
            assert await worker.read("u_1") == (None, None), "the one that finds out"
            assert late.overdue == 1
            assert worker.level._client.reads is good
            await worker.put("u_1")
            assert await worker.get("u_1") is not None
            wire.open.set()
            await until(lambda: late.overdue == 0)
            assert worker.level._client.reads is late
            assert worker.level.losses.value == 0


async def test_the_reply_to_another_read_is_served_to_none(server: Server) -> None:
    """As after a proxy that lost or doubled a reply: all later ones are for other commands."""
    async with l2_worker(server) as worker:
        for key in ("u_1", "u_2"):
            await worker.put(key)
        reads = [asyncio.create_task(worker.get(key)) for key in ("u_1", "u_2")]
        await asyncio.sleep(0)
        worker.level._client.reads._waiting.rotate()
        assert await asyncio.gather(*reads) == [None, None]
        assert worker.level.losses.value == 1
        await until(lambda: worker.level.reachable)
        assert await worker.get("u_1") is not None


async def test_the_reply_to_another_command_is_noticed_by_the_check(server: Server) -> None:
    client = ValkeyClient(parse_valkey_url(server.url), FOREVER_S, None)
    await client.open()
    client.background.send(PING, lambda _: None)
    client.background._waiting.pop()
    with pytest.raises(MalformedReplyError):
        await require_primary(client.background)
    await client.aclose()


def test_a_stall_of_our_own_loop_makes_no_read_slow(server: Server) -> None:
    """On uvloop, which runs timers after the callbacks of sockets, whatever those took."""

    async def main() -> None:
        settings = ValkeySettings(get_ms=800, command_ms=10_000, alone_ms=1, silence_ms=60_000)
        ours, others = socket.socketpair()
        with ours, others:
            async with l2_worker(server, settings) as worker:
                await worker.put("u_1")
                reads = worker.level._client.reads
                connection = socket_of(reads).fileno()

                def stall() -> None:
                    ours.recv(1)
                    server.go_on()
                    assert select.select([connection], [], [], FOREVER_S)[0], "the reply came during the stall"
                    time.sleep(settings.get_ms / 1_000 + 0.05)  # longer than a read may take

                server.stall()
                reading = asyncio.create_task(worker.get("u_1"))
                while not reads._waiting:  # noqa: ASYNC110 - a connection sets no event
                    await asyncio.sleep(0)
                await asyncio.sleep(0)  # it is sent; any longer wait would be a part of its time
                asyncio.get_running_loop().add_reader(ours, stall)
                others.send(b"!")
                assert await reading is not None
                asyncio.get_running_loop().remove_reader(ours)
                assert worker.level.errors.value == 0

    uvloop.run(main())


async def test_a_stored_value_beyond_the_bounds_is_a_miss_and_no_loss(server: Server) -> None:
    async with raw_client(server) as client, l2_worker(server) as worker:
        await worker.put("u_1")
        names = worker.names("u_1")
        entry = await client.get(names[0])
        await client.set(names[0], entry[:16] + bytes(3_000_000))
        assert await worker.get("u_1") is None
        assert worker.level.losses.value == 0
        await worker.put("u_1")
        assert await worker.get("u_1") is not None
