"""Upstreams and payment ports: built from the configuration and what the program hands in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog

from cashier.consultation.source_pipeline import SourcePipeline
from cashier.consultation.source_table import SOURCE_NAMES, SOURCE_SPECS, SourceSpec
from cashier.fanout.ask import Importance
from cashier.fanout.batch import Batch
from cashier.fanout.failure_log import FailureLog
from cashier.fanout.l2.valkey_cache import ValkeyCache
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.timer_wheel import TimerWheel
from cashier.fanout.upstream_protocol import Upstream
from cashier.metrics.store import Store
from cashier.payments.ports import PaymentPort, PaymentPorts
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
from cashier.sources.adapter_hooks import AdapterHooks
from cashier.sources.adapter_upstream import AdapterBatchUpstream, AdapterUpstream
from cashier.sources.auth.authenticated_transport import AuthenticatedTransport
from cashier.sources.auth.methods import AuthMethods
from cashier.sources.batch_call import BatchWireUpstream
from cashier.sources.engine import EngineClient
from cashier.sources.parse_cache import ParseCache
from cashier.sources.risk import RiskClient
from cashier.sources.service_adapter import AdapterTransport, ServiceAdapter
from cashier.sources.service_object import local_transport
from cashier.sources.source_upstream import FunctionUpstream, UpstreamFunction, WireUpstream
from cashier.wire.file_watch import FileWatch
from cashier.wire.http1 import Http1Client
from cashier.wire.resolver import Resolver
from cashier.wire.transport import NetworkTransport, Transport
from cashier.wiring.checks import missing_service, missing_source
from cashier.wiring.transports import Resource, adapter_settings, load_adapter, make_transport, path_prefix

_log = structlog.get_logger("cashier")

WrapTransport = Callable[[str, Transport], Transport]
"""Takes the name of a source and its transport; returns the one to use."""
OnMapping = Callable[[str, bytes], None]
"""Takes the name of a source, and the answer of its adapter as JSON before it is checked."""


def unchanged(_name: str, transport: Transport) -> Transport:
    return transport


def bare_upstreams(
    config: Configuration,
    given: Mapping[str, UpstreamFunction | PaymentPort],
    wrap: WrapTransport,
    on_mapping: OnMapping,
) -> tuple[dict[str, Upstream], PaymentPorts | None, list[Resource]]:
    """The configured upstreams without any mechanism, and what they need to be open.

    `wrap` may replace each one's transport. Raises `ConfigurationError`.
    """
    builder = UpstreamBuilder(config, given, FailureLog(_log.warning, _log.info), Resolver(), Store(), wrap, on_mapping)
    return *builder.upstreams_and_ports(), builder.resources()


class UpstreamBuilder:
    """Builds upstreams, and collects the transports and adapters to be opened and closed."""

    def __init__(
        self,
        config: Configuration,
        given: Mapping[str, Any],
        failures: FailureLog,
        resolver: Resolver,
        metrics: Store,
        wrap: WrapTransport = unchanged,
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
                    wrong.append(missing_source(self._source, name))
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
                    raise ConfigurationError([missing_service(self._source, name)])
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
