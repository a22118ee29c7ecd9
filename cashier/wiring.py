"""The composition root: the only module that builds things. Everything else is handed what it needs."""

from __future__ import annotations

import importlib
import inspect
import os
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec
import structlog

from cashier.consult import Consult, Consultation
from cashier.domain.order import ConsultRequest
from cashier.fanout.ask import Start
from cashier.fanout.plan import Plan
from cashier.fanout.upstream import unguarded
from cashier.plan import NAMES, QUESTIONS, consultation, known
from cashier.settings import SECRET_VARIABLE, Configuration, ConfigurationError, SourceSettings, configuration, load, token_secrets
from cashier.sources.call import Function, InProcess, OverWire
from cashier.sources.source import Adapter
from cashier.watch.logs import configure_logs
from cashier.web.auth import Doorkeeper
from cashier.web.door import Door, owning_app
from cashier.web.token import Signer
from cashier.wire.exchange import Transport, Trip
from cashier.wire.http1 import Http1
from cashier.wire.via_aiohttp import ViaAiohttp

_log = structlog.get_logger("cashier")
_CLOSE_S = 5.0


class Cashier:
    """The engine, open between `__aenter__` and `__aexit__`, on one event loop.

    Built from a configuration file by `from_config`, or from async functions of your own:

        Cashier(sources={"order": my_order, "merchant": my_merchant, …})

    Each is called with what its question needs, by name (`order_id`; `merchant_id`; `user_id`; `currency`, `country`; …), and returns the
    contract's answer as a mapping or a struct, or None for "there is none". Functions and configured sources mix: `config` may name the
    rest. Raises `ConfigurationError` where one of the eight is missing or something in the configuration is wrong.
    """

    def __init__(self, *, sources: Mapping[str, Function] | None = None, config: Configuration | Mapping[str, Any] | None = None) -> None:
        if not isinstance(config, Configuration):
            config = configuration(config or {}, "the configuration handed in")
        self.config = config
        self._transports: list[Transport] = []
        self._stack: AsyncExitStack | None = None
        self.plan = self._plan(sources or {})
        secrets, made_up = token_secrets(config.settings.tokens)
        if made_up:
            _log.warning("tokens are signed with a secret made up for this run", remedy="set CASHIER_TOKEN_SECRET, or [tokens] secrets")
        settings = config.settings
        self._consult = Consult(
            self.plan,
            known,
            config.catalog,
            config.weights,
            _signer(config, secrets).consult_token,
            settings.consult,
            settings.tokens.ttl_s,
            _now,
        )

    @classmethod
    def from_config(cls, path: str | os.PathLike[str], *, sources: Mapping[str, Function] | None = None) -> Self:
        """From `cashier.toml`, and the files beside it. `sources` take the place of those configured under the same names."""
        return cls(sources=sources, config=load(path))

    @property
    def ready(self) -> bool:
        return self._stack is not None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_close, self._transports)
            async with anyio.create_task_group() as opening:
                for transport in self._transports:
                    opening.start_soon(transport.open)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    async def consult(self, request: ConsultRequest, *, request_id: str | None = None, traceparent: str | None = None) -> Consultation:
        """Which ways to pay there are, now, for this order. Ends by the request's deadline, or the configured one.

        Raises `OrderUnknown`; `RequiredSourceUnavailable`; msgspec.ValidationError for a request that breaks its types' bounds.
        """
        if self._stack is None:
            raise RuntimeError("this Cashier is not open: use it inside `async with`")
        checked: ConsultRequest = msgspec.convert(msgspec.to_builtins(request), ConsultRequest)
        return await self._consult(checked, Trip(request_id or uuid.uuid4().hex, traceparent))

    def _plan(self, functions: Mapping[str, Function]) -> Plan:
        faults = [f"there is no source {name!r}; known are {', '.join(NAMES)}" for name in functions if name not in NAMES]
        starts: dict[str, Start] = {}
        timeouts_ms: dict[str, int] = {}
        for question in QUESTIONS:
            source, name = question.source, question.source.name
            settings = self.config.settings.sources[name]
            if settings is not None and settings.timeout_ms is not None:
                timeouts_ms[name] = settings.timeout_ms
            try:
                if name in functions:
                    starts[name] = unguarded(InProcess(source, functions[name], question.needs))
                elif settings is None:
                    faults.append(f'{self.config.source}: [sources.{name}] is missing; it needs a url, such as "http://127.0.0.1:9100"')
                elif settings.transport == "local":
                    starts[name] = unguarded(InProcess(source, _function(settings.urls[0]), question.needs))
                else:
                    starts[name] = unguarded(OverWire(_adapter(settings, source), self._transport(settings)))
            except ValueError as fault:
                faults.append(f"{self.config.source}: [sources.{name}] {fault}")
        if faults:
            raise ConfigurationError(faults)
        return consultation(starts, timeouts_ms)

    def _transport(self, settings: SourceSettings) -> Transport:
        via_aiohttp = settings.transport == "aiohttp"
        transport: Transport = ViaAiohttp(settings.urls, settings.aiohttp) if via_aiohttp else Http1(settings.urls, settings.http1)
        self._transports.append(transport)
        return transport


def door(path: str, server: Mapping[str, Any] | None = None) -> Door:
    """The ASGI application of a configured service, which opens its engine when the server starts. Raises `ConfigurationError`.

    `server` as in `settings.load`.
    """
    configure_logs()  # worker processes begin here
    config = load(path, server=server)
    cashier = Cashier(config=config)
    return owning_app(lambda: cashier, doorkeeper=_doorkeeper(config))


def _doorkeeper(config: Configuration) -> Doorkeeper | None:
    auth = config.settings.auth
    if auth.mode == "none":
        return None
    try:
        return Doorkeeper(auth, Path(auth.jwks_file).read_text("utf-8") if auth.jwks_file else "")
    except (OSError, ValueError) as fault:
        raise ConfigurationError([f"{config.source}: [auth] jwks_file or secret: {fault}"]) from None


def _signer(config: Configuration, secrets: tuple[str, ...]) -> Signer:
    try:
        return Signer(secrets)
    except ValueError as fault:
        where = config.source if config.settings.tokens.secrets else f"the environment's {SECRET_VARIABLE}, which stands for"
        raise ConfigurationError([f"{where}: {fault}"]) from None


async def _close(transports: list[Transport]) -> None:
    """All at once. An upstream that does not let go is no reason to hang a stop."""
    with anyio.move_on_after(_CLOSE_S, shield=True) as bound:
        async with anyio.create_task_group() as closing:
            for transport in transports:
                closing.start_soon(transport.close)
    if bound.cancelled_caught:
        _log.warning("connections to upstreams did not close in time", seconds=_CLOSE_S)


def _now() -> datetime:
    return datetime.now(UTC)


def _adapter(settings: SourceSettings, default: Adapter) -> Adapter:
    if settings.adapter is None:
        return default
    adapter: Adapter = _named(settings.adapter, "adapter")
    missing = [name for name in ("request", "parse") if not callable(getattr(adapter, name, None))]
    if missing:
        raise ValueError(f"adapter {settings.adapter!r} has no function {' and no '.join(missing)}")
    return adapter


def _function(text: str) -> Function:
    found = _named(text, "url")
    if not callable(found) or (inspect.isroutine(found) and not inspect.iscoroutinefunction(found)):
        raise ValueError(f"url {text!r} is not an async function")
    function: Function = found
    return function


def _named(text: str, key: str) -> Any:
    """The module, or the attribute of one, that `package.module[:name]` names."""
    module_name, _, attribute = text.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as fault:  # noqa: BLE001 - a module of the user's may fail in any way, and the configuration is what is at fault
        raise ValueError(f"{key} {text!r} cannot be imported: {type(fault).__name__}: {fault}") from None
    found: Any = module
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part, None)
        if found is None:
            raise ValueError(f"{key} {text!r}: {module_name} has no {attribute}")
    return found
