"""A server stop: accepted requests are answered, new connections refused, idle ones closed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from uvicorn.config import STARTUP_FAILURE

from tests.web.fake_service import BODY
from tests.web.server_process import GET, TIMEOUT_S, RawClient, ServerProcess, consult_request, running_server

pytestmark = pytest.mark.processes

ENDED = (asyncio.IncompleteReadError, ConnectionError)


@dataclass
class Load:
    """Clients that send requests until their connections are refused."""

    port: int
    seen: Counter[str] = field(default_factory=Counter)
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self, *, keeps: bool) -> None:
        """Send requests over one connection (`keeps`), or over a new one each time."""
        while (connection := await self._connect()) is not None:
            reader, writer = connection
            try:
                while await self._request(reader, writer) and keeps:
                    pass
            finally:
                writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        try:
            return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), TIMEOUT_S)
        except ConnectionRefusedError:
            self.seen["refused"] += 1
            return None

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays open. A sent request without a complete response is lost."""
        writer.write(consult_request())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        except ENDED:
            self.seen["lost"] += 1
            return False
        self.seen["answered" if head.startswith(b"HTTP/1.1 200") else "failed"] += 1
        if self.seen["answered"] >= 500:
            self.enough.set()
        closes = b"connection: close" in head
        self.seen["closing"] += closes
        return not closes


@pytest.mark.parametrize(("workers", "whole_group"), [(1, False), (2, False), (2, True)])
async def test_a_stop_loses_no_accepted_request(workers: int, whole_group: bool) -> None:
    """`whole_group`: the workers receive the signal too, as from Ctrl+C or systemd."""
    with running_server(delay_ms=20, workers=workers) as server:
        load = Load(server.port)
        clients = [asyncio.create_task(load.client(keeps=number % 2 == 0)) for number in range(30)]
        await asyncio.wait_for(load.enough.wait(), TIMEOUT_S)
        (os.killpg if whole_group else os.kill)(server.process.pid, signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*clients), TIMEOUT_S)
        code = await asyncio.to_thread(server.process.wait, TIMEOUT_S)
        assert [server.line() for _ in range(workers)] == ["closed"] * workers
    assert load.seen["lost"] == load.seen["failed"] == 0
    assert load.seen["refused"] == len(clients)
    assert load.seen["closing"] >= len(clients) / 2
    assert code == (-signal.SIGTERM if workers == 1 else 0)


def test_a_draining_server_is_not_ready_and_closes_its_connections() -> None:
    with (
        running_server(delay_ms=1000) as server,
        RawClient(server.port) as busy,
        RawClient(server.port) as probe,
        RawClient(server.port) as idle,
    ):
        busy.send(consult_request())
        probe.send(GET % b"/readyz")
        assert probe.read_response().status == 200
        server.process.send_signal(signal.SIGTERM)
        response = _first_unready_status(probe)
        assert response == 503
        answered = busy.read_response()
        assert (answered.status, answered.closes_connection) == (200, True)
        assert busy.is_closed()
        assert idle.is_closed()
        server.process.wait(TIMEOUT_S)


def _first_unready_status(probe: RawClient) -> int:
    """Query readiness until the signal has arrived."""
    while True:
        probe.send(GET % b"/readyz")
        response = probe.read_response()
        if response.status != 200:
            assert "draining" in response.json["detail"]
            return response.status


def test_a_stopping_server_answers_all_pipelined_requests() -> None:
    with running_server(delay_ms=200) as server, RawClient(server.port) as client:
        client.send(consult_request() * 5)
        first = client.read_response()
        server.process.send_signal(signal.SIGTERM)
        replies = [first, *(client.read_response() for _ in range(4))]
        assert [response.status for response in replies] == [200] * 5
        assert [response.closes_connection for response in replies] == [False] * 4 + [True]
        assert client.is_closed()


def test_idle_connections_do_not_delay_a_stop() -> None:
    with running_server() as server:
        idle = [RawClient(server.port) for _ in range(10)]
        for client in idle:
            client.send(consult_request())
            assert client.read_response().status == 200
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 5.0, "the drain time is 10 s"
        for client in idle:
            assert client.is_closed()
            client.socket.close()


def test_an_endless_request_delays_a_stop_by_drain_s() -> None:
    with running_server(drain_s=1) as server, RawClient(server.port) as client:
        client.send(consult_request(BODY.replace(b"o_1001", b"o_hang")))
        assert server.line().startswith("started")
        began = time.monotonic()
        server.stop()
        assert 1.0 <= time.monotonic() - began < 6.0


def test_connections_in_the_accept_queue_are_served_during_a_stop() -> None:
    """The loop is blocked, so only the kernel accepts; then the stop is the first thing it sees."""
    with running_server() as server, RawClient(server.port) as blocker:
        blocker.send(consult_request(BODY.replace(b"o_1001", b"o_block")))
        assert server.line() == "blocked"
        waiting = [RawClient(server.port) for _ in range(5)]
        for client in waiting:
            client.send(consult_request())
        server.process.send_signal(signal.SIGTERM)
        for client in (blocker, *waiting):
            assert client.read_response().status == 200
            client.socket.close()


def test_new_connections_are_refused_while_workers_drain() -> None:
    with running_server(workers=2, drain_s=30) as server:
        with RawClient(server.port) as client:
            client.send(consult_request(BODY.replace(b"o_1001", b"o_hang")))
            assert server.line().startswith("started")
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionRefusedError):
                _connect_until_refused(server.port)
            assert server.process.poll() is None, "one worker is still busy"
        server.process.wait(TIMEOUT_S)


def _connect_until_refused(port: int) -> None:
    """The first connections may precede the signal."""
    while True:
        RawClient(port).socket.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_cannot_open_its_service_fails_to_start(workers: int) -> None:
    failing = ServerProcess(delay_ms=-1, workers=workers)
    assert failing.port == 0
    assert failing.process.wait(TIMEOUT_S) == STARTUP_FAILURE
    assert failing.process.stdout is not None
    failing.process.stdout.close()
