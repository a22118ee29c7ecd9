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

from cashier.web.connection import CLOSE_GRACE_S
from tests.support.process_files import worker_pids
from tests.web.fake_service import BODY
from tests.web.server_process import GET, TIMEOUT_S, RawClient, ServerProcess, consult_request, running_server

pytestmark = pytest.mark.processes

ENDLESS_S = 600
HELD = consult_request(BODY.replace(b"o_1001", b"o_held"))
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
            reader, writer, since_s = connection
            try:
                while (since_s := await self._request(reader, writer, since_s)) and keeps:
                    pass
            finally:
                writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, float] | None:
        since_s = time.monotonic()
        try:
            return *await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), TIMEOUT_S), since_s
        except ConnectionRefusedError:
            self.seen["refused"] += 1
            return None

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, since_s: float) -> float:
        """Return when the request was sent, or 0 if the connection ends.

        Without a complete response it is lost, unless it may have come after the server's wait for
        it, because this process was stopped. That wait began after `since_s`.
        """
        sent_s = time.monotonic()
        writer.write(consult_request())
        in_time = time.monotonic() - since_s < CLOSE_GRACE_S
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        except ENDED:
            self.seen["lost" if in_time else "late"] += 1
            return 0
        self.seen["answered" if head.startswith(b"HTTP/1.1 200") else "failed"] += 1
        if self.seen["answered"] >= 500:
            self.enough.set()
        closes = b"connection: close" in head
        self.seen["closing"] += closes
        return 0 if closes else sent_s


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
    assert load.seen["closing"] + load.seen["late"] >= len(clients) / 2
    assert code == (-signal.SIGTERM if workers == 1 else 0)


def test_a_draining_server_is_not_ready_and_closes_its_connections() -> None:
    with (
        running_server(shutdown_delay_s=ENDLESS_S) as server,
        RawClient(server.port) as busy,
        RawClient(server.port) as idle,
    ):
        busy.send(HELD)
        assert server.line() == "held"
        with RawClient(server.port) as probe:
            probe.send(GET % b"/readyz")
            assert probe.read_response().status == 200
        server.process.send_signal(signal.SIGTERM)
        assert _first_unready_status(server.port) == 503
        answered = busy.read_response()
        assert (answered.status, answered.closes_connection) == (200, True)
        assert busy.is_closed()
        server.process.send_signal(signal.SIGTERM)
        assert idle.is_closed()
        server.process.wait(TIMEOUT_S)


def _first_unready_status(port: int) -> int:
    """Query readiness until the signal has arrived, each time over a connection of its own."""
    while True:
        with RawClient(port) as probe:
            probe.send(GET % b"/readyz")
            response = probe.read_response()
        if response.status != 200:
            assert "draining" in response.json["detail"]
            assert response.closes_connection
            return response.status


def test_a_stopping_server_answers_all_pipelined_requests() -> None:
    with running_server() as server, RawClient(server.port) as client:
        client.send(consult_request() + HELD + consult_request() * 3)
        first = client.read_response()
        assert server.line() == "held"
        server.process.send_signal(signal.SIGTERM)
        replies = [first, *(client.read_response() for _ in range(4))]
        assert [response.status for response in replies] == [200] * 5
        assert [response.closes_connection for response in replies] == [False] * 4 + [True]
        assert client.is_closed()


def test_idle_connections_do_not_delay_a_stop() -> None:
    with running_server(drain_s=ENDLESS_S) as server:
        idle = [RawClient(server.port) for _ in range(10)]
        for client in idle:
            client.send(consult_request())
            assert client.read_response().status == 200
        server.stop()
        for client in idle:
            assert client.is_closed()
            client.socket.close()


def test_an_endless_request_delays_a_stop_by_drain_s() -> None:
    with running_server(drain_s=1) as server, RawClient(server.port) as client:
        client.send(consult_request(BODY.replace(b"o_1001", b"o_hang")))
        assert server.line().startswith("started")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began >= 1.0


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


def wait_until_draining(server: ServerProcess) -> None:
    while server.request(GET % b"/readyz").status == 200:
        pass


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_during_the_delay_everything_is_served_on_connections_that_close(workers: int, second: signal.Signals) -> None:
    with running_server(workers=workers, shutdown_delay_s=ENDLESS_S) as server:
        with RawClient(server.port) as busy, RawClient(server.port) as used, RawClient(server.port) as unused:
            used.send(consult_request())
            assert used.read_response().status == 200
            busy.send(consult_request(BODY.replace(b"o_1001", b"o_hang")))
            assert server.line().startswith("started")
            server.process.send_signal(signal.SIGTERM)
            wait_until_draining(server)
            late = RawClient(server.port)
            time.sleep(0.5)  # longer than a stopping server waits for the request of a connection
            for client in (used, unused, late):
                client.send(consult_request())
                response = client.read_response()
                assert (response.status, response.closes_connection) == (200, True)
                assert client.is_closed()
            late.socket.close()
            assert server.request(GET % b"/readyz").closes_connection
            assert server.process.poll() is None
        server.process.send_signal(second)
        assert server.process.wait(TIMEOUT_S) in (0, -signal.SIGTERM)
        with pytest.raises(ConnectionRefusedError):
            RawClient(server.port)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_delay_ends_by_itself(workers: int) -> None:
    with running_server(workers=workers, shutdown_delay_s=1.0) as server:
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(TIMEOUT_S) in (0, -signal.SIGTERM)
        assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_has_no_delay(workers: int) -> None:
    with running_server(workers=workers, shutdown_delay_s=ENDLESS_S) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(TIMEOUT_S) == 0


def test_a_signal_to_all_processes_does_not_end_the_delay_of_the_workers() -> None:
    """systemd sends SIGTERM to every process, and the supervisor forwards its own."""
    with running_server(workers=2, shutdown_delay_s=ENDLESS_S) as server:
        os.killpg(server.process.pid, signal.SIGTERM)
        wait_until_draining(server)
        time.sleep(0.5)
        assert server.request(consult_request()).status == 200
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(TIMEOUT_S) == 0


def test_workers_that_are_killed_during_the_delay_are_not_replaced() -> None:
    with running_server(workers=2, shutdown_delay_s=ENDLESS_S) as server:
        first, second = worker_pids(server.process.pid)
        server.process.send_signal(signal.SIGTERM)
        wait_until_draining(server)
        os.kill(first, signal.SIGKILL)
        for _ in range(10):
            assert server.request(consult_request()).status == 200
        os.kill(second, signal.SIGKILL)
        assert server.process.wait(TIMEOUT_S) == 0, "nothing is left to wait for"


def test_workers_whose_supervisor_was_killed_stop_without_the_delay() -> None:
    with running_server(workers=2, shutdown_delay_s=ENDLESS_S) as server:
        server.process.kill()
        assert [server.line(), server.line()] == ["closed"] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_hang_up_during_a_stop_changes_nothing(workers: int) -> None:
    with running_server(workers=workers, shutdown_delay_s=ENDLESS_S) as server:
        server.process.send_signal(signal.SIGTERM)
        wait_until_draining(server)
        os.killpg(server.process.pid, signal.SIGHUP)
        assert server.request(consult_request()).status == 200
        server.process.send_signal(signal.SIGTERM)
        os.killpg(server.process.pid, signal.SIGHUP)
        assert server.process.wait(TIMEOUT_S) in (0, -signal.SIGTERM)
