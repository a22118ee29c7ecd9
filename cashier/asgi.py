"""The ASGI application of a configured service, and its reload on SIGHUP.

A reload takes effect between requests. A faulty file changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import structlog

from cashier.core import Cashier
from cashier.fanout.load_shedding import DegradationLadder
from cashier.logs import configure_logs, set_log_level
from cashier.metrics.store import Store
from cashier.ops.run_directory import worker_store
from cashier.pages import Pages
from cashier.settings.loader import file_digest, load
from cashier.settings.schema import Configuration, ConfigurationError, all_faults
from cashier.telemetry.operations_link import OperationsLink
from cashier.telemetry.pseudonyms import Pseudonyms, key_of_run
from cashier.version import __version__
from cashier.web.application import CashierApp, owning_app
from cashier.web.auth import BearerAuth, is_loopback
from cashier.web.cross_origin import AllowedOrigins
from cashier.web.key_file import KeyFile
from cashier.web.rate_limit import CallerLimits
from cashier.wire.resolver import LookupThreads

_log = structlog.get_logger("cashier")

RELOAD_RESULTS = ("applied", "partial", "refused", "error")

# How long a reload waits for the files of the configuration.
READ_S = 10.0
# How often a worker reports its state.
STATE_S = 1.0


def configured_app(path: str, server: Mapping[str, Any] | None = None, run_directory: Path | None = None) -> CashierApp:
    """Build the application from `cashier.toml`. It opens its `Cashier` when the server starts.

    `server` as in `settings.loader.load`. `run_directory`: where the operations port finds this
    process. Raises `ConfigurationError`.
    """
    configure_logs()  # a worker process starts here
    read = partial(load, path, server=server)
    config = read()
    set_log_level(config.settings.telemetry.log_level)
    metrics = worker_store(run_directory) or Store(enabled=config.settings.operations.enabled)
    metrics.gauge("cashier_build_info", __version__, platform.python_version()).set(1)
    ladder = DegradationLadder(config.settings.shed, metrics)
    with all_faults() as noting:
        with noting():
            auth = bearer_auth(config)
        with noting():
            cashier = Cashier(
                config=config,
                ladder=ladder,
                metrics=metrics,
                pseudonyms=Pseudonyms(key_of_run(run_directory)),
            )
            pages = served_pages(cashier)
    for result in RELOAD_RESULTS:
        # From the start, because a first increase shows only in a series that was there before.
        cashier.metrics.counter("cashier_config_reload_total", result)
    origins = AllowedOrigins(config.settings.merchants)
    application = owning_app(
        lambda: open_and_reload(cashier, origins, read, run_directory),
        bearer_auth=auth,
        ladder=ladder,
        origins=origins,
        metrics=metrics,
        pages=pages,
        limits=CallerLimits(config.settings.limits) if config.settings.limits.on else None,
        trusts_named_payers=config.settings.auth.mode == "none" and is_loopback(config.settings.server.host),
    )
    application.access_log = config.settings.telemetry.access_log
    return application


async def reload(cashier: Cashier, origins: AllowedOrigins, read: Callable[[], Configuration]) -> None:
    """Read the configuration again and apply it. The log has the outcome, and the metrics."""
    reloads = partial(cashier.metrics.counter, "cashier_config_reload_total")
    config, digest = await _outcome_of(read, cashier.config.source)
    try:
        if isinstance(config, Exception):
            raise config
        takes_a_restart = cashier.reload(config)
        origins.replace(config.settings.merchants)
        set_log_level(config.settings.telemetry.log_level)
    except ConfigurationError as error:
        _log.error("configuration not reloaded: it has faults", faults=error.faults)
        reloads("refused").add()
        cashier.configuration_history.record_refused(digest, error.faults)
        return
    except Exception:  # noqa: BLE001 - a bug must not end the task that waits for signals, and so the service
        _log.exception("configuration not reloaded")
        reloads("error").add()
        cashier.configuration_history.record_crashed(digest)
        return
    log_warnings(config)
    reloads("partial" if takes_a_restart else "applied").add()
    if takes_a_restart:
        _log.warning("configuration reloaded, except for changes that take a restart", takes_a_restart=takes_a_restart)
    else:
        _log.info("configuration reloaded")


async def _outcome_of(read: Callable[[], Configuration], source: str) -> tuple[Configuration | Exception, str]:
    """What `read` returns or raises, and the digest of the file at `source`.

    On a thread that a stop does not wait for: a file system may hang.
    """

    def outcome(source: str) -> tuple[Configuration | Exception, str]:
        try:
            config: Configuration | Exception = read()
        except Exception as error:  # noqa: BLE001 - raised again by the caller
            config = error
        return config, file_digest(source)

    try:
        async with asyncio.timeout(READ_S):
            return await LookupThreads(outcome)(source)
    except OSError as error:
        why = error.strerror or f"its file system has not answered within {READ_S:g} s"
        return ConfigurationError([f"{source}: cannot be read: {why}; reload again"]), ""


def log_warnings(config: Configuration) -> None:
    if config.warnings:
        _log.warning("the configuration has settings that can hardly be meant", warnings=config.warnings)


@asynccontextmanager
async def open_and_reload(
    cashier: Cashier, origins: AllowedOrigins, read: Callable[[], Configuration], run_directory: Path | None = None
) -> AsyncIterator[Cashier]:
    """Open the cashier and reload it on SIGHUP. Needs the main thread, which receives signals.

    `run_directory`: where the operations port's process takes records and states.
    """
    async with cashier, reporting(cashier, run_directory), anyio.create_task_group() as tasks:
        with anyio.open_signal_receiver(signal.SIGHUP) as hangups:
            # The server blocks the signal while no receiver exists: it would end the process, which
            # may be waiting for payments under way.
            mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
            tasks.start_soon(_reload_on_signal, hangups, cashier, origins, read)
            try:
                yield cashier
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def reporting(cashier: Cashier, run_directory: Path | None) -> AsyncIterator[None]:
    """Report records, steps of payments, and the state once a second, to the port's process.

    `run_directory`: where it takes them; None: there is none.
    """
    if run_directory is None:
        yield
        return
    report = asyncio.create_task(_report(cashier, OperationsLink(run_directory, cashier.metrics)))
    try:
        yield
    finally:
        report.cancel()
        await asyncio.wait((report,))


async def _report(cashier: Cashier, link: OperationsLink) -> None:
    cashier.recorder.send = cashier.payment_steps.send = link.send_record
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            while True:
                link.send_state(cashier.state())
                await anyio.sleep(STATE_S)
    except Exception:  # noqa: BLE001 - a bug here must not end the service
        _log.exception("operators do not see this worker any more, except its metrics", pid=os.getpid())
    finally:
        cashier.recorder.send = cashier.payment_steps.send = None


async def _reload_on_signal(
    signals: AsyncIterator[signal.Signals],
    cashier: Cashier,
    origins: AllowedOrigins,
    read: Callable[[], Configuration],
) -> None:
    async for _ in signals:
        await reload(cashier, origins, read)


def served_pages(cashier: Cashier) -> Pages | None:
    """None where `[pages]` is not enabled. Raises `ConfigurationError`."""
    config = cashier.config
    if not config.settings.pages.enabled:
        return None
    try:
        return Pages(cashier)
    except ValueError as error:
        raise ConfigurationError([f"{config.source}: {error}"]) from None


def bearer_auth(config: Configuration) -> BearerAuth | None:
    """None without authentication. Raises `ConfigurationError`."""
    auth = config.settings.auth
    if auth.mode == "none":
        return None
    try:
        if not auth.jwks_file:
            return BearerAuth(auth)
        keys = KeyFile(auth.jwks_file)
        return BearerAuth(auth, keys.read(), keys.read_changed)
    except (OSError, ValueError) as error:
        key = "jwks_file" if auth.jwks_file else "secret"
        raise ConfigurationError([f"{config.source}: [auth] {key}: {error}"]) from None
