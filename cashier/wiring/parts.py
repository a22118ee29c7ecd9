"""Parts: everything that lives as long as a `Cashier`. No other module constructs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import structlog
from msgspec import Struct

from cashier.consultation.end import Observers
from cashier.consultation.source_pipeline import SourcePipeline
from cashier.fanout.failure_log import FailureLog
from cashier.fanout.l2.valkey_cache import OnInvalidation, ValkeyCache
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.s3fifo import S3FifoStore
from cashier.metrics.store import Store
from cashier.payments.ports import PaymentPort, PaymentPorts
from cashier.settings.loader import SECRET_VARIABLE, token_secrets
from cashier.settings.schema import (
    Configuration,
    ConfigurationError,
    all_faults,
)
from cashier.sources.source_upstream import UpstreamFunction
from cashier.telemetry.collector_client import CollectorClient
from cashier.telemetry.collector_url import CollectorUrl
from cashier.telemetry.consultation_metrics import ConsultationMetrics
from cashier.telemetry.otlp_environment import otlp_headers, resource_attributes
from cashier.telemetry.recorder import Recorder
from cashier.telemetry.span_exporter import SpanExporter
from cashier.telemetry.traced_transport import TracedTransport
from cashier.telemetry.tracing import Tracing
from cashier.tokens.token_service import TokenService
from cashier.version import __version__
from cashier.web.payment_problems import refusal_for
from cashier.wire.resolver import Resolver
from cashier.wire.transport import NetworkTransport, Transport
from cashier.wiring.transports import Resource
from cashier.wiring.upstreams import UpstreamBuilder, unchanged

_log = structlog.get_logger("cashier")


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


def build_parts(
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
    wrap = unchanged if tracing is None else TracedTransport
    builder = UpstreamBuilder(config, given, failures, resolver, metrics, wrap)
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
