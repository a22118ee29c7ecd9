"""A server that is told to stop while everybody asks: whoever got in is answered, nobody new gets in, and it ends soon."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from uvicorn.config import STARTUP_FAILURE

from .offers import BODY
from .process import GET, PATIENCE_S, Served, Talk, asking, served

pytestmark = pytest.mark.processes

ENDED = (asyncio.IncompleteReadError, ConnectionError)


@dataclass
class Load:
    """Clients that ask and ask, until nobody lets them in any more."""

    port: int
    seen: Counter[str] = field(default_factory=Counter)
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self, *, keeps: bool) -> None:
        """Asks over one connection as long as it may, or each time over a new one."""
        while (connection := await self._connect()) is not None:
            reader, writer = connection
            try:
                while await self._ask(reader, writer) and keeps:
                    pass
            finally:
                writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        try:
            return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), PATIENCE_S)
        except ConnectionRefusedError:
            self.seen["refused"] += 1
            return None

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may be used again. A request that was sent and not answered whole is lost."""
        writer.write(asking())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        except ENDED:
            self.seen["lost"] += 1
            return False
        self.seen["answered" if head.startswith(b"HTTP/1.1 200") else "failed"] += 1
        if self.seen["answered"] >= 500:
            self.enough.set()
        told = b"connection: close" in head
        self.seen["told"] += told
        return not told


@pytest.mark.parametrize(("workers", "whole_group"), [(1, False), (2, False), (2, True)])
async def test_no_request_that_got_in_is_lost(workers: int, whole_group: bool) -> None:
    """`whole_group`: workers get the signal too, as from Ctrl+C or from systemd."""
    with served(workers, delay_ms=20) as server:
        load = Load(server.port)
        clients = [asyncio.create_task(load.client(keeps=number % 2 == 0)) for number in range(30)]
        await asyncio.wait_for(load.enough.wait(), PATIENCE_S)
        (os.killpg if whole_group else os.kill)(server.process.pid, signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*clients), PATIENCE_S)
        code = await asyncio.to_thread(server.process.wait, PATIENCE_S)
        assert [server.line() for _ in range(workers)] == ["closed"] * workers
    assert load.seen["lost"] == load.seen["failed"] == 0
    assert load.seen["refused"] == len(clients)
    assert load.seen["told"] >= len(clients) / 2
    assert code == (-signal.SIGTERM if workers == 1 else 0)


def test_while_it_drains_it_says_so_and_ends_the_connection() -> None:
    with (
        served(delay_ms=1000) as server,
        Talk(server.port) as busy,
        Talk(server.port) as probe,
        Talk(server.port) as idle,
    ):
        busy.say(asking())
        probe.say(GET % b"/readyz")
        assert probe.reply().status == 200
        server.process.send_signal(signal.SIGTERM)
        reply = _first_that_is_not_ready(probe)
        assert reply == 503
        answered = busy.reply()
        assert (answered.status, answered.last) == (200, True)
        assert busy.ended()
        assert idle.ended()
        server.process.wait(PATIENCE_S)


def _first_that_is_not_ready(probe: Talk) -> int:
    """The signal is on its way; readiness is asked for until it has come."""
    while True:
        probe.say(GET % b"/readyz")
        reply = probe.reply()
        if reply.status != 200:
            assert "draining" in reply.json["detail"]
            return reply.status


def test_requests_sent_in_one_go_are_all_answered_though_it_stops() -> None:
    with served(delay_ms=200) as server, Talk(server.port) as talk:
        talk.say(asking() * 5)
        first = talk.reply()
        server.process.send_signal(signal.SIGTERM)
        replies = [first, *(talk.reply() for _ in range(4))]
        assert [reply.status for reply in replies] == [200] * 5
        assert [reply.last for reply in replies] == [False] * 4 + [True]
        assert talk.ended()


def test_idle_connections_do_not_hold_it_up() -> None:
    with served() as server:
        idle = [Talk(server.port) for _ in range(10)]
        for talk in idle:
            talk.say(asking())
            assert talk.reply().status == 200
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 5.0, "the bound for requests under way is ten"
        for talk in idle:
            assert talk.ended()
            talk.socket.close()


def test_a_request_that_never_ends_holds_it_up_for_as_long_as_was_said() -> None:
    with served(drain_s=1) as server, Talk(server.port) as talk:
        talk.say(asking(BODY.replace(b"o_1001", b"o_hang")))
        assert server.line().startswith("asked")
        began = time.monotonic()
        server.stop()
        assert 1.0 <= time.monotonic() - began < 6.0


def test_who_stands_at_the_door_of_a_busy_server_is_let_in_though_it_stops() -> None:
    """The loop is held up, so connections are made by the kernel alone; when it turns again, the stop is the first thing that it sees."""
    with served() as server, Talk(server.port) as blocker:
        blocker.say(asking(BODY.replace(b"o_1001", b"o_block")))
        assert server.line() == "blocked"
        waiting = [Talk(server.port) for _ in range(5)]
        for talk in waiting:
            talk.say(asking())
        server.process.send_signal(signal.SIGTERM)
        for talk in (blocker, *waiting):
            assert talk.reply().status == 200
            talk.socket.close()


def test_nobody_is_kept_waiting_at_the_door_while_workers_finish() -> None:
    with served(workers=2, drain_s=30) as server:
        with Talk(server.port) as talk:
            talk.say(asking(BODY.replace(b"o_1001", b"o_hang")))
            assert server.line().startswith("asked")
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionRefusedError):
                _knock_until_refused(server.port)
            assert server.process.poll() is None, "one worker is not done yet"
        server.process.wait(PATIENCE_S)


def _knock_until_refused(port: int) -> None:
    """The signal is on its way, so the first may still be let in."""
    while True:
        Talk(port).socket.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_cannot_open_its_engine_ends_and_says_so(workers: int) -> None:
    failing = Served(workers, delay_ms=-1, drain_s=1)
    assert failing.process.wait(PATIENCE_S) == STARTUP_FAILURE
    assert failing.process.stdout is not None
    failing.process.stdout.close()
