"""Settings schema: the shape of `cashier.toml`. A settings struct lives beside its user; here they only meet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from cashier.consultation.flow import ConsultSettings
from cashier.domain.catalog import Catalog
from cashier.domain.ranking import Weights
from cashier.domain.routing_rules import Routing
from cashier.fanout.breaker import BreakerSettings
from cashier.fanout.hedge import HedgeSettings
from cashier.fanout.limiter import LimiterSettings
from cashier.fanout.load_shedding import ShedSettings, shed_faults
from cashier.fanout.ttl import CacheSettings
from cashier.payments.settings import AcceptSettings
from cashier.sources.batch_call import BatchSettings
from cashier.sources.retry import RetrySettings
from cashier.web.auth import AuthSettings, auth_faults
from cashier.web.server import ServerSettings
from cashier.wire.aiohttp_client import AiohttpSettings
from cashier.wire.http1 import Http1Settings

# What takes payments: all three, or none, and then this is for consultations only.
SERVICES = ("risk", "engine", "acquirer")


class TokenSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[tokens]`. The first secret signs, all verify; each has at least 32 bytes. `ttl_s`: how long an offer can be compared with."""

    secrets: tuple[str, ...] = ()
    ttl_s: Annotated[int, Meta(ge=10, le=86_400)] = 900


class CachingSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[cache]`. `l1_entries`: how many answers each worker keeps, of all sources together; one takes about 3.5 kB. `shared`: a Valkey or
    Redis that all workers share, `redis://host:port/0`; without one each has its own answers only."""

    l1_entries: Annotated[int, Meta(ge=1)] = 50_000
    shared: str = ""


class SourceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[sources.NAME]`. `url`: one address or several of the same service; with transport `local` a function, `package.module:name`.

    `timeout_ms`: where it is absent, the plan's own. `adapter`: an object or module with `request` and `parse`, for another shape than
    the contract's, `package.module` or `package.module:name`. `http1` and `aiohttp`: connections and their bounds, for that transport.

    The mechanisms, each as it is by default, with other numbers, or `false`: `cache` (where absent, the plan's own), `hedge`, `retry`,
    `breaker`, `limiter`, `adaptive_timeout`, `late` (answers that nobody waits for run on a while). `batch` needs a path.
    """

    url: str | tuple[str, ...]
    timeout_ms: Annotated[int, Meta(ge=1, le=60_000)] | None = None
    transport: Literal["http1", "aiohttp", "local"] = "http1"
    adapter: str | None = None
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
    """`[sources.risk]`, `[sources.engine]`, `[sources.acquirer]`: what takes payments. How long each is waited for is in `[accept]`.

    `url`, `transport`, `http1` and `aiohttp` as of a source; with transport `local` a function that takes a request and returns a response
    (`cashier.wire.in_process`). `tries`: how often a look-up is made; what moves money, and what risk is asked, is never sent twice.
    """

    url: str | tuple[str, ...]
    transport: Literal["http1", "aiohttp", "local"] = "http1"
    http1: Http1Settings | None = None
    aiohttp: AiohttpSettings | None = None
    tries: RetrySettings = RetrySettings()

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url,) if isinstance(self.url, str) else self.url


class SourcesSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[sources]`: the eight of a consultation, and the three that take payments. The latter come together, or not at all."""

    order: SourceSettings | None = None
    merchant: SourceSettings | None = None
    member: SourceSettings | None = None
    card: SourceSettings | None = None
    balance: SourceSettings | None = None
    channel: SourceSettings | None = None
    quota: SourceSettings | None = None
    marketing: SourceSettings | None = None
    risk: ServiceSettings | None = None
    engine: ServiceSettings | None = None
    acquirer: ServiceSettings | None = None

    def __getitem__(self, name: str) -> SourceSettings | None:
        """One of the eight."""
        found: SourceSettings | None = getattr(self, name)
        return found

    def service(self, name: str) -> ServiceSettings | None:
        """One of the three."""
        found: ServiceSettings | None = getattr(self, name)
        return found


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """`cashier.toml`."""

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    consult: ConsultSettings = ConsultSettings()
    accept: AcceptSettings = AcceptSettings()
    cache: CachingSettings = CachingSettings()
    shed: ShedSettings = ShedSettings()
    tokens: TokenSettings = TokenSettings()
    sources: SourcesSettings = SourcesSettings()


class Configuration(Struct, frozen=True):
    """All that the wiring needs: the settings, what is offered and in which words, how it is ranked and how payments are routed. `source`:
    where it came from."""

    source: str
    settings: Settings
    catalog: Catalog
    weights: Weights
    routing: Routing


class ConfigurationError(Exception):
    """A configuration that does not start. `faults`: one sentence each, with file, key and remedy."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def settings_faults(settings: Settings) -> Iterator[str]:
    consult = settings.consult
    yield from auth_faults(settings.auth, settings.server.host)
    deadline = f"deadline_ms = {consult.deadline_ms}"
    if consult.reserve_ms >= consult.deadline_ms:
        yield f"[consult] reserve_ms = {consult.reserve_ms} leaves nothing of {deadline}; it is for our own work, 2 is usual"
    if consult.deadline_ms > consult.max_deadline_ms:
        yield f"[consult] {deadline} is above max_deadline_ms = {consult.max_deadline_ms}; raise that or lower this"
    yield from shed_faults(settings.shed)
    for name in SourcesSettings.__struct_fields__:
        service = name in SERVICES
        found: SourceSettings | ServiceSettings | None = (
            settings.sources.service(name) if service else settings.sources[name]
        )
        if found is not None:
            yield from _address_faults(name, found)
        if isinstance(found, SourceSettings):
            yield from _source_faults(name, found)
    risk = settings.sources.risk
    if risk is not None and risk.tries != RetrySettings():
        yield "[sources.risk] tries: risk is never asked twice by itself; leave it out"


def _address_faults(name: str, found: SourceSettings | ServiceSettings) -> Iterator[str]:
    if not found.urls:
        yield f"[sources.{name}] url names no address"
        return
    for transport in ("http1", "aiohttp"):
        if found.transport != transport and getattr(found, transport) is not None:
            yield f'[sources.{name}.{transport}] is for transport = "{transport}", but this source has "{found.transport}"'
    adapted = isinstance(found, SourceSettings) and found.adapter is not None
    if found.transport == "local" and (adapted or len(found.urls) > 1 or ":" not in found.urls[0]):
        yield f'[sources.{name}] with transport = "local" takes one url, "package.module:function", and no adapter'


def _source_faults(name: str, found: SourceSettings) -> Iterator[str]:
    if isinstance(found.cache, CacheSettings):
        yield from (f"[sources.{name}] cache: {fault}" for fault in found.cache.faults())
    if found.transport == "local" and found.batch:
        yield f'[sources.{name}] batch is for sources on a wire, but this one has transport = "local"'
