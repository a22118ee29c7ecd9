"""Several serving processes on one socket: workers, and the supervisor that starts and stops them.

Changes uvicorn's behaviour in these points:

- uvicorn's parent keeps its copy of the socket open until its own end, so the kernel accepts
  connections that no worker will serve. This one first refuses new connections.
- A worker that cannot start stops the service only while the first set of workers starts. Later the
  others go on, and the start is repeated.
- The supervisor never waits for a worker's answer, so it reacts to signals at once.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import structlog
from uvicorn import Config
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import multiprocess

from cashier.logs import configure_logs
from cashier.logs.standard_library import log_uncaught
from cashier.web.balanced_listener import WorkerCount, shared_counts
from cashier.web.os_calls import refuse_new_connections
from cashier.web.server import STOP_NOW, ServerConfig, StoppableServer

_log = structlog.get_logger("cashier.web")

# How often the supervisor looks after its workers.
WATCH_S = 0.05
# How often it pings a worker that serves. The answer comes from a thread, which takes the
# interpreter from the worker's event loop.
PING_S = 1.0
# A worker that does not answer the supervisor for this long hangs.
HUNG_S = 5.0
# The wait before a worker that has not served is started again. It doubles with each failure.
RESTART_WAIT_S = 1.0
LONGEST_RESTART_WAIT_S = 30.0


class Worker(multiprocess.Process):
    """One serving process, as its supervisor sees it. `started`: it accepts connections."""

    config: ServerConfig
    _server: StoppableServer | None

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self.started = False
        self._count = WorkerCount.claim(config.counts)  # type: ignore[attr-defined] # a `ServerConfig`
        # When to replace it, by the monotonic clock. None while it runs.
        self.replace_at_s: float | None = None
        self._pinged_at_s = -math.inf
        self._is_pinged = self._has_answered = False

    def start(self) -> None:
        # As in `serve`: a process inherits its parent's signal mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            super().start()
        except OSError:
            self._count.release()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """The worker process. Its end by an exception is a line of the log, as any other event."""
        configure_logs()
        log_uncaught()
        try:
            super().target(sockets)
        except Exception:  # noqa: BLE001 - multiprocessing would print it, with its text
            _log.exception("a worker failed")
            raise SystemExit(STARTUP_FAILURE) from None

    @property
    def server(self) -> StoppableServer:
        if self._server is None:
            self._server = StoppableServer(self.config, count=self._count)
        return self._server

    def pong(self) -> None:
        # In a thread. uvicorn's `started` is true for a moment before the server listens.
        self.child_conn.recv()
        self.child_conn.send(self.server.is_listening)

    def is_hung(self) -> bool:
        """Ping without waiting. Whether the last ping has waited too long for its answer.

        A worker that has never answered is loading its program: a busy machine takes its time.
        """
        now_s = time.monotonic()
        with contextlib.suppress(OSError, EOFError):
            if self._is_pinged and self.parent_conn.poll():
                self.started = self.parent_conn.recv()
                self._has_answered = True
                self._is_pinged = False
            if not self._is_pinged and now_s - self._pinged_at_s >= (PING_S if self.started else 0):
                self.parent_conn.send(b"ping")
                self._pinged_at_s = now_s
                self._is_pinged = True
        return self._has_answered and self._is_pinged and now_s - self._pinged_at_s > HUNG_S

    def send_signal(self, number: signal.Signals) -> None:
        """Do nothing if the process has ended."""
        if self.exitcode is None and self.pid is not None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(STOP_NOW)

    def join(self) -> None:
        super().join()
        self._count.release()


class Supervisor(multiprocess.Multiprocess):
    """Starts workers, replaces dead ones, forwards SIGHUP and stops them. Serves no request.

    `on_open` is called once the first worker accepts connections, `on_worker_end` whenever one is
    replaced.
    """

    config: ServerConfig
    processes: list[Worker]  # type: ignore[assignment] # `run` has uvicorn create these

    def __init__(
        self,
        config: ServerConfig,
        sockets: list[socket.socket],
        on_open: Callable[[], None],
        on_worker_end: Callable[[], None],
    ) -> None:
        super().__init__(config, sockets)
        config.counts = shared_counts(config.workers)
        self._on_open = on_open
        self._on_worker_end = on_worker_end
        self._is_open = False
        self._all_have_started = False
        self._start_failed = False
        # When to stop the workers, by the monotonic clock. None before a signal.
        self._stop_at_s: float | None = None
        self._restart_wait_s = RESTART_WAIT_S
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def run(self) -> None:
        """Raises SystemExit if a worker of the first set cannot start."""
        # uvicorn creates workers in two places by this name and has no setting for another class.
        multiprocess.Process = Worker  # type: ignore[misc]
        try:
            self._watch()
        finally:
            # After a bug too: the end of the interpreter would wait for the workers, for ever.
            self.terminate_all()
            self.join_all()
        if self._start_failed:
            raise SystemExit(STARTUP_FAILURE)

    def _watch(self) -> None:
        """Return when the workers are to be stopped."""
        try:
            self.init_processes()
        except OSError as error:
            _log.error("a worker cannot start: the service stops", reason=error.strerror)
            self._start_failed = True
            return
        while self._stop_at_s is None:
            time.sleep(WATCH_S)
            self.handle_signals()
            self.keep_subprocess_alive()
        if time.monotonic() < self._stop_at_s:
            for worker in self.processes:
                worker.send_signal(signal.SIGTERM)
        while time.monotonic() < self._stop_at_s and any(worker.exitcode is None for worker in self.processes):
            time.sleep(WATCH_S)

    def keep_subprocess_alive(self) -> None:
        for index, worker in enumerate(self.processes):
            if worker.exitcode is not None or worker.is_hung():
                self._replace(index, worker)
            elif worker.started and not self._is_open:
                self._is_open = True
                self._on_open()
        if all(worker.started for worker in self.processes):
            self._all_have_started = True

    def _replace(self, index: int, worker: Worker) -> None:
        """Replace a worker that hangs or has ended; one that has not served, after a wait."""
        status, now_s = worker.exitcode, time.monotonic()
        if not worker.started and not self._all_have_started and (status or 0) > 0:
            _log.error("a worker cannot start: the service stops", pid=worker.pid, status=status)
            self._start_failed = True
            self._stop_at_s = now_s
            return
        if worker.replace_at_s is None:
            wait_s = self._next_wait_s(served=worker.started)
            worker.replace_at_s = now_s + wait_s
            worker.kill()  # it may hang
            worker.join()
            self._on_worker_end()
            reason = "hung" if status is None else "ended"
            _log.error("a worker is replaced", reason=reason, pid=worker.pid, status=worker.exitcode, wait_s=wait_s)
        if now_s >= worker.replace_at_s:
            try:
                started = Worker(self.config, self.sockets)
                started.start()
            except OSError as error:  # no process, memory or file is left
                wait_s = self._next_wait_s(served=False)
                worker.replace_at_s = now_s + wait_s
                _log.error("a worker cannot be replaced yet", reason=error.strerror, wait_s=wait_s)
                return
            self.processes[index] = started

    def _next_wait_s(self, *, served: bool) -> float:
        """The wait before the next start. `served`: the last worker did."""
        wait_s = 0.0 if served else self._restart_wait_s
        self._restart_wait_s = min(2 * wait_s, LONGEST_RESTART_WAIT_S) or RESTART_WAIT_S
        return wait_s

    def handle_hup(self) -> None:
        # Workers reload their configuration. New processes would lose what the old ones have
        # learned.
        for worker in self.processes:
            worker.send_signal(signal.SIGHUP)

    def terminate_all(self) -> None:
        refuse_new_connections(self.sockets)
        super().terminate_all()
        for listener in self.sockets:
            listener.close()

    def _on_stop_signal(self, number: int, _frame: FrameType | None) -> None:
        """Stop the workers after the delay on SIGTERM, at once on SIGINT or another signal."""
        delay_s = self.config.settings.shutdown_delay_s
        if self._stop_at_s is None and self._is_open and number == signal.SIGTERM and delay_s:
            self._stop_at_s = time.monotonic() + delay_s
            return
        # Now, not when the main loop comes to it: the workers may have received the same signal
        # (Ctrl+C, systemd) and close their sockets shortly.
        refuse_new_connections(self.sockets)
        self._stop_at_s = time.monotonic()
