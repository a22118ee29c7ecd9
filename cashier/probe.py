"""Probe of a configuration: each source is asked once, and what came back is kept for its operator.

No cache, breaker or retry stands between the probe and the source. Services that take payments get
only requests that move no money: the acquirer's result and a look-up of an unknown payment.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import msgspec
import orjson
from msgspec import Struct

from cashier.consultation.source_table import SOURCE_NAMES, SOURCE_SPECS, SourceSpec
from cashier.domain.engine_contract import EngineAnswered, NeverArrived
from cashier.domain.facts import Channels, Quotas
from cashier.domain.join_report import join_report
from cashier.domain.order import Order
from cashier.domain.order_result import NoOrder
from cashier.fanout.upstream_protocol import Upstream
from cashier.payments.ports import PaymentPort, PaymentPorts
from cashier.settings.schema import Configuration
from cashier.settings.typed_table import nearest_key, unknown_keys
from cashier.source_errors import SourceError, TimedOut
from cashier.sources.source import Source
from cashier.sources.source_upstream import UpstreamFunction
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response, Transport, TransportCall
from cashier.wiring.upstreams import bare_upstreams

# Longer than any source may take, so that a slow one is seen to be slow and not merely silent.
PATIENCE_MS = 10_000
OnSourceAnswer = Callable[[SourceSpec, Mapping[str, Any], bool, bytes], None]
"""Takes a usable answer: its source and inputs, whether there is none, the contract's JSON."""
# The option of the commands that gives an input.
OPTION_OF_INPUT = {
    "order_id": "--order-id",
    "user_id": "--user-id",
    "merchant_id": "--merchant-id",
    "amount": "--amount",
    "currency": "--amount",
    "country": "--country",
}


class ProbeResult(Struct, frozen=True, kw_only=True):
    """What one source was asked, and what it answered.

    `requests`: method, path and query of each distinct request; none for a function in this
    process. `status`: of the last answer. `fault`: why the answer cannot be used. `answer`: what
    was decoded, as JSON types; None with `fault`, and for "there is none". `missing`: inputs that
    were neither given nor in the order; then the source was not asked.
    """

    source: str
    address: str
    requests: tuple[str, ...] = ()
    status: int | None = None
    elapsed_ms: float = 0.0
    timeout_ms: int | None = None
    fault: str | None = None
    answer: Any = None
    missing: tuple[str, ...] = ()


class _RecordedTransport:
    """A `Transport` that keeps requests and the last response."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.requests: list[str] = []
        self.response: Response | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._transport.addresses

    async def open(self) -> None:
        """Open nothing ahead: the probe's own request shows why a connection fails."""

    async def is_reachable(self) -> bool:
        return await self._transport.is_reachable()

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> TransportCall:
        def on_recorded(response: Response | SourceError) -> None:
            if isinstance(response, Response):
                self.response = response
            on_response(response)

        self.requests.append(f"{request.method} {request.target}")
        return self._transport.send(request, call_headers, budget_ms, on_recorded, avoid)

    async def close(self) -> None:
        await self._transport.close()


async def probe(
    config: Configuration,
    known: Mapping[str, Any],
    given: Mapping[str, UpstreamFunction | PaymentPort] | None = None,
    patience_ms: int = PATIENCE_MS,
    on_answer: OnSourceAnswer = lambda spec, inputs, not_found, body: None,
) -> tuple[list[ProbeResult], list[str]]:
    """Ask the order first, then all other configured sources at once.

    Returns the exchanges, and one sentence for each value or field that matches nothing.
    `on_answer` is not called for functions of this process, whose answers are no JSON.

    `known`: inputs by name (`order_id`, `user_id`, `merchant_id`, `amount`, `currency`, `country`).
    Those that are missing are taken from the order. Raises `ConfigurationError`.
    """
    recorded: dict[str, _RecordedTransport] = {}

    def record(name: str, transport: Transport) -> Transport:
        recorded[name] = _RecordedTransport(transport)
        return recorded[name]

    # The answer of each source in the contract's shape, as JSON; also one that cannot be used.
    mappings: dict[str, bytes] = {}
    upstreams, ports, resources = bare_upstreams(config, given or {}, record, mappings.__setitem__)
    probing = _Probe(config, recorded, patience_ms, on_answer)
    specs = [spec for spec in SOURCE_SPECS if spec.source.name in upstreams]
    try:
        await asyncio.gather(*(resource.open() for resource in resources))
        inputs = dict(known)
        exchanges = []
        facts: dict[str, Any] = {}
        for spec in [spec for spec in specs if spec.reveal is not None]:
            exchange, fact = await probing.source(spec, upstreams[spec.source.name], inputs)
            exchanges.append(exchange)
            facts[spec.source.name] = fact
            inputs = inputs_of_order(fact) | inputs
        others = [probing.source(spec, upstreams[spec.source.name], inputs) for spec in specs if spec.reveal is None]
        for exchange, fact in await asyncio.gather(*others):
            exchanges.append(exchange)
            facts[exchange.source] = fact
        if ports is not None:
            exchanges += await asyncio.gather(*probing.services(ports, inputs.get("order_id")))
    finally:
        await asyncio.gather(*(opened.close() for opened in (*recorded.values(), *resources)))
    for name, transport in recorded.items():
        own = config.settings.sources[name] if name in SOURCE_NAMES else None
        response = transport.response
        if own is not None and own.adapter is None and response is not None and response.status == 200:
            mappings[name] = response.body
    findings = [finding for spec in specs for finding in near_misses(spec.source, mappings.get(spec.source.name, b""))]
    return exchanges, list(dict.fromkeys([*findings, *join_report(facts)]))


def near_misses(source: Source, body: bytes) -> Iterator[str]:
    """Fields that the contract does not have, and that are spelled like one that it has.

    `body`: an answer in the contract's shape, as JSON; none if it is something else.
    """
    try:
        answer = orjson.loads(body)
    except ValueError:
        return
    for path, key, known in unknown_keys(answer, msgspec.inspect.type_info(source.answer_type)):
        near = nearest_key(key, known)
        if near is not None:
            place = re.sub(r"\[\d+\]", "[]", ".".join((*path, key)))
            yield f"{source.name} {place} is not in the contract; did you mean {near!r}?"


class _Probe:
    def __init__(
        self,
        config: Configuration,
        recorded: Mapping[str, _RecordedTransport],
        patience_ms: int,
        on_answer: OnSourceAnswer,
    ) -> None:
        self._settings = config.settings
        self._on_answer = on_answer
        self._recorded = recorded
        self._patience_ms = patience_ms
        self._headers = CallHeaders(f"probe-{uuid.uuid4().hex[:12]}")

    async def source(self, spec: SourceSpec, upstream: Upstream, inputs: Mapping[str, Any]) -> tuple[ProbeResult, Any]:
        """The exchange and the fact, or the `SourceError` in its place."""
        name = spec.source.name
        missing = tuple(need for need in spec.needs if need not in inputs)
        if missing:
            return ProbeResult(source=name, address=", ".join(upstream.addresses), missing=missing), None
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Any] = loop.create_future()

        def on_answer(outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
            if answered.done():
                return
            answered.set_result(outcome)
            if body is not None and not isinstance(outcome, SourceError):
                self._on_answer(spec, inputs, not_found, body)

        started_ns = time.perf_counter_ns()
        call = upstream.call(inputs, self._headers, self._patience_ms, on_answer)
        try:
            async with asyncio.timeout(self._patience_ms / 1000):
                outcome = await answered
        except TimeoutError:
            outcome = TimedOut(f"no answer within {self._patience_ms} ms")
        finally:
            call.abandon()
        own = self._settings.sources[name]
        timeout_ms = spec.timeout_ms if own is None or own.timeout_ms is None else own.timeout_ms
        return self._exchange(name, upstream.addresses, outcome, started_ns, timeout_ms), outcome

    def services(self, ports: PaymentPorts, order_id: str | None) -> list[Awaitable[ProbeResult]]:
        """Risk is never asked: a decision counts, and may send the payer a message."""
        if order_id is None:
            return []
        unknown = f"probe_{uuid.uuid4().hex}"
        return [
            self._service("engine", lambda: ports.engine.look_up(unknown, order_id, self._headers, self._patience_ms)),
            self._service("acquirer", lambda: ports.acquirer.result(order_id, self._headers, self._patience_ms)),
        ]

    async def _service(self, name: str, ask: Callable[[], Awaitable[Any]]) -> ProbeResult:
        started_ns = time.perf_counter_ns()
        outcome = await ask()
        error = getattr(outcome, "error", None)
        addresses = self._recorded[name].addresses
        return self._exchange(name, addresses, error or outcome, started_ns, self._settings.accept.look_ms)

    def _exchange(
        self, name: str, addresses: tuple[str, ...], outcome: Any, started_ns: int, timeout_ms: int
    ) -> ProbeResult:
        recorded = self._recorded.get(name)
        failed = isinstance(outcome, SourceError)
        return ProbeResult(
            source=name,
            address=", ".join(addresses),
            requests=tuple(dict.fromkeys(recorded.requests)) if recorded else (),
            status=recorded.response.status if recorded and recorded.response else None,
            elapsed_ms=(time.perf_counter_ns() - started_ns) / 1e6,
            timeout_ms=timeout_ms,
            fault=f"{outcome.cause.value}: {outcome.detail}" if failed else None,
            answer=None if failed else presentable(outcome),
        )


def inputs_of_order(fact: Any) -> dict[str, Any]:
    """What the order tells about the inputs of the other sources."""
    if not isinstance(fact, Order):
        return {}
    inputs = {
        "merchant_id": fact.merchant_id,
        "user_id": fact.user_id,
        "amount": fact.amount,
        "currency": fact.amount.currency,
        "country": fact.country,
    }
    return {name: value for name, value in inputs.items() if value is not None}


def presentable(fact: Any) -> Any:
    match fact:
        case Channels():
            fact = {"channels": list(fact.by_id.values())}
        case Quotas():
            scopes = [quotas for by_bank in fact.by_kind.values() for quotas in by_bank.values()]
            fact = {"quotas": [quota for quotas in scopes for quota in quotas]}
        case EngineAnswered():
            fact = fact.payment
        case NeverArrived() | NoOrder():
            return None
    return _without_none(msgspec.to_builtins(fact))


def _without_none(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_none(part) for name, part in value.items() if part is not None}
        case list() | tuple():
            return [_without_none(part) for part in value]
    return value
