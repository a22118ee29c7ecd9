"""What the supervisor does with its workers, without processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

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

    def start(self) -> None: ...

    def is_hung(self) -> bool:
        return self.hung

    def kill(self) -> None:
        if self.exitcode is None:
            self.exitcode = -9

    def join(self) -> None: ...


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


@pytest.mark.parametrize("started", [True, False])
@pytest.mark.parametrize("end", ["killed", "failed", "hung"])
def test_each_end_of_a_worker_is_reported_once_also_before_it_has_served(
    now: list[float], started: bool, end: str
) -> None:
    ends: list[float] = []
    config = ServerConfig(ServerSettings(workers=2), lambda: None)  # type: ignore[arg-type, return-value]
    watched = Supervisor(config, [], lambda: None, lambda: ends.append(now[0]))
    workers: list[Any] = [FakeWorker(), FakeWorker()]
    watched.processes = workers
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
