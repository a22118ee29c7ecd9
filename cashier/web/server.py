"""One serving process: uvicorn, tuned.

Changes uvicorn's behaviour in these points:

- The sockets, which are bound before, listen only once the application is open: a connection that
  is accepted is answered.
- After SIGTERM the server goes on for `shutdown_delay_s`, while `/readyz` is 503 and each answer
  closes its connection, so that load balancers leave before connections are refused.
- uvicorn closes the listening socket first, which resets the connections in its accept queue. Here
  the queue is emptied first.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any

import structlog
from msgspec import Meta, Struct
from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE

from cashier.logs.line_writer import flush_lines
from cashier.logs.standard_library import log_loop_exception
from cashier.web.application import CashierApp
from cashier.web.balanced_listener import BalancedListener, WorkerCount
from cashier.web.connection import ClientConnection, StoppableState
from cashier.web.os_calls import refuse_new_connections, signal_with_parent

_log = structlog.get_logger("cashier.web")

# Long enough for a handshake within a region and for a loaded loop to accept.
ACCEPT_GRACE_S = 0.1
# Objects of start-up live as long as the process, so they are frozen out of garbage collection.
# Later objects form no cycles, so collections may be rare: with a threshold of 50,000 a thousand
# concurrent consultations triggered them, at 7 % of the CPU time.
GC_THRESHOLD = 500_000
# At the threshold a collection takes some 100 ms, for answers in caches. So new objects are frozen
# before, from the first number on: 2 ms. Beyond the second most are of work in progress, and soon
# freed.
FROZEN_FROM, FROZEN_UP_TO = 10_000, 60_000
# Supervisor to worker: stop without the delay. SIGTERM and SIGINT may also come from elsewhere, to
# all processes at once: from a terminal, from systemd.
STOP_NOW = signal.SIGUSR1
# A worker ends the delay by itself this much later than its supervisor would, which first refuses
# new connections.
SUPERVISOR_LEAD_S = 1.0

_SIGNAL_CHECK_S = 0.1

BuildApp = Callable[[], CashierApp]


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`. `drain_s` limits how long a stop waits for requests in progress.

    `shutdown_delay_s`: from SIGTERM, how long new connections are still accepted while `/readyz` is
    503. `ready_wait_s` limits how long `/readyz` waits for the required sources at start.
    `keep_alive_s` should exceed the load balancer's idle timeout: then the balancer closes idle
    connections, and no request crosses with a close by this server. `max_connections` holds in each
    worker.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    workers: Annotated[int, Meta(ge=1, le=512)] = 1
    ready_wait_s: Annotated[float, Meta(ge=0, le=600)] = 10.0
    shutdown_delay_s: Annotated[float, Meta(ge=0, le=600)] = 5.0
    drain_s: Annotated[int, Meta(ge=1, le=600)] = 20
    keep_alive_s: Annotated[int, Meta(ge=1, le=3600)] = 75
    backlog: Annotated[int, Meta(ge=1, le=65_535)] = 2048
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000


class ServerConfig(Config):
    """uvicorn's configuration. `settings` has what uvicorn does not know.

    `counts`: of all workers, from their supervisor; see `balanced_listener`.
    """

    counts: Any = None

    def __init__(self, settings: ServerSettings, build: BuildApp) -> None:
        super().__init__(
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
        self.settings = settings


def make_server(
    settings: ServerSettings, build: BuildApp, on_open: Callable[[], None] | None = None
) -> StoppableServer:
    """A server for a running event loop: `await make_server(settings, build).serve(sockets)`.

    `on_open` is called once `sockets`, which are bound, accept connections.
    """
    return StoppableServer(ServerConfig(settings, build), on_open=on_open)


def freeze_survivors() -> None:
    """Collect the garbage among new objects, and exclude the others from all later collections.

    So no collection is long; what becomes garbage in a cycle only after that is not found. Call it
    several times a second: it does nothing while there are few new objects, or very many.
    """
    if FROZEN_FROM <= gc.get_count()[0] < FROZEN_UP_TO:
        gc.collect(0)
        gc.freeze()


class StoppableServer(Server):
    """One serving process. `on_open` is called once it accepts connections.

    With a `count` it is a worker: other processes accept from the same sockets, so only the
    supervisor may refuse new connections on them, and decides when that is.
    """

    server_state: StoppableState

    def __init__(
        self, config: ServerConfig, *, count: WorkerCount | None = None, on_open: Callable[[], None] | None = None
    ) -> None:
        super().__init__(config)
        self.server_state = StoppableState()
        self.server_state.count = count
        self._has_supervisor = has_supervisor = count is not None
        self._owns_loop = False
        self._on_open = on_open
        self.is_listening = False
        delay_s = config.settings.shutdown_delay_s
        self._delay_s = delay_s + SUPERVISOR_LEAD_S if has_supervisor and delay_s else delay_s
        # When the delay ends, by the monotonic clock. None before SIGTERM.
        self._delayed_until_s: float | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in an event loop of its own."""
        self._owns_loop = True
        super().run(sockets)

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super()._serve(sockets)
        finally:
            if self._owns_loop:
                flush_lines()  # uvicorn then raises the signal again that ended it

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the application, then listen. A signal meanwhile ends it without either."""
        if self._owns_loop:
            asyncio.get_running_loop().set_exception_handler(log_loop_exception)
        if self._has_supervisor:
            signal.signal(STOP_NOW, self._stop_now)
            signal_with_parent(STOP_NOW)
        opening = asyncio.create_task(self._open_application())
        while not opening.done() and not self.should_exit:
            await asyncio.wait((opening,), timeout=_SIGNAL_CHECK_S)
        if self.should_exit:
            # The application closes when the loop cancels its remaining tasks.
            opening.cancel()
            # Not a failure, but uvicorn would log a traceback.
            self.lifespan.startup_failed = True
            self.started = False
            return
        if not opening.result():
            raise SystemExit(STARTUP_FAILURE)
        self.started = False
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 10, 10)
        try:
            await self._listen(sockets or [])
        except OSError as error:
            await self.lifespan.shutdown()
            if not self._has_supervisor:
                raise
            _log.error("the address cannot be listened on", reason=error.strerror)
            raise SystemExit(STARTUP_FAILURE) from None
        self.started = self.is_listening = True
        if self._on_open is not None:
            self._on_open()

    async def _open_application(self) -> bool:
        """False if it cannot be opened: uvicorn has logged why."""
        try:
            await super().startup([])
        except SystemExit:
            return False
        return True

    async def _listen(self, sockets: list[socket.socket]) -> None:
        """Raises OSError, also for an address that another program has begun to listen on."""
        config, loop = self.config, asyncio.get_running_loop()

        def make_connection() -> asyncio.Protocol:
            return config.http_protocol_class(  # type: ignore[call-arg] # uvicorn's protocols take these
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )

        for listener in sockets:
            # uvloop listens too, but ignores a failure.
            listener.listen(config.backlog)
            if (count := self.server_state.count) is None:
                self.servers.append(await loop.create_server(make_connection, sock=listener, backlog=config.backlog))
            else:
                self.servers.append(BalancedListener(listener, make_connection, count))  # type: ignore[arg-type]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at once, but on SIGTERM after the delay, which another signal ends.

        With a supervisor that signal goes to the supervisor, because SIGTERM often comes twice.
        """
        self._mark_draining()
        in_delay = self._delayed_until_s is not None and not self.should_exit
        if in_delay and sig == signal.SIGTERM and self._has_supervisor:
            return
        if in_delay:
            self._captured_signals.append(sig)
            self.should_exit = True
        elif sig == signal.SIGTERM and self.started and self._delay_s and not self.should_exit:
            self._captured_signals.append(sig)
            self._delayed_until_s = time.monotonic() + self._delay_s
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        freeze_survivors()
        ended = self._delayed_until_s is not None and time.monotonic() >= self._delayed_until_s
        return await super().on_tick(counter) or ended

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections, accept the queued ones, close the sockets, drain connections."""
        self.should_exit = True
        self._mark_draining()
        self.server_state.stopping = True
        application = self._application()
        if application is not None:
            # Here and not at the signal: waking a waiter takes the event loop, and until now the
            # callers could come back to this process.
            application.stop_waiting()
        if self.server_state.count is None:
            refuse_new_connections(sockets or ())
        else:
            self.server_state.count.close()
        await asyncio.sleep(ACCEPT_GRACE_S)
        await super().shutdown(sockets)

    def _stop_now(self, _number: int, _frame: FrameType | None) -> None:
        self._mark_draining()
        self.should_exit = True

    def _mark_draining(self) -> None:
        self.server_state.draining = True
        application = self._application()
        if application is not None:
            application.draining = True

    def _application(self) -> CashierApp | None:
        """None before it is built."""
        application = getattr(self.config, "loaded_app", None)
        return application if isinstance(application, CashierApp) else None
