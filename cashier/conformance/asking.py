"""Asks one service, one exchange after another, and judges what holds for every answer."""

from __future__ import annotations

import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
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

# Calls without any answer one after another, after which a service is left alone: each may cost the
# whole patience.
_MOST_SILENT = 3
_JSON_TYPE = re.compile(r"application/([a-z0-9.+-]+\+)?json(\s*;\s*charset=\"?utf-8\"?)?", re.IGNORECASE)
_STATUSES_WITH_JSON = (200, 404, 409, 422)
OVERLOAD_STATUSES = (429, 503)
_TRACEPARENT = "00-{}-00f067aa0ba902b7-01"
_ORDINARY_DEADLINE_MS = 1_000


class GivenUp(Exception):
    """The service is silent, so that nothing more can be tried."""


class Asking(ABC):
    """Reads a service and puts what is wrong into `ledger`. Subclasses make the exchanges.

    A breach that the first answers had is not found again by later checks, which then count as not
    tried: they could only repeat it. `settled`: the first answers are over. `silent`: calls without
    an answer, one after another. `connect_ms`: of the first connection; 0 if it is unknown.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.settled = False
        self.connect_ms = 0.0
        self._usual: set[str] = set()
        self.silent = 0

    @abstractmethod
    async def read(
        self,
        source: ReadSource,
        inputs: Inputs,
        *,
        exists: bool | None = True,
        rule: Rule | None = None,
        tolerated: Collection[int] = (),
    ) -> Exchange:
        """One read. `exists`: whether its subject does; None: unknown.

        `rule`: takes all breaches but those of the first answers. `tolerated`: statuses that are
        none. Raises `GivenUp` once too many reads have had no answer.
        """

    def find(self, rule: Rule, what: str, exchange: Exchange) -> None:
        """A breach that later checks are not to repeat, if it is one of the first answers."""
        if not self.settled:
            self._usual.add(without_indexes(what))
        self.ledger.find(rule, what, exchange)

    def judge(self, rule: Rule | None, breaches: Sequence[tuple[Rule, str]], exchange: Exchange) -> None:
        """Find the breaches of a read that the first answers did not have; see `read`."""
        new = [breach for breach in breaches if without_indexes(breach[1]) not in self._usual]
        for own_rule, what in new:
            self.find(rule or own_rule, what, exchange)
        usual = breaches or isinstance(exchange.outcome, SourceError)
        if rule is not None and (new or not usual):
            self.ledger.tried(rule)

    def judge_fact(
        self, source: ReadSource, exchange: Exchange, body: bytes | None, exists: bool | None, doubts: Sequence[str]
    ) -> None:
        """Judge an answer that can be used. `body`: None if it says that there is none."""
        if exists is False and source.has_entities:
            self.ledger.tried(INVENTED)
        if body is None:
            self.ledger.tried(NOT_FOUND)
            return
        self.ledger.tried(ANSWERS, SCHEMA, ROWS, IDENTITY, SPELLING, VALUES)
        for miss in near_misses(source.source, body):
            self.find(SPELLING, miss.removeprefix(f"{source.source.name} "), exchange)
        for doubt in doubts:
            self.find(VALUES, doubt, exchange)

    def count_silence(self, exchange: Exchange, error: SourceError) -> None:
        """Raises `GivenUp`."""
        self.silent += 1
        if self.silent >= _MOST_SILENT:
            self.find(ANSWERS, f"{error.detail}; given up after {_MOST_SILENT} calls without an answer", exchange)
            raise GivenUp


class HttpAsking(Asking):
    """Asks a service of the contract over connections of its own."""

    def __init__(self, endpoint: Endpoint, ledger: Ledger) -> None:
        super().__init__(ledger)
        self._endpoint = endpoint
        self._idle: list[Connection] = []

    def new_connection(self) -> Connection:
        trace = _TRACEPARENT.format(uuid.uuid4().hex)
        return Connection(self._endpoint, CallHeaders(f"conform-{uuid.uuid4().hex[:16]}", trace))

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    async def ask(
        self, request: Request, deadline_ms: int = _ORDINARY_DEADLINE_MS, connection: Connection | None = None
    ) -> Exchange:
        """One exchange, judged as HTTP, on the given connection or an idle or new one.

        As in production, a read that is lost with its connection is sent once more, on a new one,
        and what must not be sent twice uses no idle one. Raises `GivenUp`.
        """
        if connection is not None:
            return self._judged(await connection.exchange(request, deadline_ms))
        exchange = await self._exchange(request, deadline_ms)
        if request.safe and _is_lost(exchange):
            self.close()
            exchange = await self._exchange(request, deadline_ms)
        return exchange

    async def _exchange(self, request: Request, deadline_ms: int) -> Exchange:
        connection = self._idle.pop() if self._idle and request.safe else self.new_connection()
        kept = False
        try:
            exchange = await connection.exchange(request, deadline_ms)
            kept = exchange.kept
        finally:
            self._idle.append(connection) if kept else connection.close()
        self.connect_ms = self.connect_ms or connection.connect_ms
        return self._judged(exchange)

    def _judged(self, exchange: Exchange) -> Exchange:
        if isinstance(exchange.outcome, SourceError):
            self._judge_error(exchange, exchange.outcome)
        else:
            self._judge_response(exchange, exchange.outcome)
        return exchange

    async def read(
        self,
        source: ReadSource,
        inputs: Inputs,
        *,
        exists: bool | None = True,
        rule: Rule | None = None,
        tolerated: Collection[int] = (),
        request: Request | None = None,
        deadline_ms: int = _ORDINARY_DEADLINE_MS,
        connection: Connection | None = None,
    ) -> Exchange:
        """See `Asking`. `request`: another than the ordinary one."""
        exchange = await self.ask(request or source.source.request(inputs), deadline_ms, connection)
        with collected_doubts() as doubts:
            fact = parse_response(source.source, exchange.outcome, inputs)
        self.judge(rule, list(_breaches(source, exchange, fact, exists, tolerated)), exchange)
        if not isinstance(fact, SourceError) and isinstance(exchange.outcome, Response):
            response = exchange.outcome
            self.judge_fact(source, exchange, None if response.status == 404 else response.body, exists, doubts)
        return exchange

    def _judge_error(self, exchange: Exchange, error: SourceError) -> None:
        if _is_lost(exchange):
            self.find(CLOSING, "a connection was closed without Connection: close", exchange)
        elif error.reason is FailureReason.PROTOCOL:
            self.find(FRAMING, error.detail.removeprefix(f"{self._endpoint.address.name}: "), exchange)
        else:
            self.count_silence(exchange, error)

    def _judge_response(self, exchange: Exchange, response: Response) -> None:
        self.silent = 0
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
    source: ReadSource, exchange: Exchange, fact: Any, exists: bool | None, tolerated: Collection[int]
) -> Iterator[tuple[Rule, str]]:
    response = exchange.outcome
    if isinstance(response, SourceError):
        if response.reason is not FailureReason.PROTOCOL:
            yield ANSWERS, response.detail
    elif response.status == 200:
        if isinstance(fact, SourceError):
            yield from faults_of_answer(source, response.body, fact)
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


def _is_lost(exchange: Exchange) -> bool:
    """Whether the service closed a kept connection before it answered."""
    error = exchange.outcome
    return isinstance(error, SourceError) and exchange.reused and error.reason is FailureReason.RESET


def faults_of_answer(source: ReadSource, body: bytes, fault: SourceError) -> Iterator[tuple[Rule, str]]:
    """What is wrong with an answer in the contract's shape that cannot be used."""
    if isinstance(fault, WrongIdentity):
        yield IDENTITY, fault.detail
        return
    faults = list(shape_faults(body, source.source.answer_type))
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
