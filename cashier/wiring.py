"""Wiring: construct the parts of a `Cashier`. No other module constructs them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import structlog
from msgspec import Struct
from msgspec.structs import replace

from cashier.consultation.cache_invalidation import CacheInvalidation
from cashier.consultation.end import Observers
from cashier.consultation.flow import ConsultFlow, ConsultSettings
from cashier.consultation.plan_report import faults
from cashier.consultation.source_pipeline import SourcePipeline
from cashier.consultation.source_table import SOURCE_NAMES, SOURCE_SPECS, SourceSpec, consultation_plan, known_inputs
from cashier.fanout.ask import Importance
from cashier.fanout.batch import Batch
from cashier.fanout.failure_log import FailureLog
from cashier.fanout.l2.valkey_cache import OnInvalidation, ValkeyCache
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.plan import Plan, latest_ends_ms
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.timer_wheel import TimerWheel
from cashier.fanout.upstream_protocol import Upstream
from cashier.metrics.store import Store
from cashier.payments.attempt_leases import AttemptLeases
from cashier.payments.channel_health import ChannelHealth
from cashier.payments.flow import PaymentFlow
from cashier.payments.policy import PaymentPolicy
from cashier.payments.ports import PaymentPort, PaymentPorts
from cashier.payments.step_feed import StepFeed
from cashier.settings.loader import SECRET_VARIABLE, token_secrets
from cashier.settings.payment_faults import payment_faults
from cashier.settings.plugins import adapter_object, faults_of, function_of, service_of
from cashier.settings.schema import (
    SERVICES,
    Configuration,
    ConfigurationError,
    ServiceSettings,
    SourceSettings,
    all_faults,
)
from cashier.sources.acquirer import AcquirerClient
from cashier.sources.adapter import Adapter
from cashier.sources.adapter_hooks import AdapterHooks
from cashier.sources.adapter_settings import AdapterSettings
from cashier.sources.adapter_upstream import AdapterBatchUpstream, AdapterUpstream
from cashier.sources.auth.authenticated_transport import AuthenticatedTransport
from cashier.sources.auth.authenticator import Authenticator
from cashier.sources.auth.methods import AuthMethods
from cashier.sources.batch_call import BatchWireUpstream
from cashier.sources.engine import EngineClient
from cashier.sources.parse_cache import ParseCache
from cashier.sources.risk import RiskClient
from cashier.sources.service_adapter import AdapterTransport, ServiceAdapter
from cashier.sources.service_object import local_transport
from cashier.sources.source_upstream import FunctionUpstream, UpstreamFunction, WireUpstream
from cashier.telemetry.collector_client import CollectorClient
from cashier.telemetry.collector_url import CollectorUrl
from cashier.telemetry.consultation_metrics import ConsultationMetrics
from cashier.telemetry.otlp_environment import otlp_headers, resource_attributes
from cashier.telemetry.recorder import Recorder
from cashier.telemetry.span_exporter import SpanExporter
from cashier.telemetry.traced_payments import TracedPaymentFlow
from cashier.telemetry.traced_ports import traced_ports, traced_recheck
from cashier.telemetry.traced_transport import TracedTransport
from cashier.telemetry.tracing import Tracing
from cashier.tokens.token_service import TokenService
from cashier.version import __version__
from cashier.web.payment_problems import refusal_for
from cashier.wire.address_parser import parse_address
from cashier.wire.aiohttp_client import AiohttpClient
from cashier.wire.discovery import Discovery
from cashier.wire.file_watch import FileWatch
from cashier.wire.http1 import Http1Client
from cashier.wire.resolver import Resolution, Resolver
from cashier.wire.transport import CallHeaders, NetworkTransport, Transport

_log = structlog.get_logger("cashier")

WrapTransport = Callable[[str, Transport], Transport]
"""Takes the name of a source and its transport; returns the one to use."""
OnMapping = Callable[[str, bytes], None]
"""Takes the name of a source, and the answer of its adapter as JSON before it is checked."""


def _unchanged(_name: str, transport: Transport) -> Transport:
    return transport


class Resource(Protocol):
    """An adapter, a token's fetcher: opened before the first call, closed with the transports."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...


class CoherenceCallbacks(NamedTuple):
    """What a worker does about other workers' invalidations: see `ValkeyCache`.

    `drop`: one came. `drop_all`: some may have been missed. `distrust`: none come from now on.
    """

    drop: OnInvalidation
    drop_all: Callable[[], None]
    distrust: Callable[[], None]


class Parts(Struct, frozen=True):
    """Everything that lives as long as a `Cashier`. `payment_ports`: None without payments.

    `required`: those of the transports, by source, without which there is no answer. `network`:
    those with connections, by source or service. `observers`: what is called after each
    consultation. `tracing`: None if it is off.
    """

    pipelines: dict[str, SourcePipeline]
    transports: list[Transport]
    resources: list[Resource]
    required: dict[str, Transport]
    network: dict[str, NetworkTransport]
    resolver: Resolver
    valkey: ValkeyCache | None
    tokens: TokenService
    payment_ports: PaymentPorts | None
    failures: FailureLog
    metrics: Store
    answers: S3FifoStore
    observers: Observers
    recorder: Recorder
    tracing: Tracing | None


def build(
    config: Configuration,
    given: Mapping[str, UpstreamFunction | PaymentPort],
    tokens: TokenService,
    ladder: DegradationLadder,
    metrics: Store,
    coherence: CoherenceCallbacks,
) -> Parts:
    """`given`: functions and port objects; they replace configured sources of the same name.

    Raises `ConfigurationError`.
    """
    resolver = Resolver()
    failures = FailureLog(_log.warning, _log.info)
    tracing = _tracing(config, metrics)
    wrap = _unchanged if tracing is None else TracedTransport
    builder = _UpstreamBuilder(config, given, failures, resolver, metrics, wrap)
    answers = S3FifoStore(config.settings.cache.l1_entries, metrics)
    with all_faults() as noting:
        with noting():
            valkey = _valkey(config, coherence, resolver, metrics)
        with noting():
            upstreams, payment_ports = builder.upstreams_and_ports()
    pipelines = builder.pipelines(upstreams, ladder, valkey, answers)
    observers, recorder = Observers(), Recorder(config.settings.telemetry, metrics)
    if metrics.enabled:
        observers.add(ConsultationMetrics(metrics, pipelines).on_end)
    observers.add(recorder)
    if tracing is not None:
        recorder.on_traced = tracing.on_traced
    return Parts(
        pipelines=pipelines,
        transports=builder.transports,
        resources=builder.resources(),
        required=builder.required,
        network=builder.network,
        resolver=resolver,
        valkey=valkey,
        tokens=tokens,
        payment_ports=payment_ports,
        failures=failures,
        metrics=metrics,
        answers=answers,
        observers=observers,
        recorder=recorder,
        tracing=tracing,
    )


def upstreams(
    config: Configuration,
    given: Mapping[str, UpstreamFunction | PaymentPort],
    wrap: WrapTransport,
    on_mapping: OnMapping,
) -> tuple[dict[str, Upstream], PaymentPorts | None, list[Resource]]:
    """The configured upstreams without any mechanism, and what they need to be open.

    `wrap` may replace each one's transport. Raises `ConfigurationError`.
    """
    builder = _UpstreamBuilder(
        config, given, FailureLog(_log.warning, _log.info), Resolver(), Store(), wrap, on_mapping
    )
    return *builder.upstreams_and_ports(), builder.resources()


def load_adapter(
    spec: SourceSpec,
    settings: SourceSettings,
    text: str,
    folder: Path | None,
    on_mapping: Callable[[bytes], None] = lambda body: None,
    on_raised: Callable[[BaseException], None] = lambda fault: None,
) -> Adapter:
    """The adapter that `text` names. Raises ValueError."""
    taken = adapter_settings(spec.source.name, settings)
    loaded = adapter_object(text, taken, folder)
    with faults_of(f"adapter {text!r}", ValueError):
        return Adapter(text, loaded, spec.source, spec.needs, on_mapping, on_raised)


def adapter_settings(name: str, settings: SourceSettings | ServiceSettings) -> AdapterSettings:
    """What the adapter of a source or service is given. Raises ValueError."""
    return AdapterSettings(name, MappingProxyType(settings.options or {}), path_prefix(settings))


def path_prefix(settings: SourceSettings | ServiceSettings) -> str:
    """The prefix of the url of a source with an adapter or `auth`. Raises ValueError."""
    prefixes = sorted({parse_address(url).prefix for url in settings.urls})
    if len(prefixes) > 1:
        whose = "an adapter" if settings.adapter is not None else "auth"
        raise ValueError(f"url: with {whose} all addresses need the same path prefix, not {', '.join(prefixes)}")
    return prefixes[0]


def make_transport(
    settings: SourceSettings | ServiceSettings, resolver: Resolver, files: FileWatch, *, keep_headers: bool = False
) -> NetworkTransport:
    """Without `auth`. Raises ValueError."""
    if settings.transport == "aiohttp":
        return AiohttpClient(settings.urls, settings.aiohttp, resolver, keep_headers=keep_headers, files=files)
    return Http1Client(
        settings.urls,
        settings.http1,
        resolver,
        keep_headers=keep_headers,
        discovery=discovery_of(settings, resolver),
        files=files,
    )


def discovery_of(settings: SourceSettings | ServiceSettings, resolver: Resolver) -> Discovery | None:
    """Raises ValueError."""
    if settings.discover is None:
        return None
    return Discovery(settings.discover, parse_address(settings.urls[0]), resolver)


async def discovered(config: Configuration) -> dict[str, Resolution | OSError]:
    """What discovery finds now, by source or service. Raises `ConfigurationError`."""
    resolver = Resolver()
    found: dict[str, Discovery] = {}
    for name in (*SOURCE_NAMES, *SERVICES):
        settings = _network_settings(config, name)
        try:
            discovery = None if settings is None else discovery_of(settings, resolver)
        except ValueError as fault:
            raise ConfigurationError([f"{config.source}: [sources.{name}] discover: {fault}"]) from None
        if discovery is not None:
            found[name] = discovery
    lookups = await asyncio.gather(*(discovery.look_up() for discovery in found.values()))
    await asyncio.gather(*(discovery.close() for discovery in found.values()))
    resolver.close()
    return dict(zip(found, lookups, strict=True))


def rediscover(parts: Parts, built: Configuration, config: Configuration) -> None:
    """Apply changes of `discover`. Raises `ConfigurationError`, and changes nothing then.

    `built`: what the parts were made from. A change of the url takes a restart.
    """
    changed: list[tuple[Http1Client, Discovery | None]] = []
    for name, transport in parts.network.items():
        was, now = _network_settings(built, name), _network_settings(config, name)
        if was is None or now is None or was.urls != now.urls or not isinstance(transport, Http1Client):
            continue
        if now.discover == (transport.discovery and transport.discovery.settings):
            continue
        try:
            changed.append((transport, discovery_of(now, parts.resolver)))
        except ValueError as fault:
            raise ConfigurationError([f"{config.source}: [sources.{name}] discover: {fault}"]) from None
    for transport, discovery in changed:
        transport.discover(discovery)


def _network_settings(config: Configuration, name: str) -> SourceSettings | ServiceSettings | None:
    sources = config.settings.sources
    return sources.service(name) if name in SERVICES else sources[name]


def adapter_transport(settings: SourceSettings) -> tuple[Transport, list[Resource]]:
    """The transport of one source with an adapter, and what it needs. Raises ValueError."""
    resolver, files = Resolver(), FileWatch()
    methods = AuthMethods(files, resolver)
    transport: Transport = make_transport(settings, resolver, files, keep_headers=True)
    if settings.auth is not None:
        transport = AuthenticatedTransport(methods.of(settings.auth, path_prefix(settings)), transport)
    return transport, [*methods.token_fetchers, files]


def authenticators(config: Configuration) -> tuple[dict[str, Authenticator], list[Resource]]:
    """Of the sources and services with `auth`, and what they need. Raises `ConfigurationError`."""
    files = FileWatch()
    methods = AuthMethods(files, Resolver())
    found: dict[str, Authenticator] = {}
    for name in (*SOURCE_NAMES, *SERVICES):
        own = _network_settings(config, name)
        if own is not None and own.auth is not None:
            try:
                found[name] = methods.of(own.auth, path_prefix(own))
            except ValueError as fault:
                raise ConfigurationError([f"{config.source}: [sources.{name}] {fault}"]) from None
    return found, [*methods.token_fetchers, files]


def consult_flow(parts: Parts, config: Configuration, clock: Callable[[], datetime]) -> tuple[Plan, ConsultFlow]:
    plan = consultation_plan({name: pipeline.binding() for name, pipeline in parts.pipelines.items()})
    return plan, _consult_flow(parts, config, plan, config.settings.consult, clock)


def recheck_flow(parts: Parts, config: Configuration, clock: Callable[[], datetime]) -> ConsultFlow:
    """The recheck reads no cache, and gives every source the time that the payer can wait.

    Also one that has to wait for the order first.
    """
    settings = config.settings
    plan = consultation_plan(
        {name: pipeline.uncached_binding(settings.check_ms(name)) for name, pipeline in parts.pipelines.items()}
    )
    all_end_ms = max(latest_ends_ms(plan).values())
    patient = ConsultSettings(
        deadline_ms=all_end_ms,
        max_deadline_ms=all_end_ms,
        grace_ms=all_end_ms,
        reserve_ms=0,
        locale=settings.consult.locale,
    )
    return _consult_flow(parts, config, plan, patient, clock, recheck=True)


def payment_policy(config: Configuration, recheck: ConsultFlow) -> PaymentPolicy:
    return PaymentPolicy(
        settings=config.settings.accept_in_effect,
        catalog=config.catalog,
        routing=config.routing,
        consult_uncached=traced_recheck(recheck.with_case),
    )


def payment_flow(
    parts: Parts,
    policy: PaymentPolicy,
    clock: Callable[[], datetime],
    monotonic: Callable[[], float],
    call_headers: Callable[[str | None, str | None], CallHeaders],
    steps: StepFeed,
) -> PaymentFlow | None:
    """None without payment services."""
    if parts.payment_ports is None:
        return None
    make: Callable[..., PaymentFlow] = PaymentFlow
    ports, tracing = parts.payment_ports, parts.tracing
    if tracing is not None:
        make, ports = partial(TracedPaymentFlow, tracing.payments), traced_ports(ports)
        call_headers = tracing.payments.traced(call_headers)
    return make(
        ports=ports,
        policy=policy,
        tokens=parts.tokens,
        channel_health=ChannelHealth(),
        attempt_leases=AttemptLeases(parts.valkey),
        now=clock,
        monotonic=monotonic,
        call_headers=call_headers,
        forget=CacheInvalidation(parts.pipelines, parts.valkey).forget,
        metrics=parts.metrics,
        steps=steps,
    )


def _tracing(config: Configuration, metrics: Store) -> Tracing | None:
    """None if it is off: then nothing of OpenTelemetry is imported."""
    settings = config.settings.telemetry
    if not settings.otlp_url:
        return None
    try:
        from cashier.telemetry.otlp_encoder import OtlpEncoder  # noqa: PLC0415 - what it imports is an extra
    except ImportError:
        remedy = "pip install 'cashier[otel]', or leave it empty"
        raise ConfigurationError([f"{config.source}: [telemetry] otlp_url needs OpenTelemetry: {remedy}"]) from None
    encoder = OtlpEncoder(resource_attributes(settings.service_name, __version__), __version__)
    client = CollectorClient(CollectorUrl.parse(settings.otlp_url), otlp_headers())
    return Tracing(SpanExporter(client, encoder, metrics), settings, _status_of)


def _status_of(error: Exception) -> int:
    refusal = refusal_for(error)
    return 500 if refusal is None else refusal.problem.status


def check_plan(config: Configuration, given: Iterable[str]) -> None:
    """Raise `ConfigurationError` for times that cannot be kept, or hedges beyond the budget.

    `given`: the names of the sources that the embedding program hands in.
    """
    settings = config.settings
    found = [f"{config.source}: {fault}" for fault in faults(settings)]
    if any(name in given or settings.sources.service(name) is not None for name in SERVICES):
        found += [f"{config.source}: {fault}" for fault in payment_faults(settings, config.catalog)]
    if found:
        raise ConfigurationError(found)


def check_completeness(config: Configuration, given: Container[str]) -> None:
    """Raise `ConfigurationError` if sources are missing: of a file that is being written, half is
    often a configuration too.

    `given`: as for `check_plan`.
    """
    sources = config.settings.sources
    needed = [spec.source.name for spec in SOURCE_SPECS if not spec.optional]
    missing = [_missing_source(config.source, name) for name in needed if name not in given and sources[name] is None]
    services = [name for name in SERVICES if name not in given and sources.service(name) is None]
    if len(services) < len(SERVICES):
        missing += [_missing_service(config.source, name) for name in services]
    if missing:
        raise ConfigurationError(missing)


def _missing_source(source: str, name: str) -> str:
    return f'{source}: [sources.{name}] is missing; it needs a url, such as "http://127.0.0.1:9100"'


def _missing_service(source: str, name: str) -> str:
    return f"{source}: [sources.{name}] is missing; payments need risk, engine and acquirer"


def changes_that_need_a_restart(before: Configuration, after: Configuration) -> Iterator[str]:
    """Yield one sentence for each difference that cannot be applied at run time."""
    old, new = before.settings, after.settings
    for table in ("server", "auth", "operations", "tokens", "cache", "shed", "limits"):
        if getattr(old, table) != getattr(new, table):
            yield f"[{table}] has changed"
    yield from (
        f"[telemetry] {key} has changed"
        for key in ("otlp_url", "service_name", "access_log")
        if getattr(old.telemetry, key) != getattr(new.telemetry, key)
    )
    yield from (
        f"[pages] {key} has changed"
        for key in ("enabled", "brand")
        if getattr(old.pages, key) != getattr(new.pages, key)
    )
    if old.accept.most_under_way != new.accept.most_under_way:
        yield "[accept] most_under_way has changed"
    for name in SOURCE_NAMES:
        was, now = old.sources[name], new.sources[name]
        if (was is None) != (now is None):
            yield f"[sources.{name}] was added or removed"
        elif was is not None and now is not None:
            yield from (
                f"[sources.{name}] {key} has changed"
                for key in ("url", "transport", "auth", "adapter", "options", "http1", "aiohttp", "batch")
                if getattr(was, key) != getattr(now, key)
            )
    yield from (
        f"[sources.{name}] has changed"
        for name in SERVICES
        if _without_discover(old.sources.service(name)) != _without_discover(new.sources.service(name))
    )


def _without_discover(settings: ServiceSettings | None) -> ServiceSettings | None:
    """A change of `discover` is applied."""
    return None if settings is None else replace(settings, discover=None)


def _consult_flow(
    parts: Parts,
    config: Configuration,
    plan: Plan,
    settings: ConsultSettings,
    clock: Callable[[], datetime],
    *,
    recheck: bool = False,
) -> ConsultFlow:
    return ConsultFlow(
        plan=plan,
        known_inputs=known_inputs,
        catalog=config.catalog,
        weights=config.weights,
        sign=parts.tokens.sign_consult_token,
        settings=settings,
        token_ttl_s=config.settings.tokens.ttl_s,
        now=clock,
        observers=parts.observers,
        recheck=recheck,
    )


class _UpstreamBuilder:
    """Builds upstreams, and collects the transports and adapters to be opened and closed."""

    def __init__(
        self,
        config: Configuration,
        given: Mapping[str, Any],
        failures: FailureLog,
        resolver: Resolver,
        metrics: Store,
        wrap: WrapTransport = _unchanged,
        on_mapping: OnMapping = lambda name, body: None,
    ) -> None:
        self._source = config.source
        self._folder = config.folder
        self._settings = config.settings
        self._sources = {name: function for name, function in given.items() if name not in SERVICES}
        self._services = {name: value for name, value in given.items() if name in SERVICES}
        self._failures = failures
        self._resolver = resolver
        self._metrics = metrics
        self._wrap = wrap
        self._on_mapping = on_mapping
        self._files = FileWatch()
        self._auth_methods = AuthMethods(self._files, resolver)
        self._adapter_hooks: list[AdapterHooks] = []
        self.transports: list[Transport] = []
        self.required: dict[str, Transport] = {}
        self.network: dict[str, NetworkTransport] = {}

    def resources(self) -> list[Resource]:
        """Once all upstreams are built."""
        return [*self._adapter_hooks, *self._auth_methods.token_fetchers, self._files]

    def pipelines(
        self,
        upstreams: Mapping[str, Upstream],
        ladder: DegradationLadder,
        valkey: ValkeyCache | None,
        answers: S3FifoStore,
    ) -> dict[str, SourcePipeline]:
        wheel = TimerWheel()
        pipelines = {
            spec.source.name: SourcePipeline(
                spec=spec,
                upstream=upstreams[spec.source.name],
                settings=self._settings,
                ladder=ladder,
                store=answers,
                l2=valkey,
                on_failure=self._failures.of(spec.source.name),
                on_answers_again=self._failures.end_of(spec.source.name),
                metrics=self._metrics,
                wheel=wheel,
            )
            for spec in SOURCE_SPECS
            if spec.source.name in upstreams
        }
        for name, transport in self.network.items():
            if name in pipelines and isinstance(transport, Http1Client):
                transport.on_addresses = pipelines[name].guard.set_addresses
        return pipelines

    def upstreams_and_ports(self) -> tuple[dict[str, Upstream], PaymentPorts | None]:
        """Upstreams by source, in the order of the table. Without any payment service no ports.

        Raises `ConfigurationError`, also if only some payment services are there.
        """
        with all_faults() as noting:
            with noting():
                upstreams = self._upstreams()
            with noting():
                ports = self._payment_ports()
        return upstreams, ports

    def _upstreams(self) -> dict[str, Upstream]:
        wrong = [
            f"there is no source {name!r}; known are {', '.join(SOURCE_NAMES)}"
            for name in self._sources
            if name not in SOURCE_NAMES
        ]
        upstreams: dict[str, Upstream] = {}
        for spec in SOURCE_SPECS:
            name = spec.source.name
            settings = self._settings.sources[name]
            if name not in self._sources and settings is None:
                if not spec.optional:
                    wrong.append(_missing_source(self._source, name))
                continue
            try:
                upstreams[name] = self._upstream(spec, settings)
            except ValueError as fault:
                wrong.append(f"{self._source}: [sources.{name}] {fault}")
        if wrong:
            raise ConfigurationError(wrong)
        return upstreams

    def _payment_ports(self) -> PaymentPorts | None:
        settings = self._settings.sources
        if not self._services and all(settings.service(name) is None for name in SERVICES):
            return None
        transports: list[Transport] = []
        with all_faults() as noting:
            for name in SERVICES:
                with noting():
                    transports.append(self._service_transport(name))
        risk, engine, acquirer = transports
        configured = {name: settings.service(name) or ServiceSettings("") for name in SERVICES}
        note = self._failures.of
        return PaymentPorts(
            risk=RiskClient(risk, note("risk"), self._metrics),
            engine=EngineClient(
                engine,
                configured["engine"].tries,
                note("engine"),
                seals=configured["engine"].seals,
                metrics=self._metrics,
            ),
            acquirer=AcquirerClient(acquirer, configured["acquirer"].tries, note("acquirer"), self._metrics),
        )

    def _upstream(self, spec: SourceSpec, settings: SourceSettings | None) -> Upstream:
        source = spec.source
        if source.name in self._sources or settings is None:
            return FunctionUpstream(source, self._sources[source.name], spec.needs)
        if settings.transport == "local":
            return FunctionUpstream(source, function_of(settings.urls[0], self._folder), spec.needs)
        transport = self._transport(source.name, settings, keep_headers=settings.adapter is not None)
        if spec.importance is Importance.REQUIRED:
            self.required[source.name] = transport
        if settings.adapter is not None:
            return self._adapted_upstream(spec, settings, settings.adapter, transport)
        if settings.batch:
            batched = BatchWireUpstream(source, transport, settings.batch.path)
            return Batch(batched, settings.batch, source=source.name, metrics=self._metrics)
        return WireUpstream(ParseCache(source) if source.repetitive else source, transport)

    def _adapted_upstream(
        self, spec: SourceSpec, settings: SourceSettings, text: str, transport: Transport
    ) -> Upstream:
        adapter = load_adapter(spec, settings, text, self._folder, partial(self._on_mapping, spec.source.name))
        self._adapter_hooks.append(AdapterHooks(adapter, _log.warning))
        if settings.batch:
            batched = AdapterBatchUpstream(adapter, transport, settings.batch.path)
            return Batch(batched, settings.batch, source=spec.source.name, metrics=self._metrics)
        return AdapterUpstream(adapter, transport)

    def _service_transport(self, name: str) -> Transport:
        settings = self._settings.sources.service(name)
        value = self._services.get(name)
        try:
            if value is None:
                if settings is None:
                    raise ConfigurationError([_missing_service(self._source, name)])
                if settings.transport != "local":
                    return self._network_service(name, settings)
                value = service_of(name, settings.urls[0], self._folder)
            with faults_of("the object of this process", ValueError):
                local = local_transport(name, value)
            transport = self._wrap(name, local)
        except ValueError as fault:
            raise ConfigurationError([f"{self._source}: [sources.{name}] {fault}"]) from None
        self.transports.append(transport)
        return transport

    def _network_service(self, name: str, settings: ServiceSettings) -> Transport:
        if settings.adapter is None:
            return self._transport(name, settings)
        loaded = adapter_object(settings.adapter, adapter_settings(name, settings), self._folder)
        with faults_of(f"adapter {settings.adapter!r}", ValueError):
            adapter = ServiceAdapter(name, settings.adapter, loaded)
        self._adapter_hooks.append(AdapterHooks(adapter, _log.warning))
        adapted = AdapterTransport(adapter, self._transport(name, settings, keep_headers=True))
        self.transports.append(adapted)
        return adapted

    def _transport(
        self, name: str, settings: SourceSettings | ServiceSettings, *, keep_headers: bool = False
    ) -> Transport:
        auth = None if settings.auth is None else self._auth_methods.of(settings.auth, path_prefix(settings))
        keep_headers = keep_headers or (auth is not None and auth.reads_headers)
        self.network[name] = network = make_transport(settings, self._resolver, self._files, keep_headers=keep_headers)
        transport = self._wrap(name, network if auth is None else AuthenticatedTransport(auth, network))
        self.transports.append(transport)
        return transport


def _valkey(
    config: Configuration, coherence: CoherenceCallbacks, resolver: Resolver, metrics: Store
) -> ValkeyCache | None:
    url = config.settings.cache.shared
    if not url:
        return None
    try:
        return ValkeyCache(
            url,
            coherence.drop,
            coherence.drop_all,
            on_cut_off=coherence.distrust,
            resolve=resolver.ips,
            metrics=metrics,
        )
    except ValueError as fault:
        raise ConfigurationError([f"{config.source}: [cache] shared: {fault}"]) from None


def token_service(config: Configuration) -> TokenService:
    """Raises `ConfigurationError`."""
    secrets, generated = token_secrets(config.settings.tokens)
    if generated:
        _log.warning(
            "tokens are signed with a secret generated for this run",
            remedy="set CASHIER_TOKEN_SECRET, or [tokens] secrets",
        )
    try:
        return TokenService(secrets)
    except ValueError as fault:
        configured = config.settings.tokens.secrets
        where = config.source if configured else f"the environment's {SECRET_VARIABLE}, which stands for"
        raise ConfigurationError([f"{where}: {fault}"]) from None
