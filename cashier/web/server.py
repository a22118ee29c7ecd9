"""The server: uvicorn, tuned, with a lossless stop. One process, or several workers on one socket.

uvicorn stops by closing the listening socket first, which resets the connections in its accept
queue. With several workers the parent keeps its copy of the socket open until its own end, so the
kernel accepts connections that no worker will serve. This module corrects both.
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
from cashier.web.os_calls import refuse_new_connections, terminate_with_parent

# Long enough for a handshake within a region and for a loaded loop to accept.
ACCEPT_GRACE_S = 0.1
# Bytes of responses that the kernel takes beyond what it may send now.
UNSENT_BYTES = 65_536
# Objects of start-up live as long as the process, so they are frozen out of garbage collection.
# Later objects form no cycles, so collections may be rare: with a threshold of 50,000 a thousand
# concurrent consultations triggered them, at 7 % of the CPU time.
GC_THRESHOLD = 500_000

BuildApp = Callable[[], CashierApp]


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`. `drain_s` limits how long a stop waits for requests in progress.

    `keep_alive_s` should exceed the load balancer's idle timeout: then the balancer closes idle
    connections, and no request crosses with a close by this server. `max_connections` holds in each
    worker.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    workers: Annotated[int, Meta(ge=1, le=512)] = 1
    drain_s: Annotated[int, Meta(ge=1, le=600)] = 10
    keep_alive_s: Annotated[int, Meta(ge=1, le=3600)] = 75
    backlog: Annotated[int, Meta(ge=1, le=65_535)] = 2048
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000


def serve(settings: ServerSettings, build: BuildApp, announce: Callable[[str, int], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then answer the requests in progress and end.

    `build` runs once in each serving process, in its main thread before its event loop runs. With
    several workers it is pickled, so it must be a function of a module, or a `functools.partial` of
    one. `announce` receives host and port once they are bound; port 0 in the settings picks a free
    one. SIGHUP is blocked until the application unblocks it, and is forwarded to every worker.
    Raises OSError if the address cannot be bound, `SystemExit` if the application cannot be built.
    """
    # A SIGHUP that arrives before the application listens for it must not end the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    config = _config(settings, build)
    sockets = [_bound_socket(settings)]
    if announce is not None:
        # A client may connect as soon as it knows the address, and then waits in the accept queue.
        sockets[0].listen(settings.backlog)
        announce(settings.host, sockets[0].getsockname()[1])
    if settings.workers == 1:
        # uvicorn raises the signal again at its end. Ctrl+C is a normal end.
        with contextlib.suppress(KeyboardInterrupt):
            StoppableServer(config, sole_acceptor=True).run(sockets)
    else:
        supervisor = Supervisor(config, sockets)
        supervisor.run()
        # uvicorn's parent exits with 0 even if its workers could not start.
        if any(worker.exitcode == STARTUP_FAILURE for worker in supervisor.processes):
            raise SystemExit(STARTUP_FAILURE)


def make_server(settings: ServerSettings, build: BuildApp) -> StoppableServer:
    """A server for a running event loop: `await make_server(settings, build).serve(sockets)`."""
    return StoppableServer(_config(settings, build), sole_acceptor=True)


def _bound_socket(settings: ServerSettings) -> socket.socket:
    """As uvicorn's own, which ends the process where the address cannot be bound."""
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it. Otherwise the kernel takes megabytes for a client that
        # never reads, and the connection does not notice.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        listener.bind((settings.host, settings.port))
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


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
        limit_concurrency=settings.max_connections,
        http=ClientConnection,
        loop="uvloop",
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        # The client's address is not used, and reading it costs.
        proxy_headers=False,
        server_header=False,
    )


class StoppableServer(Server):
    """`sole_acceptor`: no other process accepts from the same sockets, so this one may refuse
    new connections on them.
    """

    server_state: StoppableState

    def __init__(self, config: Config, *, sole_acceptor: bool) -> None:
        super().__init__(config)
        self.server_state = StoppableState()
        self._sole_acceptor = sole_acceptor

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if not self._sole_acceptor:
            terminate_with_parent()
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 10, 10)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._mark_draining()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections, accept the queued ones, close the sockets, drain connections."""
        self._mark_draining()
        application = self._application()
        if application is not None:
            # Here and not at the signal: waking a waiter takes the event loop.
            application.stop_waiting()
        if self._sole_acceptor:
            refuse_new_connections(sockets or ())
        await asyncio.sleep(ACCEPT_GRACE_S)
        await super().shutdown(sockets)

    def _mark_draining(self) -> None:
        self.server_state.draining = True
        application = self._application()
        if application is not None:
            application.draining = True

    def _application(self) -> CashierApp | None:
        """None before it is built."""
        application = getattr(self.config, "loaded_app", None)
        return application if isinstance(application, CashierApp) else None


class Worker(multiprocess.Process):
    """One of several serving processes."""

    def start(self) -> None:
        # As in `serve`: a process inherits its parent's signal mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    @property
    def server(self) -> Server:
        if self._server is None:
            self._server = StoppableServer(self.config, sole_acceptor=False)
        return self._server


class Supervisor(multiprocess.Multiprocess):
    """Starts workers, replaces dead ones, forwards SIGHUP and stops them. Serves no request."""

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_soon)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def run(self) -> None:
        # uvicorn creates workers in four places by this name and has no setting for another class.
        multiprocess.Process = Worker  # type: ignore[misc]
        super().run()

    def handle_hup(self) -> None:
        # Workers reload their configuration. New processes would lose what the old ones have
        # learned.
        for worker in self.processes:
            if worker.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGHUP)

    def terminate_all(self) -> None:
        refuse_new_connections(self.sockets)
        super().terminate_all()
        for listener in self.sockets:
            listener.close()

    def _stop_soon(self, number: int, _frame: FrameType | None) -> None:
        # Now, not when the queue is next read: the workers may have received the same signal
        # (Ctrl+C, systemd) and close their sockets shortly.
        refuse_new_connections(self.sockets)
        self.signal_queue.append(number)
