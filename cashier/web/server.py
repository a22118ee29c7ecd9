"""uvicorn as it runs here: lean, warmed, and stopping without losing a request. One process, or several on one socket.

uvicorn stops by closing the listening socket first, which resets whoever waits in its queue; with several workers the parent keeps its
copy of it open until it has gone itself, so that connections are taken for which nobody is left. Both are put in order here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Annotated

from msgspec import Meta, Struct
from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import multiprocess

from cashier.web.application import CashierApp
from cashier.web.connection import ClientConnection, StoppableState
from cashier.web.listener_close import refuse_new_connections
from cashier.web.parent_death import terminate_with_parent

# Long enough for a handshake within a region to end and for a loaded loop to accept; what comes within it has to wait.
ACCEPT_GRACE_S = 0.1
# Objects of start-up live as long as the process: the collector need not look at them again. Nor be in a hurry with the others, of which
# none is ever part of a cycle: at 50,000 a thousand consultations under way were enough to set it off, for 7 % of the time.
GC_THRESHOLD = 500_000

BuildApp = Callable[[], CashierApp]


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`. `drain_s`: the longest that a stop waits for requests under way.

    `keep_alive_s` is longer than load balancers usually keep a connection, so that they end it and no request crosses with our closing.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    workers: Annotated[int, Meta(ge=1, le=512)] = 1
    drain_s: Annotated[int, Meta(ge=1, le=600)] = 10
    keep_alive_s: Annotated[int, Meta(ge=1, le=3600)] = 75
    backlog: Annotated[int, Meta(ge=1, le=65_535)] = 2048


def serve(settings: ServerSettings, build: BuildApp, announce: Callable[[str, int], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Returns, or ends the process, when every request that came in time was answered.

    `build` is called once in each process that serves, in its main thread before its loop turns. With several workers it is sent to them
    by pickle: a function of a module, or a `functools.partial` of one, with what it needs to know (the path of the configuration).
    `announce` is told host and port as soon as they are ours; port 0 in the settings is one that was free.
    SIGHUP is the door's to listen to: it is held back until the door unblocks it, and handed on to every worker.
    Raises `SystemExit` where the address cannot be had or the door cannot be opened.
    """
    # Who is told to read its configuration anew before it can listen to that does so as soon as it can, and is not ended by it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    config = _config(settings, build)
    sockets = [config.bind_socket()]
    if announce is not None:
        sockets[0].listen(
            settings.backlog
        )  # whoever is told the address may connect at once, and waits until somebody accepts
        announce(settings.host, sockets[0].getsockname()[1])
    if settings.workers == 1:
        # uvicorn raises the signal again when it is done; Ctrl+C is an end like any other.
        with contextlib.suppress(KeyboardInterrupt):
            StoppableServer(config, alone=True).run(sockets)
    else:
        supervisor = Supervisor(config, sockets)
        supervisor.run()
        # uvicorn's parent ends well even where its workers could not start.
        if any(worker.exitcode == STARTUP_FAILURE for worker in supervisor.processes):
            raise SystemExit(STARTUP_FAILURE)


def make_server(settings: ServerSettings, build: BuildApp) -> StoppableServer:
    """One to run in a loop that is there already: `await serving(settings, build).serve(sockets)`."""
    return StoppableServer(_config(settings, build), alone=True)


def _config(settings: ServerSettings, build: BuildApp) -> Config:
    return Config(
        build,
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        backlog=settings.backlog,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.drain_s,
        http=ClientConnection,
        loop="uvloop",
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        # Whose address it was is nothing that is asked here, and looking for it costs.
        proxy_headers=False,
        server_header=False,
    )


class StoppableServer(Server):
    """`alone`: no other process accepts from the same sockets, so they may be told to take nobody new."""

    server_state: StoppableState

    def __init__(self, config: Config, *, alone: bool) -> None:
        super().__init__(config)
        self.server_state = StoppableState()
        self._alone = alone

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if not self._alone:
            terminate_with_parent()
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 10, 10)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._say_so()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """First nobody new, then those at the door, then the listening socket, then each connection by its last answer."""
        self._say_so()
        door = self._door()
        if door is not None:
            # Here and not with the signal: whom it wakes is woken by the loop.
            door.stop_waiting()
        if self._alone:
            refuse_new_connections(sockets or ())
        await asyncio.sleep(ACCEPT_GRACE_S)
        await super().shutdown(sockets)

    def _say_so(self) -> None:
        self.server_state.draining = True
        door = self._door()
        if door is not None:
            door.draining = True

    def _door(self) -> CashierApp | None:
        """None before there is one."""
        door = getattr(self.config, "loaded_app", None)
        return door if isinstance(door, CashierApp) else None


class Worker(multiprocess.Process):
    """One of several serving processes."""

    def start(self) -> None:
        # As in `serve`: a process inherits what is blocked.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    @property
    def server(self) -> Server:
        if self._server is None:
            self._server = StoppableServer(self.config, alone=False)
        return self._server


class Supervisor(multiprocess.Multiprocess):
    """Starts workers, replaces those that die, hands SIGHUP on to each, and stops them all. Serves nothing itself."""

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_soon)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def run(self) -> None:
        # uvicorn's supervisor makes its workers in four places, by this name, and cannot be told another.
        multiprocess.Process = Worker  # type: ignore[misc]
        super().run()

    def handle_hup(self) -> None:
        # They read their configuration anew; a new process would have to learn everything again.
        for worker in self.processes:
            if worker.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGHUP)

    def terminate_all(self) -> None:
        refuse_new_connections(self.sockets)
        super().terminate_all()
        for each in self.sockets:
            each.close()

    def _stop_soon(self, number: int, _frame: FrameType | None) -> None:
        # At once, not at the next look at the queue: the same signal may have reached the workers (Ctrl+C, systemd), who close in a moment.
        refuse_new_connections(self.sockets)
        self.signal_queue.append(number)
