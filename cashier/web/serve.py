"""`serve`: bind the address, then serve in this process or in several workers until a signal."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable

import msgspec
import structlog

from cashier.web.os_calls import address_to_listen_on, open_standard_streams, raise_open_files_limit
from cashier.web.server import BuildApp, ServerConfig, ServerSettings, StoppableServer
from cashier.web.supervisor import Supervisor

# Bytes of responses that the kernel takes beyond what it may send now.
UNSENT_BYTES = 65_536
# Of the files that a process may open, those that are not for connections of clients: a quarter,
# and at least what upstream connections take at start, but never more than half. A client that
# cannot be accepted sees a reset, and a source that cannot be connected to fails everyone.
LEAST_RESERVED_FILES = 64

_log = structlog.get_logger("cashier.web")


def serve(
    settings: ServerSettings,
    build: BuildApp,
    announce: Callable[[str, int], None] | None = None,
    on_worker_end: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer the requests in progress and end.

    `build` runs once in each serving process, in its main thread before its event loop runs. With
    several workers it is pickled, so it must be a function of a module, or a `functools.partial` of
    one. `announce` receives host and port once they accept connections; port 0 in the settings
    picks a free one. `on_worker_end` is called whenever one of several workers has to be replaced.
    SIGHUP is blocked until the application unblocks it, and is forwarded to every worker. Raises
    OSError if the address cannot be listened on, `SystemExit` if the application cannot be built or
    opened.
    """
    # A SIGHUP that arrives before the application listens for it must not end the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    open_standard_streams()
    settings = fit_open_files(settings)
    config = ServerConfig(settings, build)
    with _bound_socket(settings) as listener:
        port = listener.getsockname()[1]

        def on_open() -> None:
            if announce is not None:
                announce(settings.host, port)

        if settings.workers == 1:
            # uvicorn raises the signal again at its end. Ctrl+C is a normal end.
            with contextlib.suppress(KeyboardInterrupt):
                StoppableServer(config, on_open=on_open).run([listener])
        else:
            Supervisor(config, [listener], on_open, on_worker_end).run()


def fit_open_files(settings: ServerSettings) -> ServerSettings:
    """Lower `max_connections` to what the limit of open files permits; each process has its own."""
    limit = raise_open_files_limit()
    fitting = max(1, limit - min(limit // 2, max(limit // 4, LEAST_RESERVED_FILES)))
    if limit < 0 or settings.max_connections <= fitting:
        return settings
    _log.warning(
        "fewer client connections than [server] max_connections: raise the limit of open files",
        max_connections=fitting,
        open_files=limit,
    )
    return msgspec.structs.replace(settings, max_connections=fitting)


def _bound_socket(settings: ServerSettings) -> socket.socket:
    """A socket that does not listen yet. uvicorn's own would end the process for a taken address.

    A name is resolved, to an IPv4 address if it has one.
    """
    family, address = address_to_listen_on(settings.host, settings.port)
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it. Otherwise the kernel takes megabytes for a client that
        # never reads, and the connection does not notice.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener
