"""Examinations: one service by its address, or all services of a configuration, one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from cashier.conformance import rules as rule
from cashier.conformance.adapted_asking import AdaptedAsking, SeenTransport, answer_of
from cashier.conformance.asking import GivenUp, HttpAsking
from cashier.conformance.exchange import Endpoint
from cashier.conformance.money_checks import EngineChecks, NotCleared, RiskChecks, TrialPayment, decide
from cashier.conformance.read_checks import HttpReadChecks, ReadChecks, ReadSettings
from cashier.conformance.report import Latency, Ledger, ServiceReport
from cashier.conformance.rules import Rule
from cashier.conformance.subject import READ_SOURCES, RISK_SILENCE
from cashier.consultation.source_table import SOURCE_NAMES, SOURCE_SPECS
from cashier.domain.order import Order
from cashier.fanout.batch import BatchPolicy
from cashier.fanout.upstream_protocol import Upstream
from cashier.payments.settings import AcceptSettings
from cashier.probe import inputs_of_order
from cashier.settings.schema import SERVICES, Configuration, ServiceSettings, SourceSettings
from cashier.source_errors import Unreachable
from cashier.sources.auth.authenticator import Authenticator
from cashier.wire.address_parser import parse_address
from cashier.wire.aiohttp_client import AiohttpSettings
from cashier.wire.http1 import Http1Settings
from cashier.wire.response_parser import ResponseBounds
from cashier.wire.tls import client_tls
from cashier.wire.transport import Transport
from cashier.wiring.transports import authenticators
from cashier.wiring.upstreams import bare_upstreams

_GENERAL = (rule.ANSWERS, rule.SCHEMA, rule.CONTENT_TYPE, rule.FRAMING, rule.TOLERANCE, rule.OVERLOAD)
_READ = (
    rule.ANSWERS, rule.SCHEMA, rule.ROWS, rule.IDENTITY, rule.SPELLING, rule.VALUES, rule.NOT_FOUND, rule.INVENTED,
    rule.IDS, rule.UNKNOWN_PATH, rule.TOLERANCE, rule.CONTENT_TYPE, rule.FRAMING, rule.KEEP_ALIVE, rule.CLOSING,
    rule.IDLE, rule.DEADLINE, rule.REPETITION, rule.CONCURRENCY, rule.OVERLOAD, rule.LATENCY, rule.TAIL,
)  # fmt: skip
_ENGINE = (
    rule.REVERSE_UNKNOWN, rule.LATE_ARRIVAL, rule.SUBMIT, rule.SAME_KEY, rule.KEY_REUSED, rule.LOOK_UP, rule.ORDER_BUSY,
    rule.REVERSE,
)  # fmt: skip
# Those of a source behind an adapter or another client than the kit's own.
_ADAPTED = (
    rule.ANSWERS, rule.SCHEMA, rule.ROWS, rule.IDENTITY, rule.SPELLING, rule.VALUES, rule.NOT_FOUND, rule.INVENTED,
    rule.IDS, rule.REPETITION, rule.CONCURRENCY, rule.OVERLOAD, rule.LATENCY, rule.TAIL,
)  # fmt: skip
_OF_SUBJECTS = (rule.IDENTITY, rule.NOT_FOUND, rule.IDS)
_RISK = (*_GENERAL, rule.DECISION, rule.CHALLENGE, rule.RESEND)
_WITHOUT_MONEY = "moves money: give --moves-money and a test order, user and amount"


class ConformSettings(Struct, frozen=True, kw_only=True):
    """What is tried. `inputs`: by name, as in `Source.request`. `ids`: subjects that exist, in the
    place of the one in `inputs`. `timeout_ms`: None takes the source's own. `test`: None: nothing
    that moves money is tried. `risk`: where the test payment is cleared; None: not at all.
    """

    inputs: Mapping[str, Any]
    ids: tuple[str, ...] = ()
    timeout_ms: int | None = None
    calls: int = 100
    concurrency: int = 16
    idle_s: float = 2.0
    batch_path: str | None = None
    batch_max: int = BatchPolicy().max
    closed_order_id: str | None = None
    test: TrialPayment | None = None
    risk: Endpoint | None = None


class _Access(Struct, frozen=True):
    """How the services of a configuration are asked. `auths`: of those with `auth`."""

    headers: tuple[tuple[str, str], ...]
    patience_s: float
    auths: Mapping[str, Authenticator]


def endpoint(
    url: str,
    *,
    headers: tuple[tuple[str, str], ...] = (),
    auth: Authenticator | None = None,
    files: tuple[str | None, str | None, str | None] = (None, None, None),
    patience_s: float = 10.0,
    limits: Http1Settings | AiohttpSettings | None = None,
) -> Endpoint:
    """`files`: authorities, client certificate and its key. Raises ValueError."""
    address = parse_address(url)
    limits = limits or Http1Settings()
    return Endpoint(
        address=address,
        bounds=ResponseBounds(
            max_head_bytes=limits.max_head_bytes,
            max_headers=limits.max_headers,
            max_body_bytes=limits.max_body_bytes,
            keep_headers=True,
        ),
        tls=client_tls(*files) if address.tls else None,
        headers=headers,
        auth=auth,
        patience_s=patience_s,
    )


async def examine(source: str, at: Endpoint, settings: ConformSettings) -> ServiceReport:
    """The report about one service. `source`: a name of the contract."""
    silence = RISK_SILENCE if source == "risk" else READ_SOURCES[source].silence
    ledger = Ledger(silence)
    asking = HttpAsking(at, ledger)
    latency = None
    try:
        if source == "risk":
            await _examine_risk(asking, settings)
        else:
            latency = await _examine_reads(source, asking, settings)
            if source == "engine":
                await _examine_engine(asking, settings)
    except GivenUp:
        pass
    finally:
        asking.close()
    return ServiceReport(
        source=source, address=at.address.name, results=ledger.results(_rules_of(source)), latency=latency
    )


async def examine_all(
    config: Configuration,
    settings: ConformSettings,
    headers: tuple[tuple[str, str], ...],
    patience_s: float,
    *,
    only: str | None = None,
) -> list[ServiceReport]:
    """A report for each address of each source that a configuration has, or of the source `only`.

    Sources with an adapter or discovery are asked through production's own client. Raises
    `ConfigurationError` and ValueError.
    """
    mappings: dict[str, bytes] = {}
    seen: list[SeenTransport] = []

    def see(_name: str, transport: Transport) -> Transport:
        seen.append(SeenTransport(transport))
        return seen[-1]

    sources = config.settings.sources
    # A company may begin with some of its services.
    given = {name: _not_configured for name in SOURCE_NAMES if sources[name] is None}
    upstreams, _, clients = bare_upstreams(config, given, see, mappings.__setitem__)
    auths, credentials = authenticators(config)
    resources = [*clients, *credentials]
    try:
        await asyncio.gather(*(resource.open() for resource in resources))
        configured = _Configured(config, _Access(headers, patience_s, auths), upstreams, mappings)
        settings = await configured.with_inputs_of_order(settings)
        names = (*SOURCE_NAMES, *SERVICES) if only is None else (only,)
        return [report for name in names for report in await configured.reports(name, settings)]
    finally:
        await asyncio.gather(*(opened.close() for opened in (*seen, *resources)))


async def _not_configured(**inputs: Any) -> Any:
    raise Unreachable("it is not configured")


class _Configured(NamedTuple):
    """The services of a configuration. `mappings`: see `AdaptedAsking`."""

    config: Configuration
    access: _Access
    upstreams: Mapping[str, Upstream]
    mappings: dict[str, bytes]

    async def reports(self, name: str, settings: ConformSettings) -> list[ServiceReport]:
        """One for each address; one for all that production's client asks."""
        sources = self.config.settings.sources
        own = sources[name] if name in SOURCE_NAMES else sources.service(name)
        if own is None:
            return []
        settings, addresses = _own_settings(self.config, own, settings, self.access), ", ".join(own.urls)
        needs_client = own.adapter is not None or own.discover is not None
        if own.transport == "local" or (needs_client and name not in self.upstreams):
            return [ServiceReport(source=name, address=addresses, not_examined=_why_not(own))]
        if needs_client:
            ledger, given = Ledger(READ_SOURCES[name].silence), None if own.adapter is None else self.mappings
            asking = AdaptedAsking(self.upstreams[name], ledger, given, self.access.patience_s)
            return [await _examine_adapted(name, addresses, asking, settings)]
        return [await examine(name, _configured_endpoint(name, url, own, self.access), settings) for url in own.urls]

    async def with_inputs_of_order(self, settings: ConformSettings) -> ConformSettings:
        """The inputs of the others, as far as they were not given, from the order."""
        fact, _, _ = await answer_of(self.upstreams["order"], settings.inputs, self.access.patience_s)
        if not isinstance(fact, Order):
            return settings
        return replace(settings, inputs={**inputs_of_order(fact), **settings.inputs})


def _why_not(own: SourceSettings | ServiceSettings) -> str:
    if own.transport == "local":
        return "a function of this process: cashier probe asks it"
    what = "an adapter" if own.adapter is not None else "discovery"
    return f"a payment service with {what}: cashier probe asks it, and conform one of its addresses"


async def _examine_adapted(
    source: str, address: str, asking: AdaptedAsking, settings: ConformSettings
) -> ServiceReport:
    read = READ_SOURCES[source]
    known = read.known(settings.inputs, settings.ids)
    checks = ReadChecks(asking, read, known, settings.inputs, _read_settings(source, settings))
    with suppress(GivenUp):
        await checks.run()
    results = asking.ledger.results([each for each in _rules_of(source) if each in _ADAPTED])
    return ServiceReport(source=source, address=address, results=results, latency=checks.latency)


def _rules_of(source: str) -> Sequence[Rule]:
    if source == "risk":
        return _RISK
    read = READ_SOURCES[source]
    absent = (*(() if read.subject else _OF_SUBJECTS), *(() if read.has_entities else (rule.INVENTED,)))
    rules = [each for each in _READ if each not in absent]
    more = {"engine": _ENGINE, "acquirer": (rule.CLOSED_ORDER,)}.get(source, ())
    batch = () if read.source.parameters is None else (rule.BATCH,)
    return (*rules, *batch, *more)


async def _examine_reads(source: str, asking: HttpAsking, settings: ConformSettings) -> Latency | None:
    """Raises `GivenUp`."""
    read = READ_SOURCES[source]
    own = _read_settings(source, settings)
    checks = HttpReadChecks(asking, read, read.known(settings.inputs, settings.ids), settings.inputs, own)
    await checks.run()
    return checks.latency


def _read_settings(source: str, settings: ConformSettings) -> ReadSettings:
    return ReadSettings(
        timeout_ms=settings.timeout_ms or _default_timeout_ms(source),
        calls=settings.calls,
        concurrency=settings.concurrency,
        idle_s=settings.idle_s,
        batch_path=settings.batch_path,
        batch_max=settings.batch_max,
        closed_order_id=settings.closed_order_id,
    )


async def _examine_engine(asking: HttpAsking, settings: ConformSettings) -> None:
    if settings.test is None:
        for each in _ENGINE:
            asking.ledger.note(each, _WITHOUT_MONEY)
        return
    test = settings.test
    risk = None if settings.risk is None else HttpAsking(settings.risk, Ledger(RISK_SILENCE))

    async def cleared(payment_id: str) -> str:
        return "conform" if risk is None else await decide(risk, test, payment_id)

    try:
        await EngineChecks(asking, test, cleared).run()
    except NotCleared as fault:
        for each in _ENGINE:
            asking.ledger.note(each, str(fault))
    finally:
        if risk is not None:
            risk.close()


async def _examine_risk(asking: HttpAsking, settings: ConformSettings) -> None:
    if settings.test is None:
        for each in _RISK:
            asking.ledger.note(each, _WITHOUT_MONEY)
        return
    await RiskChecks(asking, settings.test).run()


def _default_timeout_ms(source: str) -> int:
    known = {spec.source.name: spec.timeout_ms for spec in SOURCE_SPECS}
    return known.get(source, AcceptSettings().look_ms)


def _configured_endpoint(name: str, url: str, own: SourceSettings | ServiceSettings, access: _Access) -> Endpoint:
    limits = (own.aiohttp if own.transport == "aiohttp" else own.http1) or Http1Settings()
    files = (limits.ca_file, limits.client_cert_file, limits.client_key_file)
    return endpoint(
        url,
        headers=access.headers,
        auth=access.auths.get(name),
        files=files,
        patience_s=access.patience_s,
        limits=limits,
    )


def _own_settings(
    config: Configuration,
    own: SourceSettings | ServiceSettings,
    settings: ConformSettings,
    access: _Access,
) -> ConformSettings:
    """`settings` with what the configuration says about this source."""
    if isinstance(own, SourceSettings):
        settings = replace(settings, timeout_ms=settings.timeout_ms or own.timeout_ms)
        return replace(settings, batch_path=own.batch.path, batch_max=own.batch.max) if own.batch else settings
    test, risk = settings.test, config.settings.sources.service("risk")
    if test is not None:
        test = replace(test, seals=own.seals, merchant_id=settings.inputs.get("merchant_id", test.merchant_id))
    clears = risk is not None and risk.adapter is None and risk.transport != "local"
    return replace(
        settings,
        timeout_ms=settings.timeout_ms or config.settings.accept.look_ms,
        test=test,
        risk=_configured_endpoint("risk", risk.urls[0], risk, access) if risk and clears else None,
    )
