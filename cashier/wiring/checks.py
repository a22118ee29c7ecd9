"""Checks of a configuration beyond its schema, and the words for what is missing."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from msgspec.structs import replace

from cashier.consultation.plan_report import faults
from cashier.consultation.source_table import SOURCE_NAMES, SOURCE_SPECS
from cashier.settings.payment_faults import payment_faults
from cashier.settings.schema import (
    SERVICES,
    Configuration,
    ConfigurationError,
    ServiceSettings,
)


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
    missing = [missing_source(config.source, name) for name in needed if name not in given and sources[name] is None]
    services = [name for name in SERVICES if name not in given and sources.service(name) is None]
    if len(services) < len(SERVICES):
        missing += [missing_service(config.source, name) for name in services]
    if missing:
        raise ConfigurationError(missing)


def missing_source(source: str, name: str) -> str:
    return f'{source}: [sources.{name}] is missing; it needs a url, such as "http://127.0.0.1:9100"'


def missing_service(source: str, name: str) -> str:
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
