"""The start of a server: connections are refused until a worker can answer them."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from uvicorn.config import STARTUP_FAILURE

from cashier.web import CashierApp, supervisor
from cashier.web.balanced_listener import shared_counts
from cashier.web.os_calls import refuse_new_connections
from cashier.web.serve import serve
from cashier.web.server import ServerConfig, ServerSettings
from cashier.web.supervisor import HUNG_S, PING_S, Worker
from tests.support.command_processes import eventually
from tests.support.process_files import socket_inode, worker_pids
from tests.web.server_process import GET, TIMEOUT_S, ServerProcess, running_server
from tests.wire.scripted_upstream import unused_port

processes = pytest.mark.processes


def not_built() -> CashierApp:
    raise AssertionError("nothing must be built")


def unstarted_worker() -> Worker:
    config = ServerConfig(ServerSettings(), not_built)
    config.counts = shared_counts(1)
    return Worker(config, [])


def accepts(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S):
        return True
    return False


def opening_pids(server: ServerProcess, workers: int) -> list[int]:
    """Read the lines of the workers that begin to open."""
    return [int(server.line().removeprefix("opening ")) for _ in range(workers)]


def test_a_worker_has_started_only_when_it_listens() -> None:
    worker = unstarted_worker()
    # uvicorn sets this when the application is open, before the server listens.
    worker.server.started = True
    for is_listening in (False, True):
        worker.server.is_listening = is_listening
        assert not worker.is_hung()
        worker.pong()
        assert not worker.is_hung()
        assert worker.started == is_listening


def test_a_worker_that_serves_is_pinged_once_a_second_and_hangs_without_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: now_s))
    worker = unstarted_worker()
    worker.server.is_listening = True
    worker.is_hung()
    worker.pong()
    assert not worker.is_hung()
    assert not worker.child_conn.poll()
    now_s += PING_S
    assert not worker.is_hung()
    assert worker.child_conn.poll()
    now_s += HUNG_S
    assert not worker.is_hung()
    now_s += 0.1
    assert worker.is_hung()


@processes
@pytest.mark.parametrize("workers", [1, 2])
def test_connections_are_refused_until_the_application_is_open(tmp_path: Path, workers: int) -> None:
    port = unused_port()
    with running_server(folder=tmp_path, workers=workers, port=port) as server:
        opening_pids(server, workers)
        assert not accepts(port)
        (tmp_path / "open").touch()
        assert server.line() == str(port)
        server.port = port
        assert server.request(GET % b"/readyz").status == 200


@processes
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_it_without_listening(
    tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    port = unused_port()
    with running_server(folder=tmp_path, workers=workers, port=port, shutdown_delay_s=600) as server:
        opening_pids(server, workers)
        server.process.send_signal(number)
        assert server.process.wait(TIMEOUT_S) in (0, -number)
        assert server.line() == ""


@processes
@pytest.mark.parametrize("flaw", ["broken", "only_one"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_cannot_start_stops_the_service(tmp_path: Path, workers: int, flaw: str) -> None:
    if flaw == "only_one" and workers == 1:
        (tmp_path / "taken").mkdir()
    (tmp_path / flaw).touch()
    with running_server(folder=tmp_path, workers=workers, shutdown_delay_s=600) as server:
        opening_pids(server, workers)
        (tmp_path / "open").touch()
        assert server.process.wait(TIMEOUT_S) == STARTUP_FAILURE


@processes
def test_the_others_serve_while_the_replacement_of_a_worker_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    with running_server(folder=tmp_path, workers=2) as server:
        lines = [server.line() for _ in range(3)]
        server.port = next(int(line) for line in lines if line.isdecimal())
        first, _ = (int(line.removeprefix("opening ")) for line in lines if not line.isdecimal())
        # The first start is complete once the supervisor, which looks every 50 ms, knows that both
        # serve.
        assert served_by(server, 2)
        time.sleep(1.0)
        (tmp_path / "broken").touch()
        os.kill(first, signal.SIGKILL)
        opening_pids(server, 2)
        assert server.request(GET % b"/readyz").status == 200
        (tmp_path / "broken").unlink()
        assert served_by(server, 2)


def served_by(server: ServerProcess, workers: int) -> bool:
    """Wait until this number of processes has the listening socket in their event loop."""
    inode = socket_inode(server.port, listening=True)
    assert inode is not None, "nothing listens"

    def enough() -> bool:
        return sum(polls(pid, inode) for pid in worker_pids(server.process.pid)) >= workers

    eventually(enough, "too few workers serve")
    return True


def polls(pid: int, inode: str) -> bool:
    """Whether an epoll instance of the process has the socket."""
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
            with suppress(OSError):
                if any(f"ino:{int(inode):x} " in line for line in entry.read_text().splitlines() if "tfd:" in line):
                    return True
    return False


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("host", "number"),
    [("127.0.0.1", errno.EADDRINUSE), ("203.0.113.1", errno.EADDRNOTAVAIL), ("there-is-none.invalid", None)],
)
def test_an_address_that_cannot_be_bound_fails_before_anything_is_built(
    host: str, number: int | None, workers: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ServerSettings(host=host, port=taken.getsockname()[1], workers=workers)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            with pytest.raises(OSError) as failure:  # noqa: PT011 - its number is checked
                serve(settings, not_built)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        assert failure.value.errno == number or isinstance(failure.value, socket.gaierror)


@processes
@pytest.mark.parametrize("workers", [1, 2])
def test_of_two_services_on_one_address_the_first_to_listen_serves(tmp_path: Path, workers: int) -> None:
    """Both can bind, as long as neither listens."""
    port = unused_port()
    with (
        running_server(folder=tmp_path, workers=workers, port=port) as first,
        running_server(folder=tmp_path, workers=workers, port=port) as second,
    ):
        for server in (first, second):
            opening_pids(server, workers)
        (tmp_path / "open").touch()
        eventually(lambda: first.process.poll() is not None or second.process.poll() is not None, "both run")
        loser, winner = (first, second) if first.process.poll() is not None else (second, first)
        assert loser.process.returncode != 0
        assert winner.line() == str(port)
        winner.port = port
        assert winner.request(GET % b"/readyz").status == 200


def test_queued_connections_are_accepted_and_new_ones_are_not() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname(), timeout=30) as waiting,
    ):
        assert refuse_new_connections([listening])
        with pytest.raises(TimeoutError):
            socket.create_connection(listening.getsockname(), timeout=0.2)
        accepted, _ = listening.accept()
        with accepted:
            waiting.send(b"in")
            assert accepted.recv(2) == b"in"


def test_a_missing_socket_filter_is_reported() -> None:
    with socket.socket() as closed:
        closed.close()
        assert not refuse_new_connections([closed])
