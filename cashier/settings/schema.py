"""Settings schema: the shape of `cashier.toml`. Each settings struct lives beside its user.

Every key is documented in `config/README.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, defstruct
from msgspec.structs import replace

from cashier.consultation.flow import ConsultSettings
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.domain.catalog import Catalog
from cashier.domain.ranking import Weights
from cashier.domain.routing_rules import Routing
from cashier.fanout.breaker import BreakerSettings
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.fanout.hedge import HedgeSettings
from cashier.fanout.limiter import LimiterSettings
from cashier.fanout.load_shedding import ShedSettings, shed_faults
from cashier.payments.settings import AcceptSettings
from cashier.settings.operations import OperationsSettings, operations_faults
from cashier.settings.pages import PagesSettings, pages_faults
from cashier.sources.auth.settings import UpstreamAuthSettings, upstream_auth_faults
from cashier.sources.batch_call import BatchSettings
from cashier.sources.idempotent_retry import RetrySettings
from cashier.telemetry.settings import TelemetrySettings, telemetry_faults
from cashier.web.auth import AuthSettings, auth_faults
from cashier.web.cross_origin import MerchantSettings, origin_faults
from cashier.web.rate_limit import LimitSettings, limit_faults
from cashier.web.server import ServerSettings
from cashier.wire.address_parser import address_faults
from cashier.wire.aiohttp_client import AiohttpSettings
from cashier.wire.discovery import DiscoverSettings, discover_faults
from cashier.wire.http1 import Http1Settings

# The services that take payments: all three or none. Without them the service only consults.
SERVICES = ("risk", "engine", "acquirer")


class TokenSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[tokens]`. The first secret signs, all verify; each has at least 32 bytes.

    `ttl_s`: lifetime of a consult token.
    """

    secrets: tuple[str, ...] = ()
    ttl_s: Annotated[int, Meta(ge=10, le=86_400)] = 900


class CachingSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[cache]`. `l1_entries`: answers kept per worker, all sources together; each about 3.5 kB.

    `shared`: a Valkey or Redis that all workers share, `redis://host:port/0`; empty: each worker
    has only its own cache.
    """

    l1_entries: Annotated[int, Meta(ge=1)] = 50_000
    shared: str = ""


class SourceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[sources.NAME]`. `url`: one address or several; for transport `local`
    `package.module:function`.

    `timeout_ms`: None takes the source table's default. `adapter`: `package.module` or
    `package.module:name`, for a service of another shape; `options`: what it takes as
    `AdapterSettings.options`. `auth`: the credential that each call carries. `discover`: where the
    addresses of the name in `url` come from. `http1` and `aiohttp`: settings of that transport.

    Each mechanism takes true for its defaults, a table for other numbers, or false: `cache` (true:
    the source table's ages), `hedge`, `retry`, `breaker`, `limiter`, `adaptive_timeout`, `late` (a
    call runs on after its timeout and fills the cache). `batch` is off without a table.
    """

    url: str | tuple[str, ...]
    timeout_ms: Annotated[int, Meta(ge=1, le=60_000)] | None = None
    transport: Literal["http1", "aiohttp", "local"] = "http1"
    auth: UpstreamAuthSettings | None = None
    adapter: str | None = None
    options: dict[str, Any] | None = None
    discover: DiscoverSettings | None = None
    http1: Http1Settings | None = None
    aiohttp: AiohttpSettings | None = None
    cache: bool | CacheSettings = True
    hedge: bool | HedgeSettings = True
    retry: bool = True
    breaker: bool | BreakerSettings = True
    limiter: bool | LimiterSettings = True
    adaptive_timeout: bool = True
    late: bool = True
    batch: Literal[False] | BatchSettings = False

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url,) if isinstance(self.url, str) else self.url


class ServiceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[sources.risk]`, `[sources.engine]`, `[sources.acquirer]`. Their timeouts are in `[accept]`.

    `url`, `transport`, `auth`, `options`, `discover`, `http1`, `aiohttp` as in `SourceSettings`.
    `adapter`: a module or object with one function for each operation (`sources.service_adapter`).
    Transport `local`: an object with the port's methods, or a function that takes a request and
    returns a response (`cashier.wire.in_process`). `tries`: retries of look-ups; a submit and a
    risk decision are sent once. `seals`: of the engine; a reversal of a payment that it does not
    have refuses it for good.
    """

    url: str | tuple[str, ...]
    transport: Literal["http1", "aiohttp", "local"] = "http1"
    auth: UpstreamAuthSettings | None = None
    adapter: str | None = None
    options: dict[str, Any] | None = None
    discover: DiscoverSettings | None = None
    http1: Http1Settings | None = None
    aiohttp: AiohttpSettings | None = None
    tries: RetrySettings = RetrySettings()
    seals: bool = True

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url,) if isinstance(self.url, str) else self.url


# A field for each row of the source table and for each service.
_SourceFields: Any = defstruct(
    "_SourceFields",
    [(name, SourceSettings | None, None) for name in SOURCE_NAMES]
    + [(name, ServiceSettings | None, None) for name in SERVICES],
    frozen=True,
    forbid_unknown_fields=True,
)


class SourcesSettings(_SourceFields):  # type: ignore[misc]  # a class made at run time
    """`[sources]`: the sources of a consultation, and the services that take payments."""

    def __getitem__(self, name: str) -> SourceSettings | None:
        """The settings of a source of a consultation."""
        settings: SourceSettings | None = getattr(self, name)
        return settings

    def service(self, name: str) -> ServiceSettings | None:
        """The settings of a service that takes payments."""
        settings: ServiceSettings | None = getattr(self, name)
        return settings


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """`cashier.toml`."""

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    operations: OperationsSettings = OperationsSettings()
    pages: PagesSettings = PagesSettings()
    consult: ConsultSettings = ConsultSettings()
    accept: AcceptSettings = AcceptSettings()
    cache: CachingSettings = CachingSettings()
    shed: ShedSettings = ShedSettings()
    limits: LimitSettings = LimitSettings()
    tokens: TokenSettings = TokenSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    merchants: dict[str, MerchantSettings] = {}
    sources: SourcesSettings = SourcesSettings()

    def check_ms(self, name: str) -> int:
        """The time of a source in the checks before a submit: never less than in a consultation."""
        own = self.sources[name]
        return max(self.accept.check_ms, (own and own.timeout_ms) or 0)

    @property
    def accept_in_effect(self) -> AcceptSettings:
        """`[accept]` with the time of the slowest source for `check_ms`."""
        return replace(self.accept, check_ms=max(map(self.check_ms, SOURCE_NAMES)))


class Configuration(Struct, frozen=True):
    """Everything that the wiring needs. `source`: the file, for error texts.

    `digest`: of that file, see `loader.file_digest`; empty for a table in memory.
    `warnings`: one sentence for each setting that can hardly be meant. `folder`: where adapters and
    functions are looked for first; None: only on `sys.path`.
    """

    source: str
    settings: Settings
    catalog: Catalog
    weights: Weights
    routing: Routing
    warnings: tuple[str, ...] = ()
    folder: Path | None = None
    digest: str = ""


class ConfigurationError(Exception):
    """A configuration with faults. `faults`: one sentence each, with file, key and remedy."""

    text_is_for_operators = True

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@contextmanager
def all_faults() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Run each part in the context that is given, and raise the faults of all parts at once."""
    found: list[str] = []

    @contextmanager
    def noting() -> Iterator[None]:
        try:
            yield
        except ConfigurationError as error:
            found.extend(error.faults)

    yield noting
    if found:
        raise ConfigurationError(found)


def settings_faults(settings: Settings) -> Iterator[str]:
    """The contradictions between keys that no single type excludes."""
    consult = settings.consult
    yield from auth_faults(settings.auth, settings.server.host)
    yield from operations_faults(settings.operations, settings.auth, settings.server)
    yield from pages_faults(settings.pages, settings.auth, settings.server)
    yield from origin_faults(settings.merchants)
    yield from telemetry_faults(settings.telemetry)
    deadline = f"deadline_ms = {consult.deadline_ms}"
    if consult.reserve_ms >= consult.deadline_ms:
        yield f"[consult] reserve_ms = {consult.reserve_ms} leaves nothing of {deadline}; lower it, 3 is the default"
    if consult.deadline_ms > consult.max_deadline_ms:
        yield f"[consult] {deadline} is above max_deadline_ms = {consult.max_deadline_ms}; raise that or lower this"
    yield from shed_faults(settings.shed)
    yield from limit_faults(settings.limits)
    for name in SourcesSettings.__struct_fields__:
        source: SourceSettings | ServiceSettings | None = (
            settings.sources.service(name) if name in SERVICES else settings.sources[name]
        )
        if source is not None:
            yield from _address_faults(name, source)
            if source.discover is not None:
                yield from (
                    f"[sources.{name}] {fault}"
                    for fault in discover_faults(source.discover, source.urls, source.transport)
                )
            yield from _upstream_auth_faults(name, source)
            if source.options is not None and source.adapter is None:
                yield f"[sources.{name}.options] is for an adapter, but this source has none"
        if isinstance(source, SourceSettings):
            yield from _source_faults(name, source)
    risk = settings.sources.risk
    if risk is not None and risk.tries != RetrySettings():
        yield "[sources.risk] tries: a risk decision is never retried; remove the key"
    for name in ("risk", "acquirer"):
        service = settings.sources.service(name)
        if service is not None and not service.seals:
            yield f"[sources.{name}] seals: only the engine reverses payments; set it in [sources.engine]"


def _address_faults(name: str, source: SourceSettings | ServiceSettings) -> Iterator[str]:
    if not source.urls:
        yield f"[sources.{name}] url names no address"
        return
    for transport in ("http1", "aiohttp"):
        if source.transport != transport and getattr(source, transport) is not None:
            yield (
                f'[sources.{name}.{transport}] is for transport = "{transport}",'
                f' but this source has "{source.transport}"'
            )
    if source.transport != "local":
        yield from (f"[sources.{name}] url: {fault}" for fault in address_faults(source.urls))
        return
    if any("//" in url or url.startswith("unix:") for url in source.urls):
        yield (
            f'[sources.{name}] transport = "local" calls a function of this process, but the url is an address: '
            'name the function, "package.module:function", or remove transport'
        )
    elif source.adapter is not None:
        yield f'[sources.{name}] a function of transport = "local" answers in the contract\'s shape: remove adapter'
    elif len(source.urls) > 1 or ":" not in source.urls[0]:
        yield f'[sources.{name}] with transport = "local" takes one url, "package.module:function"'


def _upstream_auth_faults(name: str, source: SourceSettings | ServiceSettings) -> Iterator[str]:
    if source.auth is not None:
        faults = upstream_auth_faults(
            source.auth,
            adapted=source.adapter is not None,
            local=source.transport == "local",
            batched=isinstance(source, SourceSettings) and bool(source.batch),
        )
        yield from (f"[sources.{name}] {fault}" for fault in faults)


def _source_faults(name: str, source: SourceSettings) -> Iterator[str]:
    if isinstance(source.cache, CacheSettings):
        yield from (f"[sources.{name}] cache: {fault}" for fault in source.cache.faults())
    if source.transport == "local" and source.batch:
        yield f'[sources.{name}] batch needs a network transport, but this source has transport = "local"'
