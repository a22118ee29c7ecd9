"""The operations port of this process: a thread with an event loop of its own.

In the supervisor of several workers, or in the one process that serves. Never a reason for the
service not to start: a taken port is a logged warning, and is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import structlog
from starlette.types import ASGIApp
from uvicorn import Config, Server

from cashier.metrics.store import Store
from cashier.ops.application import SERVICES, OperationsState, application
from cashier.ops.http_protocol import BoundedHttp
from cashier.ops.run_directory import run_directory
from cashier.settings.schema import Configuration
from cashier.web.auth import BearerAuth, is_loopback
from cashier.web.os_calls import address_to_listen_on

_log = structlog.get_logger("cashier.ops")

RETRY_S = 5.0
# Longer than between two scrapes, so that these share a connection.
KEEP_ALIVE_S = 75
MAX_CONNECTIONS = 64
DRAIN_S = 1
LONGEST_STOP_S = 3.0


class OperationsPort:
    """The port, open or not. `run_directory`: None where workers cannot share one.

    `url`: None while the port is not open.
    """

    def __init__(self, config: Configuration, directory: Path | None, auth: BearerAuth | None) -> None:
        self.run_directory = directory
        self.url: str | None = None
        self._config = config
        self._auth = None if is_loopback(config.settings.operations.host) else auth
        # The main thread counts in it; the port's own reads it.
        self._own = Store()
        self._worker_ends = self._own.counter("cashier_worker_ends_total")
        self._refusal: str | None = None
        self._listener: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="operations", daemon=True)
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def open(self) -> None:
        """Bind the port if it is free, and start the thread."""
        self._bind(is_first=True)
        # Signals are for the main thread, which waits for them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._started.wait()

    def count_worker_end(self) -> None:
        """Also of a worker that ended before it could count anything."""
        self._worker_ends.add()

    def warn_if_taken(self) -> None:
        """Once the service is open: if that cannot start either, its own address is the news."""
        settings = self._config.settings.operations
        if self.url is None and self._refusal is not None:
            _log.warning(
                "the operations port is not open; it is tried again",
                host=settings.host,
                port=settings.port,
                reason=self._refusal,
            )

    def close(self) -> None:
        """Close the port. Streams of the console end."""
        if self._thread.is_alive() and self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(LONGEST_STOP_S)
        if self._listener is not None:
            self._listener.close()

    def _bind(self, *, is_first: bool) -> None:
        settings = self._config.settings.operations
        try:
            self._listener = bound_socket(settings.host, settings.port)
        except OSError as error:
            self._refusal = error.strerror
            return
        host = f"[{settings.host}]" if ":" in settings.host.strip("[]") else settings.host
        self.url = f"http://{host}:{self._listener.getsockname()[1]}"
        if not is_first:
            _log.info("the operations port is open", url=self.url)

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve())
        except Exception:  # noqa: BLE001 - the service goes on without its operations port
            _log.exception("the operations port has failed")
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        state = OperationsState(self._config, self.run_directory, self._auth, self._stop, self._own)
        async with contextlib.AsyncExitStack() as services:
            services.callback(state.stores.close)
            for service in SERVICES:
                await services.enter_async_context(service(state))
            while self._listener is None and not await _is_set_within(self._stop, RETRY_S):
                self._bind(is_first=False)
            if self._listener is not None:
                await _serve_until(self._stop, application(state), self._listener)


@contextlib.contextmanager
def operations_port(config: Configuration, auth: BearerAuth | None) -> Iterator[OperationsPort]:
    """The port and the run directory of a service, in the main thread of the process with both.

    Both are gone at the end, also if that is a SIGTERM without a handler: uvicorn ends by one.
    """
    with contextlib.ExitStack() as stack:
        if not config.settings.operations.enabled:
            yield OperationsPort(config, None, None)
            return
        directory = stack.enter_context(run_directory(config.settings.server.workers))
        port = OperationsPort(config, directory, auth)
        stack.callback(port.close)
        port.open()

        def end(number: int, _frame: FrameType | None) -> None:
            stack.close()
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, end))
        yield port


def bound_socket(host: str, port: int) -> socket.socket:
    """Raises OSError, also if another program listens there."""
    family, address = address_to_listen_on(host.strip("[]"), port)
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(MAX_CONNECTIONS)
    except OSError:
        listener.close()
        raise
    return listener


async def _serve_until(stop: asyncio.Event, app: ASGIApp, listener: socket.socket) -> None:
    server = Server(
        Config(
            app,
            loop="none",
            http=BoundedHttp,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            backlog=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )
    )

    async def end() -> None:
        await stop.wait()
        server.should_exit = True

    ending = asyncio.create_task(end())
    try:
        await server.serve([listener])
    finally:
        ending.cancel()


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
