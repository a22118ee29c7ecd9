"""Warnings about settings that are valid but can hardly be meant. They never stop a start."""

from __future__ import annotations

from collections.abc import Iterator

from cashier.consultation.source_table import SOURCE_SPECS
from cashier.payments.budgets import usual_submit_ms
from cashier.settings.schema import SERVICES, ServiceSettings, Settings, SourceSettings

# A call over a network that ends sooner is an exception.
LEAST_TIMEOUT_MS = 5
# Clocks that are kept by NTP differ by much less.
MOST_LEEWAY_S = 300


def settings_warnings(settings: Settings) -> Iterator[str]:
    """One sentence each, with its key and what it causes."""
    consult, accept = settings.consult, settings.accept
    if consult.grace_ms >= consult.deadline_ms:
        yield (
            f"[consult] grace_ms = {consult.grace_ms} is not below deadline_ms = {consult.deadline_ms}: "
            "a slow ENRICHING source holds every answer to its deadline"
        )
    for key in ("check_ms", "decide_ms", "submit_ms", "look_ms"):
        if (value := getattr(accept, key)) < LEAST_TIMEOUT_MS:
            yield f"[accept] {key} = {value}: hardly any call ends in time, so payments are refused or stay unknown"
    submit_ms = usual_submit_ms(settings.accept_in_effect)
    takes_payments = any(settings.sources.service(name) is not None for name in SERVICES)
    if takes_payments and settings.server.drain_s * 1000 < submit_ms:
        yield (
            f"[server] drain_s = {settings.server.drain_s} is shorter than a submit with the times of [accept],"
            f" {submit_ms} ms: a stop can cut the connection before the answer, though not the payment;"
            f" raise drain_s to {-(-submit_ms // 1000)}"
        )
    yield from _secret_warnings(settings)
    sources: dict[str, SourceSettings | ServiceSettings | None] = {
        **{spec.source.name: settings.sources[spec.source.name] for spec in SOURCE_SPECS},
        **{name: settings.sources.service(name) for name in SERVICES},
    }
    configured = {name: own for name, own in sources.items() if own is not None}
    yield from _mechanism_warnings(settings, configured)
    for name, own in configured.items():
        yield from (f"[sources.{name}] {warning}" for warning in _source_warnings(own))


def _secret_warnings(settings: Settings) -> Iterator[str]:
    secrets = settings.tokens.secrets
    if len(set(secrets)) < len(secrets):
        yield "[tokens] secrets holds the same secret twice: a rotation needs a new one"
    if settings.auth.secret and settings.auth.secret in secrets:
        yield "[auth] secret is also in [tokens] secrets: its holder could sign consult tokens and payment tokens"
    if settings.auth.leeway_s > MOST_LEEWAY_S:
        yield f"[auth] leeway_s = {settings.auth.leeway_s}: expired bearer tokens stay valid for that long"


def _mechanism_warnings(settings: Settings, configured: dict[str, SourceSettings | ServiceSettings]) -> Iterator[str]:
    sources = {name: own for name, own in configured.items() if isinstance(own, SourceSettings)}
    hedged = [name for name, own in sources.items() if own.hedge]
    if settings.consult.extra_calls_bps == 0 and hedged:
        yield (
            f"[consult] extra_calls_bps = 0 leaves {', '.join(hedged)} one hedge or retry a second: "
            "raise it, or set hedge = false"
        )
    if settings.cache.shared and sources and not any(own.cache for own in sources.values()):
        yield "[cache] shared names a Valkey, but no source has a cache"


def _source_warnings(own: SourceSettings | ServiceSettings) -> Iterator[str]:
    timeout_ms = own.timeout_ms if isinstance(own, SourceSettings) else None
    if timeout_ms is not None and timeout_ms < LEAST_TIMEOUT_MS and own.transport != "local":
        yield f"timeout_ms = {timeout_ms}: hardly any call over a network ends in time, so the source counts as silent"
    transport = own.http1 or own.aiohttp
    if transport is None or any(url.startswith("https://") for url in own.urls):
        return
    for key in ("ca_file", "client_cert_file", "client_key_file"):
        if getattr(transport, key) is not None:
            yield f"{own.transport}.{key} has no effect: no url begins with https://"
