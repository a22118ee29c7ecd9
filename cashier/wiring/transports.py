"""Transports, adapters and credentials of single sources and services."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from cashier.consultation.source_table import SOURCE_NAMES, SourceSpec
from cashier.settings.plugins import adapter_object, faults_of
from cashier.settings.schema import (
    SERVICES,
    Configuration,
    ConfigurationError,
    ServiceSettings,
    SourceSettings,
)
from cashier.sources.adapter import Adapter
from cashier.sources.adapter_settings import AdapterSettings
from cashier.sources.auth.authenticated_transport import AuthenticatedTransport
from cashier.sources.auth.authenticator import Authenticator
from cashier.sources.auth.methods import AuthMethods
from cashier.wire.address_parser import parse_address
from cashier.wire.aiohttp_client import AiohttpClient
from cashier.wire.discovery import Discovery
from cashier.wire.file_watch import FileWatch
from cashier.wire.http1 import Http1Client
from cashier.wire.resolver import Resolver
from cashier.wire.transport import NetworkTransport, Transport


class Resource(Protocol):
    """An adapter, a token's fetcher: opened before the first call, closed with the transports."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...


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


def network_settings(config: Configuration, name: str) -> SourceSettings | ServiceSettings | None:
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
        own = network_settings(config, name)
        if own is not None and own.auth is not None:
            try:
                found[name] = methods.of(own.auth, path_prefix(own))
            except ValueError as fault:
                raise ConfigurationError([f"{config.source}: [sources.{name}] {fault}"]) from None
    return found, [*methods.token_fetchers, files]
