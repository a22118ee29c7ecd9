"""Asks one service, one exchange after another, and judges what holds for every answer."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterator
from typing import Any

import msgspec
import orjson
from msgspec.structs import replace

from cashier.conformance.exchange import Connection, Endpoint, Exchange
from cashier.conformance.report import Ledger
from cashier.conformance.rules import (
    ANSWERS,
    CLOSING,
    CONTENT_TYPE,
    FRAMING,
    IDENTITY,
    INVENTED,
    NOT_FOUND,
    OVERLOAD,
    ROWS,
    SCHEMA,
    SPELLING,
    VALUES,
    Rule,
)
from cashier.conformance.schema import field_faults, without_indexes
from cashier.conformance.subject import Inputs, ReadSource
from cashier.probe import near_misses
from cashier.source_errors import FailureReason, SourceError, WrongIdentity
from cashier.sources.doubts import collected_doubts
from cashier.sources.source import error_of_status, parse_response
from cashier.wire.transport import CallHeaders, Request, Response

# Calls without any answer, after which a service is left alone: each costs the whole patience.
_MOST_SILENT = 3
_JSON_TYPE = re.compile(r"application/([a-z0-9.+-]+\+)?json(\s*;\s*charset=\"?utf-8\"?)?", re.IGNORECASE)
_STATUSES_WITH_JSON = (200, 404, 409, 422)
OVERLOAD_STATUSES = (429, 503)
_TRACEPARENT = "00-{}-00f067aa0ba902b7-01"
_ORDINARY_DEADLINE_MS = 1_000


class GivenUp(Exception):
    """The service is silent, so that nothing more can be tried."""


class Asking:
    """`ledger`: takes what every answer is judged by; the checks add the rest.

    A breach that the first answers had is not found again by later checks, which then count as not
    tried: they could only repeat it.
    """

    def __init__(self, endpoint: Endpoint, ledger: Ledger) -> None:
        self.ledger = ledger
        self._endpoint = endpoint
        self._connection = self.new_connection()
        self._silent = 0
        self._usual: set[str] = set()
        self.settled = False
        self.connect_ms = 0.0

    def new_connection(self) -> Connection:
        trace = _TRACEPARENT.format(uuid.uuid4().hex)
        return Connection(self._endpoint, CallHeaders(f"conform-{uuid.uuid4().hex[:16]}", trace))

    def close(self) -> None:
        self._connection.close()

    async def ask(
        self, request: Request, deadline_ms: int = _ORDINARY_DEADLINE_MS, connection: Connection | None = None
    ) -> Exchange:
        """One exchange, judged as HTTP. Raises `GivenUp` once too many have had no answer.

        As in production, a read that is lost with its connection is sent once more.
        """
        exchange = await self._exchange(request, deadline_ms, connection)
        if connection is None and request.safe and _is_lost(exchange):
            exchange = await self._exchange(request, deadline_ms, None)
        return exchange

    async def _exchange(self, request: Request, deadline_ms: int, connection: Connection | None) -> Exchange:
        own = connection or self._connection
        exchange = await own.exchange(request, deadline_ms)
        if connection is None:
            self.connect_ms = self.connect_ms or own.connect_ms
            if not exchange.kept:
                own.close()
                self._connection = self.new_connection()
        if isinstance(exchange.outcome, SourceError):
            self._judge_error(exchange, exchange.outcome)
        else:
            self._judge_response(exchange, exchange.outcome)
        return exchange

    def find(self, rule: Rule, what: str, exchange: Exchange) -> None:
        """A breach that later checks are not to repeat, if it is one of the first answers."""
        if not self.settled:
            self._usual.add(without_indexes(what))
        self.ledger.find(rule, what, exchange)

    async def read(
        self,
        source: ReadSource,
        inputs: Inputs,
        *,
        exists: bool | None = True,
        rule: Rule | None = None,
        request: Request | None = None,
        deadline_ms: int = _ORDINARY_DEADLINE_MS,
        connection: Connection | None = None,
        tolerated: Collection[int] = (),
    ) -> Exchange:
        """One read. `exists`: whether its subject does; None: unknown.

        `rule`: takes all breaches but those of the first answers. `tolerated`: other statuses that
        are none.
        """
        exchange = await self.ask(request or source.source.request(inputs), deadline_ms, connection)
        with collected_doubts() as doubts:
            fact = parse_response(source.source, exchange.outcome, inputs)
        breaches = list(self._breaches(source, exchange, fact, exists, tolerated))
        new = [breach for breach in breaches if without_indexes(breach[1]) not in self._usual]
        for own_rule, what in new:
            self.find(rule or own_rule, what, exchange)
        if rule is not None and (new or not breaches):
            self.ledger.tried(rule)
        if exists is False and source.has_entities:
            self.ledger.tried(INVENTED)
        if not isinstance(fact, SourceError) and isinstance(exchange.outcome, Response):
            self._judge_fact(source, exchange, exchange.outcome, doubts)
        return exchange

    def _judge_error(self, exchange: Exchange, error: SourceError) -> None:
        if _is_lost(exchange):
            self.find(CLOSING, "a connection was closed without Connection: close", exchange)
        elif error.reason is FailureReason.PROTOCOL:
            self.find(FRAMING, error.detail.removeprefix(f"{self._endpoint.address.name}: "), exchange)
        else:
            self._silent += 1
        if self._silent >= _MOST_SILENT:
            self.find(ANSWERS, f"{error.detail}; given up after {_MOST_SILENT} calls without an answer", exchange)
            raise GivenUp

    def _judge_response(self, exchange: Exchange, response: Response) -> None:
        self.ledger.tried(FRAMING)
        if exchange.reused:
            self.ledger.tried(CLOSING)
        if response.body and response.status in _STATUSES_WITH_JSON:
            self.ledger.tried(CONTENT_TYPE)
            content_type = response.headers.get("content-type")
            if content_type is None:
                self.find(CONTENT_TYPE, f"no Content-Type with status {response.status}", exchange)
            elif not _JSON_TYPE.fullmatch(content_type.strip()):
                self.find(CONTENT_TYPE, f"another Content-Type with status {response.status}", exchange)
        if response.status in OVERLOAD_STATUSES:
            self.ledger.tried(OVERLOAD)
            given = response.headers.get("retry-after")
            if given is not None and response.retry_after_s is None:
                self.find(OVERLOAD, "Retry-After is no number of seconds", exchange)

    def _breaches(
        self, source: ReadSource, exchange: Exchange, fact: Any, exists: bool | None, tolerated: Collection[int]
    ) -> Iterator[tuple[Rule, str]]:
        response = exchange.outcome
        if isinstance(response, SourceError):
            if response.reason is not FailureReason.PROTOCOL:
                yield ANSWERS, response.detail
        elif response.status == 200:
            if isinstance(fact, SourceError):
                yield from _faults_of_200(source, response, fact)
            elif exists is False and source.has_entities:
                yield INVENTED, "200 for an id that cannot exist"
        elif response.status == 404:
            if isinstance(fact, SourceError):
                yield NOT_FOUND, fact.detail
            elif exists:
                yield ANSWERS, "404 for the subject that has to exist: give --id of one that does"
        elif response.status not in tolerated:
            error = error_of_status(response.status, response.retry_after_s)
            yield ANSWERS if exists else NOT_FOUND, f"{error.detail}: {error.cause.value}"

    def _judge_fact(self, source: ReadSource, exchange: Exchange, response: Response, doubts: list[str]) -> None:
        if response.status == 404:
            self.ledger.tried(NOT_FOUND)
            return
        self.ledger.tried(ANSWERS, SCHEMA, ROWS, IDENTITY, SPELLING, VALUES)
        for miss in near_misses(source.source, response.body):
            self.find(SPELLING, miss.removeprefix(f"{source.source.name} "), exchange)
        for doubt in doubts:
            self.find(VALUES, doubt, exchange)


def _is_lost(exchange: Exchange) -> bool:
    """Whether the service closed a kept connection before it answered."""
    error = exchange.outcome
    return isinstance(error, SourceError) and exchange.reused and error.reason is FailureReason.RESET


def _faults_of_200(source: ReadSource, response: Response, fault: SourceError) -> Iterator[tuple[Rule, str]]:
    if isinstance(fault, WrongIdentity):
        yield IDENTITY, fault.detail
        return
    faults = list(shape_faults(response.body, source.source.answer_type))
    yield from ((SCHEMA, text) for text in faults)
    if not faults:
        decodes = not fault.detail.startswith("not of the agreed shape")
        yield ROWS if decodes else SCHEMA, fault.detail


def shape_faults(body: bytes, wanted: Any) -> Iterator[str]:
    """A sentence for each wrong field; one for what is no JSON."""
    try:
        value = orjson.loads(body)
    except ValueError:
        yield "no JSON in UTF-8" if body else "no body"
        return
    yield from (f"{path} {fault}" for path, fault in field_faults(value, wanted))


class CapturedRequest:
    """A `Transport` that keeps the request of one call, for clients that send by themselves."""

    addresses = ("conform",)

    def __init__(self) -> None:
        self.request: Request | None = None
        self.on_response: Any = None

    def send(self, request: Request, call_headers: Any, budget_ms: int, on_response: Any, avoid: int = 0) -> Any:
        self.request, self.on_response = request, on_response


def with_unknown_field(request: Request) -> Request:
    """The request with a field in its body that the contract does not have."""
    body = {**msgspec.json.decode(request.body), "conform_unknown": {"text": "x", "list": [1]}}
    return replace(request, body=msgspec.json.encode(body))
