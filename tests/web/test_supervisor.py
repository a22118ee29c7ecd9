"""What the supervisor does with its workers, without processes."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from uvicorn.supervisors import multiprocess

from cashier.web import supervisor
from cashier.web.server import ServerConfig, ServerSettings
from cashier.web.supervisor import LONGEST_RESTART_WAIT_S, Supervisor


class FakeWorker:
    """`exitcode`: None while it runs. `hung`: it does not answer."""

    def __init__(self, _config: Any = None, _sockets: Any = None) -> None:
        self.pid = os.getpid()
        self.exitcode: int | None = None
        self.started = self.hung = False
        self.replace_at_s: float | None = None
        self.calls: list[str] = []

    def start(self) -> None: ...

    def is_hung(self) -> bool:
        return self.hung

    def kill(self) -> None:
        if self.exitcode is None:
            self.exitcode = -9

    def terminate(self) -> None:
        self.calls.append("terminate")

    def join(self) -> None:
        self.calls.append("join")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time of the supervisor, which takes no signals."""
    now = [1000.0]
    monkeypatch.setattr(supervisor, "Worker", FakeWorker)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield now
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def supervisor_of(workers: list[FakeWorker], on_worker_end: Callable[[], None] = lambda: None) -> Supervisor:
    config = ServerConfig(ServerSettings(workers=len(workers)), lambda: None)  # type: ignore[arg-type, return-value]
    watched = Supervisor(config, [], lambda: None, on_worker_end)
    watched.processes = cast(Any, workers)
    return watched


@pytest.mark.parametrize("started", [True, False])
@pytest.mark.parametrize("end", ["killed", "failed", "hung"])
def test_each_end_of_a_worker_is_reported_once_also_before_it_has_served(
    now: list[float], started: bool, end: str
) -> None:
    ends: list[float] = []
    workers = [FakeWorker(), FakeWorker()]
    watched = supervisor_of(workers, lambda: ends.append(now[0]))
    for worker in workers:
        worker.started = True
    with capture_logs():
        watched.keep_subprocess_alive()
        for number in range(1, 5):
            worker = workers[0]
            worker.started, worker.hung = started, end == "hung"
            worker.exitcode = {"killed": -9, "failed": 3, "hung": None}[end]
            for _ in range(3):
                watched.keep_subprocess_alive()
            assert len(ends) == number
            now[0] += LONGEST_RESTART_WAIT_S
            watched.keep_subprocess_alive()
            assert workers[0] is not worker


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
@pytest.mark.parametrize("place", ["__init__", "start"])
def test_a_worker_that_the_machine_cannot_start_is_started_later(
    now: list[float], monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    workers = [FakeWorker(), FakeWorker()]
    for worker in workers:
        worker.started = True
    watched = supervisor_of(workers)
    ended, other = workers
    with capture_logs() as logs:
        watched.keep_subprocess_alive()
        ended.exitcode = -9
        with monkeypatch.context() as short:
            short.setattr(FakeWorker, place, raising(OSError(number, os.strerror(number))))
            for _ in range(8):
                watched.keep_subprocess_alive()
                now[0] += LONGEST_RESTART_WAIT_S
        assert workers == [ended, other]
        watched.keep_subprocess_alive()
    assert workers[0] is not ended
    assert workers[1] is other
    waits = [line["wait_s"] for line in logs if line["event"] == "a worker cannot be replaced yet"]
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize(
    ("method", "error", "raised"),
    [
        ("init_processes", OSError(errno.EAGAIN, "no process is left"), SystemExit),
        ("keep_subprocess_alive", ZeroDivisionError(), ZeroDivisionError),
        ("handle_signals", KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_no_worker_outlives_its_supervisor(
    now: list[float], monkeypatch: pytest.MonkeyPatch, method: str, error: BaseException, raised: type[BaseException]
) -> None:
    workers = [FakeWorker(), FakeWorker()]
    watched = supervisor_of(workers)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(multiprocess, "Process", multiprocess.Process)  # `run` replaces it
    monkeypatch.setattr(watched, "init_processes", lambda: None)
    monkeypatch.setattr(watched, method, raising(error))
    with capture_logs(), pytest.raises(raised):
        watched.run()
    assert [worker.calls for worker in workers] == [["terminate", "join"]] * 2


def raising(error: BaseException) -> Callable[..., None]:
    def function(*_: Any) -> None:
        raise error

    return function
