"""How workers of one socket share its connections."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import uvloop

from cashier.web import balanced_listener
from cashier.web.balanced_listener import UNANSWERED_YIELDS, YIELD_S, BalancedListener, WorkerCount, shared_counts
from tests.support.command_processes import eventually
from tests.support.process_files import open_sockets, worker_pids
from tests.web.server_process import running_server


class FakeWorker(asyncio.Protocol):
    """A worker in this process, and each of its connections."""

    def __init__(self, listener: socket.socket, count: WorkerCount, connections: int = 0) -> None:
        self.transports: list[Any] = []
        self._others = connections
        self.count = count
        self.listener = BalancedListener(listener, lambda: self, count)
        count.set(connections)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transports.append(transport)
        self.count.set(self._others + len(self.transports))

    def close(self) -> None:
        self.listener.close()
        for transport in self.transports:
            transport.abort()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


async def connect(stack: ExitStack, listening: socket.socket, connections: int) -> None:
    """Open them at once: they wait in the kernel."""
    for _ in range(connections):
        stack.enter_context(socket.create_connection(listening.getsockname()))


async def accepted(*workers: FakeWorker, total: int) -> list[int]:
    while sum(len(worker.transports) for worker in workers) < total:  # noqa: ASYNC110 - the kernel has no event
        await asyncio.sleep(0.001)
    return [len(worker.transports) for worker in workers]


def test_a_worker_is_ahead_only_of_workers_that_accept() -> None:
    counts = shared_counts(2)
    first, second = WorkerCount.claim(counts), WorkerCount.claim(counts)

    def ahead() -> list[bool]:
        return [first.is_ahead, second.is_ahead]

    first.set(1)
    assert ahead() == [False, True]  # the second has not opened, and does not ask
    second.set(0)
    assert ahead() == [True, False]
    second.set(1)
    assert ahead() == [False, False]
    second.close()
    second.set(0)  # connections end while it stops
    assert ahead() == [False, False]
    second.release()
    assert ahead() == [False, False]
    second = WorkerCount.claim(counts)
    second.set(0)
    assert ahead() == [True, False]
    assert repr(second) == "<WorkerCount 0 of [1, 0]>"


def test_workers_beyond_the_slots_share_one() -> None:
    counts = shared_counts(2)
    *_, last, beyond = [WorkerCount.claim(counts) for _ in range(len(counts) + 1)]
    last.set(3)
    assert repr(beyond) == "<WorkerCount 3 of [3]>"


async def test_a_worker_with_more_connections_leaves_new_ones_to_the_other(listening: socket.socket) -> None:
    counts = shared_counts(2)
    with ExitStack() as stack, listening.dup() as copy:
        busier = FakeWorker(listening, WorkerCount.claim(counts), connections=8)
        other = FakeWorker(copy, WorkerCount.claim(counts))
        await connect(stack, listening, 20)
        taken = await accepted(busier, other, total=20)
        assert taken[0] + 8 == pytest.approx(taken[1], abs=2)
        for worker in (busier, other):
            worker.close()
            await worker.listener.wait_closed()


def test_a_response_is_sent_without_the_delay_of_nagle(listening: socket.socket) -> None:
    async def nodelay() -> int:
        with ExitStack() as stack:
            worker = FakeWorker(listening, WorkerCount.claim(shared_counts(2)))
            await connect(stack, listening, 1)
            await accepted(worker, total=1)
            option = worker.transports[0].get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            worker.close()
            return int(option)

    assert uvloop.run(nodelay()) == 1


async def test_a_connection_that_the_others_do_not_take_is_taken_after_a_moment(listening: socket.socket) -> None:
    counts = shared_counts(2)
    hanging = WorkerCount.claim(counts)
    with ExitStack() as stack:
        worker = FakeWorker(listening, WorkerCount.claim(counts), connections=8)
        hanging.set(0)
        await connect(stack, listening, 3)
        since_s = time.monotonic()
        assert await accepted(worker, total=3) == [3]
        assert time.monotonic() - since_s > YIELD_S
        worker.close()


async def test_a_worker_that_hangs_does_not_slow_down_the_others(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = shared_counts(2)
    hanging = WorkerCount.claim(counts)
    with ExitStack() as stack:
        worker = FakeWorker(listening, WorkerCount.claim(counts), connections=8)
        pause, pauses = worker.listener._pause, list[float]()

        def counted_pause(seconds: float, resume: Callable[[], None]) -> None:
            pauses.append(seconds)
            pause(seconds, resume)

        monkeypatch.setattr(worker.listener, "_pause", counted_pause)
        hanging.set(0)
        await connect(stack, listening, 60)
        assert await accepted(worker, total=60) == [60]
        assert UNANSWERED_YIELDS < len(pauses) < UNANSWERED_YIELDS + 5
        worker.close()


@pytest.mark.parametrize("ahead", [False, True])
async def test_a_closed_listener_accepts_nothing(listening: socket.socket, ahead: bool) -> None:
    counts = shared_counts(2)
    with ExitStack() as stack:
        worker = FakeWorker(listening, WorkerCount.claim(counts), connections=8)
        WorkerCount.claim(counts).set(0 if ahead else 9)
        await connect(stack, listening, 1)
        if ahead:
            await asyncio.sleep(0)  # it waits for the other
            await asyncio.sleep(0)
        worker.listener.close()
        await asyncio.sleep(3 * YIELD_S)
        assert not worker.transports


class WithoutFiles(socket.socket):
    """Has no files for its first connections, as at the limit of open files."""

    refusals = 2

    def accept(self) -> Any:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


async def test_without_files_the_loop_waits_and_tries_again(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balanced_listener, "RETRY_S", 0.02)
    with ExitStack() as stack, WithoutFiles(fileno=os.dup(listening.fileno())) as without:
        worker = FakeWorker(without, WorkerCount.claim(shared_counts(2)))
        await connect(stack, listening, 1)
        since_s = time.monotonic()
        assert await accepted(worker, total=1) == [1]
        assert time.monotonic() - since_s >= 0.035
        worker.close()


@pytest.mark.processes
def test_two_workers_get_half_of_the_connections_each() -> None:
    with running_server(workers=2) as server, ExitStack() as stack:
        workers = worker_pids(server.process.pid)

        def sockets() -> list[int]:
            return [open_sockets(pid) for pid in workers]

        def accepted_by_both(connections: int) -> list[int]:
            for _ in range(connections):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            return [now - then for now, then in zip(sockets(), before, strict=True)]

        before = sockets()
        # The second worker may open later, with some sockets of its own.
        eventually(lambda: min(accepted_by_both(1)) >= 8, "the second worker accepts nothing")
        accepted_by_both(40)
        eventually(lambda: sum(now := accepted_by_both(0)) >= 56 and max(now) - min(now) <= 8, "an uneven burst")
