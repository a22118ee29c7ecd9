"""A configured service: its door, and how it follows its configuration while it runs.

On SIGHUP the configuration is read anew and taken over while requests go on. A file that is wrong changes nothing.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import structlog

from cashier.core import Cashier
from cashier.fanout.load_shedding import DegradationLadder
from cashier.logs import configure_logs
from cashier.settings.loader import load
from cashier.settings.schema import Configuration, ConfigurationError
from cashier.web.application import CashierApp, owning_app
from cashier.web.auth import BearerAuth

_log = structlog.get_logger("cashier")


def door(path: str, server: Mapping[str, Any] | None = None) -> CashierApp:
    """The ASGI application of a configured service, which opens its engine when the server starts. Raises `ConfigurationError`.

    `server` as in `settings.load`.
    """
    configure_logs()  # worker processes begin here
    read = partial(load, path, server=server)
    config = read()
    ladder = DegradationLadder(config.settings.shed)
    cashier = Cashier(config=config, ladder=ladder)
    return owning_app(lambda: _following(cashier, read), doorkeeper=_doorkeeper(config), ladder=ladder)


async def reload(cashier: Cashier, read: Callable[[], Configuration]) -> None:
    """Take over the configuration as it is now. Says in the log what has become of it."""
    try:
        config = await anyio.to_thread.run_sync(read)  # the loop has requests to answer
        left = cashier.reload(config)
    except ConfigurationError as wrong:
        _log.error("the configuration is wrong; everything stays as it was", faults=wrong.faults)
        return
    _log.info("the configuration was read anew", takes_a_restart=left)


@asynccontextmanager
async def _following(cashier: Cashier, read: Callable[[], Configuration]) -> AsyncIterator[Cashier]:
    """Open, and following its configuration. Only the main thread hears signals."""
    async with cashier, anyio.create_task_group() as listening:
        with anyio.open_signal_receiver(signal.SIGHUP) as hangups:
            signal.pthread_sigmask(
                signal.SIG_UNBLOCK, {signal.SIGHUP}
            )  # the server held it back until somebody listens
            listening.start_soon(_follow, hangups, cashier, read)
            yield cashier
            listening.cancel_scope.cancel()


async def _follow(hangups: AsyncIterator[signal.Signals], cashier: Cashier, read: Callable[[], Configuration]) -> None:
    async for _ in hangups:
        await reload(cashier, read)


def _doorkeeper(config: Configuration) -> BearerAuth | None:
    auth = config.settings.auth
    if auth.mode == "none":
        return None
    try:
        return BearerAuth(auth, Path(auth.jwks_file).read_text("utf-8") if auth.jwks_file else "")
    except (OSError, ValueError) as fault:
        raise ConfigurationError([f"{config.source}: [auth] jwks_file or secret: {fault}"]) from None
