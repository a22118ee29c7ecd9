"""Configuration: read, checked strictly, and handed on in parts. A settings struct lives beside its user; here they only meet.

Nothing is guessed: an unknown key, a wrong type, a missing text or an unset variable stops the start and names file, key and remedy.
"""

from __future__ import annotations

import difflib
import os
import re
import secrets
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, inspect

from cashier.consult import ConsultSettings
from cashier.domain.catalog import Catalog, Methods, Texts
from cashier.domain.ranking import Weights
from cashier.domain.routing_rules import Routing
from cashier.fanout.breaker import BreakerSettings
from cashier.fanout.hedge import HedgeSettings
from cashier.fanout.limiter import LimiterSettings
from cashier.fanout.load_shedding import ShedSettings, shed_faults
from cashier.fanout.ttl import CacheSettings
from cashier.payments.settings import AcceptSettings
from cashier.sources.batch_call import BatchSettings
from cashier.sources.retry import Tries
from cashier.web.auth import AuthSettings, auth_faults
from cashier.web.server import ServerSettings
from cashier.wire.aiohttp_client import AiohttpSettings
from cashier.wire.http1 import Http1Settings

SECRET_VARIABLE = "CASHIER_TOKEN_SECRET"  # noqa: S105  # the name of a variable, not a secret
# What takes payments: all three, or none, and then this is for consultations only.
SERVICES = ("risk", "engine", "acquirer")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_T = TypeVar("_T")


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
    tries: Tries = Tries()

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


def load(
    path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ, *, server: Mapping[str, Any] | None = None
) -> Configuration:
    """Read `cashier.toml`, and from beside it `methods.toml`, `texts.toml`, `ranking.toml` and `routing.toml` where they exist, over the
    packaged ones.

    `server` takes the place of single values of `[server]`. Raises `ConfigurationError` with every fault that could be found.
    """
    file = Path(path)
    return configuration(
        _over(_read(file), {"server": dict(server)} if server else {}), str(file), file.parent, environ
    )


def configuration(
    table: Mapping[str, Any], source: str, beside: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Configuration:
    """The same from a table that is in memory already. `source` names it in faults."""
    faults: list[str] = []
    settings = _typed(_filled(table, source, environ, faults), Settings, source, faults)
    methods = _typed(_layered("methods.toml", beside), Methods, _origin("methods.toml", beside), faults)
    texts = _typed(_layered("texts.toml", beside), Texts, _origin("texts.toml", beside), faults)
    weights = _typed(_layered("ranking.toml", beside), Weights, _origin("ranking.toml", beside), faults)
    routing = _typed(_layered("routing.toml", beside), Routing, _origin("routing.toml", beside), faults)
    if settings is None or methods is None or texts is None or weights is None or routing is None:
        raise ConfigurationError(faults)
    catalog = Catalog(methods, texts, settings.consult.locale)
    faults += [f"{source}: {fault}" for fault in _settings_faults(settings)]
    faults += [_placed(fault, source, beside) for fault in (*catalog.faults(), *routing.faults())]
    if faults:
        raise ConfigurationError(faults)
    return Configuration(source, settings, catalog, weights, routing)


def token_secrets(settings: TokenSettings, environ: Any = os.environ) -> tuple[tuple[str, ...], bool]:
    """The secrets to sign and verify with, and whether one had to be made up.

    Without any in the configuration the variable CASHIER_TOKEN_SECRET serves. Without that one is made up and put there, so that worker
    processes started from here share it; tokens signed with it end with this process.
    """
    if settings.secrets:
        return settings.secrets, False
    made_up = not environ.get(SECRET_VARIABLE)
    if made_up:
        environ[SECRET_VARIABLE] = secrets.token_urlsafe(32)
    return (environ[SECRET_VARIABLE],), made_up


def _settings_faults(settings: Settings) -> Iterator[str]:
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
    if risk is not None and risk.tries != Tries():
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


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigurationError([f"{file}: there is no such file; `cashier demo` runs without one"]) from None
    except OSError as fault:
        raise ConfigurationError([f"{file}: cannot be read: {fault.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigurationError([f"{file}: is not UTF-8"]) from None
    except tomllib.TOMLDecodeError as fault:
        raise ConfigurationError([f"{file}: is not TOML: {fault}"]) from None


def _origin(name: str, beside: Path | None) -> str:
    return str(beside / name) if beside is not None and (beside / name).exists() else f"(packaged) {name}"


def _placed(fault: str, source: str, beside: Path | None) -> str:
    """A fault of the catalog or the routing begins with what it is about: `methods`, `texts`, `routing`, or the settings."""
    about, _, said = fault.partition(": ")
    return (
        f"{_origin(f'{about}.toml', beside)}: {said}"
        if about in ("methods", "texts", "routing")
        else f"{source}: {fault}"
    )


def _layered(name: str, beside: Path | None) -> dict[str, Any]:
    """The packaged table, with the file beside the configuration over it, value by value."""
    packaged = tomllib.loads(resources.files("cashier").joinpath("defaults", name).read_text("utf-8"))
    return _over(packaged, _read(beside / name)) if beside is not None and (beside / name).exists() else packaged


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _over(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _filled(value: Any, where: str, environ: Mapping[str, str], faults: list[str]) -> Any:
    """Every `${NAME}` in a text replaced by the variable of that name."""
    if isinstance(value, Mapping):
        return {
            key: _filled(under, f"{where}: {key}" if ":" not in where else f"{where}.{key}", environ, faults)
            for key, under in value.items()
        }
    if isinstance(value, list):
        return [_filled(under, where, environ, faults) for under in value]
    if not isinstance(value, str):
        return value
    unset = [name for name in _VARIABLE.findall(value) if name not in environ]
    faults += [f"{where} speaks of ${{{name}}}, but the environment has no {name}; set it" for name in unset]
    return _VARIABLE.sub(lambda found: environ.get(found[1], ""), value)


def _typed(table: Any, wanted: type[_T], where: str, faults: list[str]) -> _T | None:
    """`table` as `wanted`, or None and the faults added."""
    strangers = [f"{where}: {fault}" for fault in _strangers(table, inspect.type_info(wanted), ())]
    faults += strangers
    try:
        return msgspec.convert(table, wanted)
    except msgspec.ValidationError as fault:
        if not strangers:
            faults.append(f"{where}: {_in_words(str(fault))}")
        return None


def _in_words(message: str) -> str:
    text, _, path = message.partition(" - at `")
    keys = path.rstrip("`").removeprefix("$").removeprefix(".").split(".")
    place = f"[{'.'.join(keys[:-1])}] {keys[-1]}" if len(keys) > 1 else keys[0]
    return f"{place}: {text[0].lower()}{text[1:]}" if place else text


def _strangers(value: Any, info: inspect.Type, path: tuple[str, ...]) -> Iterator[str]:
    """Keys that nothing reads, each with the nearest that something would."""
    if isinstance(info, inspect.UnionType):
        for option in info.types:
            yield from _strangers(value, option, path)
    elif isinstance(info, inspect.VarTupleType) and isinstance(value, list):
        for index, under in enumerate(value):
            yield from _strangers(under, info.item_type, (*path[:-1], f"{path[-1]}[{index}]"))
    elif isinstance(info, inspect.DictType) and isinstance(value, Mapping):
        known = [str(key.value) for key in info.key_type.cls] if isinstance(info.key_type, inspect.EnumType) else None
        for key, under in value.items():
            if known is not None and key not in known:
                yield _stranger(key, known, path)
            else:
                yield from _strangers(under, info.value_type, (*path, key))
    elif isinstance(info, inspect.StructType) and isinstance(value, Mapping):
        fields = {field.encode_name: field.type for field in info.fields}
        for key, under in value.items():
            if key in fields:
                yield from _strangers(under, fields[key], (*path, key))
            else:
                yield _stranger(key, list(fields), path)


def _stranger(key: str, known: list[str], path: tuple[str, ...]) -> str:
    near = [name for name in known if name.startswith(key) or key.startswith(name)] or difflib.get_close_matches(
        key, known, 1
    )
    place = f"[{'.'.join(path)}] " if path else ""
    return f"{place}unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}")
