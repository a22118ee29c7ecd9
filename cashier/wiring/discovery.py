"""Discovery of addresses: what it finds now, and changes of its settings at run time."""

from __future__ import annotations

import asyncio

from cashier.consultation.source_table import SOURCE_NAMES
from cashier.settings.schema import (
    SERVICES,
    Configuration,
    ConfigurationError,
)
from cashier.wire.discovery import Discovery
from cashier.wire.http1 import Http1Client
from cashier.wire.resolver import Resolution, Resolver
from cashier.wiring.parts import Parts
from cashier.wiring.transports import discovery_of, network_settings


async def discovered(config: Configuration) -> dict[str, Resolution | OSError]:
    """What discovery finds now, by source or service. Raises `ConfigurationError`."""
    resolver = Resolver()
    found: dict[str, Discovery] = {}
    for name in (*SOURCE_NAMES, *SERVICES):
        settings = network_settings(config, name)
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
        was, now = network_settings(built, name), network_settings(config, name)
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
