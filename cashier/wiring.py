"""The composition root of the engine: the only module that builds one. Everything else is handed what it needs."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec
import structlog

from cashier.consultation.flow import Consultation, ConsultFlow, ConsultSettings
from cashier.consultation.plan import SOURCE_NAMES, SOURCE_SPECS, SourceSpec, consultation_plan, known_inputs
from cashier.consultation.plan_report import faults
from cashier.consultation.source_pipeline import SourcePipeline
from cashier.domain.order import ConsultRequest
from cashier.fanout.batch import Batch
from cashier.fanout.l2.interface import Invalidated, Reach, SourceUnknown
from cashier.fanout.l2.valkey_cache import Dropped, ValkeyCache
from cashier.fanout.load_shedding import DegradationLadder, LoopLagMonitor
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.upstream import Upstream
from cashier.payments.channel_health import ChannelHealth
from cashier.payments.flow import PaymentFlow
from cashier.payments.live_attempts import LiveAttempts
from cashier.payments.ports import ConsultUncached, PaymentPorts
from cashier.settings.loader import SECRET_VARIABLE, configuration, load, token_secrets
from cashier.settings.plugins import adapter_of, function_of
from cashier.settings.schema import SERVICES, Configuration, ConfigurationError, ServiceSettings, SourceSettings
from cashier.sources.acquirer import AcquirerClient
from cashier.sources.batch_call import BatchWireUpstream
from cashier.sources.engine import EngineClient
from cashier.sources.parse_cache import ParseCache
from cashier.sources.risk import RiskClient
from cashier.sources.source import Source
from cashier.sources.source_upstream import Function, FunctionUpstream, WireUpstream
from cashier.tokens.token_service import TokenService
from cashier.wire.aiohttp_client import AiohttpClient
from cashier.wire.http1 import Http1Client
from cashier.wire.in_process import InProcessTransport
from cashier.wire.transport import CallHeaders, Transport

_log = structlog.get_logger("cashier")
_CLOSE_S = 5.0
# As long as the engine may take for a submit, by default, and somewhat more. What has not ended by then is looked up by who asks again.
_LAST_PAYMENTS_S = 10.0


def utc_now() -> datetime:
    return datetime.now(UTC)


class Cashier:
    """The engine, open between `__aenter__` and `__aexit__`, on one event loop.

    Built from a configuration file by `from_config`, or from async functions of your own:

        Cashier(sources={"order": my_order, "merchant": my_merchant, …})

    Each is called with what its question needs, by name (`order_id`; `merchant_id`; `user_id`; `currency`, `country`; …), and returns the
    contract's answer as a mapping or a struct, or None for "there is none". Functions and configured sources mix: `config` may name the
    rest. Raises `ConfigurationError` where one of the eight is missing or something in the configuration is wrong.

    `risk`, `engine` and `acquirer`, all three or none, take payments: see `payments`. Among `sources` each is one async function that takes
    a whole `Request` and returns a `Response` (`wire.local`).

    `ladder`: what is left undone while the loop has too much to do. Without one nothing is, for the loop may be busy with other things.
    `clock`: the time of day, for simulations.
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, Function] | None = None,
        config: Configuration | Mapping[str, Any] | None = None,
        ladder: DegradationLadder | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        if not isinstance(config, Configuration):
            config = configuration(config or {}, "the configuration handed in")
        _proven(config)
        self.config = self._built = config  # the latter: what the parts that cannot be changed were made from
        self._functions = {name: function for name, function in (sources or {}).items() if name not in SERVICES}
        self._services = {name: function for name, function in (sources or {}).items() if name in SERVICES}
        self._clock = clock
        self._pulse = LoopLagMonitor(ladder) if ladder is not None else None
        self._stack: AsyncExitStack | None = None
        self._transports: list[Transport] = []
        self._valkey = _valkey(config, self._dropped_elsewhere, self._missed)
        self.pipelines = self._build(ladder or DegradationLadder())
        secrets, made_up = token_secrets(config.settings.tokens)
        if made_up:
            _log.warning(
                "tokens are signed with a secret made up for this run",
                remedy="set CASHIER_TOKEN_SECRET, or [tokens] secrets",
            )
        self._signer = _signer(config, secrets)
        self._routes = ChannelHealth(config.routing)
        self._live = LiveAttempts(self._valkey)
        self._upstreams = self._payment_upstreams()
        self.payments: PaymentFlow | None = None
        self._lay_out(config)

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
            stack.callback(self._end_calls)
            if self._valkey is not None:
                stack.push_async_callback(self._valkey.close)
            stack.push_async_callback(self._end_payments)
            async with anyio.create_task_group() as opening:
                for transport in self._transports:
                    opening.start_soon(transport.open)
                if self._valkey is not None:
                    opening.start_soon(self._valkey.open)
            if self._pulse is not None:
                self._pulse.start()
                stack.callback(self._pulse.stop)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    async def consult(
        self,
        request: ConsultRequest,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
        since_ns: int | None = None,
    ) -> Consultation:
        """Which ways to pay there are, now, for this order. Ends by the request's deadline, or the configured one.

        The deadline counts from now, or from `since_ns` where the caller has been waiting since then, by `time.perf_counter_ns`.
        Raises `OrderUnknown`; `RequiredSourceUnavailable`; msgspec.ValidationError for a request that breaks its types' bounds.
        """
        return await self._consult(self._checked(request), _trip(request_id, traceparent), since_ns)

    def stream(
        self, request: ConsultRequest, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Consultation, None]:
        """The same as it unfolds: a first answer as soon as it is usable, a better one whenever something came that shows.

        The last is what `consult` would return. Raises what that does, before the first answer and never after it. To be closed
        (`contextlib.aclosing`) by who does not take all.
        """
        return self._consult.stream(self._checked(request), _trip(request_id, traceparent))

    def invalidate(self, source: str, *, key: str | None = None, prefix: str | None = None) -> Invalidated:
        """Forget what is cached of a source under a key, or under all keys that begin so: something has changed upstream.

        Keys are written `u_1`, `CNY/CN`, `u_1/m_1/CNY/12800`. Raises `SourceUnknown`; ValueError for neither or both.
        """
        if (key is None) == (prefix is None):
            raise ValueError("an invalidation names either a key or a prefix")
        if source not in self.pipelines:
            raise SourceUnknown(source, SOURCE_NAMES)
        dropped = self.pipelines[source].cache.drop(key=key, prefix=prefix)
        if self._valkey is None:
            return Invalidated(source, dropped, Reach.THIS_WORKER)
        self._valkey.drop(source, key=key, prefix=prefix)
        return Invalidated(source, dropped, Reach.ALL_WORKERS if self._valkey.reachable else Reach.THIS_WORKER)

    def reload(self, config: Configuration) -> tuple[str, ...]:
        """Take over source numbers, what is offered, in which words and how it is ranked. No request and nothing learned is lost.

        Returns what differs from how it was built and takes a restart, a sentence each: addresses, transports, tokens, the server. Raises
        `ConfigurationError`, and changes nothing, for one that cannot keep its deadline.
        """
        _proven(config)
        unmoved = tuple(_unmoved(self._built, config))
        self.config = config
        for pipeline in self.pipelines.values():
            pipeline.reconfigure(config.settings)
        self._lay_out(config)
        return unmoved

    def _checked(self, request: ConsultRequest) -> ConsultRequest:
        if self._stack is None:
            raise RuntimeError("this Cashier is not open: use it inside `async with`")
        checked: ConsultRequest = msgspec.convert(msgspec.to_builtins(request), ConsultRequest)
        return checked

    def _lay_out(self, config: Configuration) -> None:
        self.plan = consultation_plan({name: pipeline.binding() for name, pipeline in self.pipelines.items()})
        settings = config.settings
        self._consult = ConsultFlow(
            self.plan,
            known_inputs,
            config.catalog,
            config.weights,
            self._signer.consult_token,
            settings.consult,
            settings.tokens.ttl_s,
            self._clock,
        )
        self._routes.reconfigure(config.routing)
        if self._upstreams is None:
            return
        recheck = self._recheck(config)
        if self.payments is None:
            monotonic = time.monotonic if self._clock is utc_now else lambda: self._clock().timestamp()
            self.payments = PaymentFlow(
                self._upstreams,
                recheck,
                config.catalog,
                self._signer,
                self._routes,
                self._live,
                settings.accept,
                self._clock,
                monotonic,
                _trip,
            )
        else:
            self.payments.reconfigure(recheck, config.catalog, settings.accept)

    def _recheck(self, config: Configuration) -> ConsultUncached:
        """The consultation that an acceptance makes: nothing from a cache, and everybody waited for as long as the payer can wait."""
        check_ms = config.settings.accept.check_ms
        patient = ConsultSettings(check_ms, max(check_ms, 5), check_ms, 0, config.settings.consult.locale)
        plan = consultation_plan(
            {name: pipeline.uncached_binding(check_ms) for name, pipeline in self.pipelines.items()}
        )
        ttl_s = config.settings.tokens.ttl_s
        return ConsultFlow(
            plan, known_inputs, config.catalog, config.weights, self._signer.consult_token, patient, ttl_s, self._clock
        ).weighed

    def _payment_upstreams(self) -> PaymentPorts | None:
        """None where nothing takes payments. Raises `ConfigurationError` where only a part of it is there."""
        settings = self.config.settings.sources
        missing = [name for name in SERVICES if name not in self._services and settings.service(name) is None]
        if len(missing) == len(SERVICES):
            return None
        if missing:
            raise ConfigurationError(
                [
                    f"{self.config.source}: [sources.{name}] is missing; payments need risk, engine and acquirer"
                    for name in missing
                ]
            )
        risk, engine, acquirer = (self._service_transport(name) for name in SERVICES)
        tries = {name: (settings.service(name) or ServiceSettings("")).tries for name in SERVICES}
        return PaymentPorts(
            RiskClient(risk), EngineClient(engine, tries["engine"]), AcquirerClient(acquirer, tries["acquirer"])
        )

    def _service_transport(self, name: str) -> Transport:
        settings = self.config.settings.sources.service(name)
        function = self._services.get(name)
        try:
            if settings is not None and function is None and settings.transport != "local":
                return self._transport(settings)
            transport: Transport = InProcessTransport(function or function_of(settings.urls[0] if settings else ""))
        except ValueError as fault:
            raise ConfigurationError([f"{self.config.source}: [sources.{name}] {fault}"]) from None
        self._transports.append(transport)
        return transport

    def _build(self, ladder: DegradationLadder) -> dict[str, SourcePipeline]:
        wrong = [
            f"there is no source {name!r}; known are {', '.join(SOURCE_NAMES)}"
            for name in self._functions
            if name not in SOURCE_NAMES
        ]
        settings = self.config.settings
        store = S3FifoStore(settings.cache.l1_entries)
        stacks: dict[str, SourcePipeline] = {}
        for question in SOURCE_SPECS:
            name = question.source.name
            found = settings.sources[name]
            try:
                if name not in self._functions and found is None:
                    wrong.append(
                        f'{self.config.source}: [sources.{name}] is missing; it needs a url, such as "http://127.0.0.1:9100"'
                    )
                    continue
                stacks[name] = SourcePipeline(
                    question, self._upstream(question, found), settings, ladder, store, self._valkey
                )
            except ValueError as fault:
                wrong.append(f"{self.config.source}: [sources.{name}] {fault}")
        if wrong:
            raise ConfigurationError(wrong)
        return stacks

    def _upstream(self, question: SourceSpec, settings: SourceSettings | None) -> Upstream:
        source = question.source
        if source.name in self._functions or settings is None:
            return FunctionUpstream(source, self._functions[source.name], question.needs)
        if settings.transport == "local":
            return FunctionUpstream(source, function_of(settings.urls[0]), question.needs)
        adapter = source if settings.adapter is None else adapter_of(settings.adapter)
        if settings.batch:
            return Batch(BatchWireUpstream(adapter, self._transport(settings), settings.batch.path), settings.batch)
        if isinstance(adapter, Source) and adapter.recurring:
            adapter = ParseCache(adapter)
        return WireUpstream(adapter, self._transport(settings))

    def _transport(self, settings: SourceSettings | ServiceSettings) -> Transport:
        via_aiohttp = settings.transport == "aiohttp"
        transport: Transport = (
            AiohttpClient(settings.urls, settings.aiohttp)
            if via_aiohttp
            else Http1Client(settings.urls, settings.http1)
        )
        self._transports.append(transport)
        return transport

    async def _end_payments(self) -> None:
        """Nobody waits any more, and what was begun has its time to end: it may be money."""
        if self.payments is None:
            return
        self.payments.stop_waiting()
        with anyio.move_on_after(_LAST_PAYMENTS_S, shield=True) as bound:
            await self.payments.drain()
        if bound.cancelled_caught:
            _log.warning(
                "payments were still under way at the stop; whoever asks again is told of them",
                left=repr(self.payments),
            )

    def _end_calls(self) -> None:
        for pipeline in self.pipelines.values():
            pipeline.close()

    def _dropped_elsewhere(self, source: str, key: str | None, prefix: str | None) -> None:
        if source in self.pipelines:  # workers of another version may know others
            self.pipelines[source].cache.drop(key=key, prefix=prefix)

    def _missed(self) -> None:
        """Invalidations may have gone unheard, so nothing that is cached can be believed."""
        for pipeline in self.pipelines.values():
            pipeline.cache.drop(prefix="")


def _valkey(config: Configuration, dropped: Dropped, missed: Callable[[], None]) -> ValkeyCache | None:
    url = config.settings.cache.shared
    if not url:
        return None
    try:
        return ValkeyCache(url, dropped, missed)
    except ValueError as fault:
        raise ConfigurationError([f"{config.source}: [cache] shared: {fault}"]) from None


def _trip(request_id: str | None, traceparent: str | None) -> CallHeaders:
    return CallHeaders(request_id or uuid.uuid4().hex, traceparent)


def _proven(config: Configuration) -> None:
    found = [f"{config.source}: {fault}" for fault in faults(config.settings)]
    if found:
        raise ConfigurationError(found)


def _unmoved(before: Configuration, after: Configuration) -> Iterator[str]:
    """What differs and cannot be changed while it runs."""
    old, new = before.settings, after.settings
    for table in ("server", "auth", "tokens", "cache", "shed"):
        if getattr(old, table) != getattr(new, table):
            yield f"[{table}] has changed; that takes a restart"
    if old.accept.most_under_way != new.accept.most_under_way:
        yield "[accept] most_under_way has changed; that takes a restart"
    for name in SOURCE_NAMES:
        was, now = old.sources[name], new.sources[name]
        if (was is None) != (now is None):
            yield f"[sources.{name}] has come or gone; that takes a restart"
        elif was is not None and now is not None:
            yield from (
                f"[sources.{name}] {key} has changed; that takes a restart"
                for key in ("url", "transport", "adapter", "http1", "aiohttp", "batch")
                if getattr(was, key) != getattr(now, key)
            )
    yield from (
        f"[sources.{name}] has changed; that takes a restart"
        for name in SERVICES
        if old.sources.service(name) != new.sources.service(name)
    )


def _signer(config: Configuration, secrets: tuple[str, ...]) -> TokenService:
    try:
        return TokenService(secrets)
    except ValueError as fault:
        where = (
            config.source
            if config.settings.tokens.secrets
            else f"the environment's {SECRET_VARIABLE}, which stands for"
        )
        raise ConfigurationError([f"{where}: {fault}"]) from None


async def _close(transports: list[Transport]) -> None:
    """All at once. An upstream that does not let go is no reason to hang a stop."""
    with anyio.move_on_after(_CLOSE_S, shield=True) as bound:
        async with anyio.create_task_group() as closing:
            for transport in transports:
                closing.start_soon(transport.close)
    if bound.cancelled_caught:
        _log.warning("connections to upstreams did not close in time", seconds=_CLOSE_S)
