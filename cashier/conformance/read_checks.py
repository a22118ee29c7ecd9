"""The checks of reads: answers, absence, tolerance, connections, times, many at once, batches."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from math import ceil
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import replace

from cashier.conformance.asking import OVERLOAD_STATUSES, Asking, CapturedRequest, HttpAsking
from cashier.conformance.exchange import Connection, Exchange
from cashier.conformance.report import Latency
from cashier.conformance.rules import (
    BATCH,
    CLOSED_ORDER,
    CLOSING,
    CONCURRENCY,
    DEADLINE,
    FRAMING,
    IDLE,
    IDS,
    KEEP_ALIVE,
    LATENCY,
    OVERLOAD,
    REPETITION,
    TAIL,
    TOLERANCE,
    UNKNOWN_PATH,
)
from cashier.conformance.subject import Inputs, ReadSource
from cashier.domain.order_result import OrderResult, ResultStatus
from cashier.fanout.batch import BatchPolicy
from cashier.source_errors import SourceError
from cashier.sources.batch_call import BatchWireUpstream
from cashier.sources.source import check_not_found, parse_or_error, parse_response
from cashier.wire.transport import CallHeaders, Request, Response

_NO_SUCH_PATH = "/conform/no-such-path"
# A service may say that too little time is left.
_TOO_LITTLE_TIME = (408, 429, 503, 504)
_SHORTEST_MS, _LONGEST_MS = 1, 60_000
# Long enough for a close that follows an answer, short beside everything else.
_SOON_S = 0.05
# A submit may use a connection that was idle for so long.
_UNSAFE_IDLE_S = 1.0
_CLIENT_IDLE_S = 50
_CALLS_PER_TURN = 3
_LONGEST_REPETITION_S = 30.0
_FINAL = (ResultStatus.CLOSED, ResultStatus.CLOSED_REFUNDING, ResultStatus.PAID, ResultStatus.REFUNDED)


class ReadSettings(Struct, frozen=True, kw_only=True):
    """`calls`: for the times. `concurrency`: connections at once. `idle_s`: how long a connection
    is left alone. `batch_path`, `closed_order_id`: None leaves those checks out. `batch_max`: the
    most requests of a batch.
    """

    timeout_ms: int
    calls: Annotated[int, Meta(ge=1)] = 100
    concurrency: Annotated[int, Meta(ge=1)] = 16
    idle_s: float = 2.0
    batch_path: str | None = None
    batch_max: int = BatchPolicy().max
    closed_order_id: str | None = None


class ReadChecks:
    """The checks that hold for any source, also behind an adapter.

    `known`: inputs of subjects that exist; may be empty. `inputs`: the rest of a request's.
    """

    def __init__(
        self, asking: Asking, source: ReadSource, known: Sequence[Inputs], inputs: Inputs, settings: ReadSettings
    ) -> None:
        self._asking = asking
        self._ledger = asking.ledger
        self._source = source
        self._known = known
        self._inputs = inputs
        self._settings = settings
        self.latency: Latency | None = None

    async def run(self) -> None:
        """Raises `GivenUp`."""
        for inputs in self._known:
            await self._asking.read(self._source, inputs)
        await self._unknown_subject()
        self._asking.settled = True
        await self._repetition()
        await self._concurrency()

    @property
    def _usual(self) -> tuple[Inputs, bool]:
        """The inputs of an ordinary read, and whether their subject exists."""
        return (self._known[0], True) if self._known else (self._source.unknown(self._inputs), False)

    async def _unknown_subject(self) -> None:
        if self._source.subject is None:
            return
        await self._asking.read(self._source, self._source.unknown(self._inputs), exists=False)
        self._asking.settled = True
        for inputs in self._source.strange(self._inputs):
            await self._asking.read(self._source, inputs, exists=False, rule=IDS)

    async def _repetition(self) -> None:
        inputs = self._known or [self._usual[0]]
        exchanges: list[Exchange] = []
        ends_s = time.monotonic() + _LONGEST_REPETITION_S
        for number in range(self._settings.calls):
            if time.monotonic() > ends_s:
                self._ledger.note(REPETITION, f"ended after {number} calls and {_LONGEST_REPETITION_S:g} s")
                break
            turn = inputs[number % len(inputs)]
            exchange = await self._asking.read(self._source, turn, exists=bool(self._known), rule=REPETITION)
            if isinstance(exchange.outcome, Response):
                exchanges.append(exchange)
        if exchanges:
            self._judge_times(sorted(exchanges, key=lambda exchange: exchange.elapsed_ms))

    def _judge_times(self, by_time: list[Exchange]) -> None:
        def at(share: float) -> Exchange:
            return by_time[ceil(share * len(by_time)) - 1]

        self.latency = Latency(
            calls=len(by_time),
            p50_ms=at(0.5).elapsed_ms,
            p90_ms=at(0.9).elapsed_ms,
            p99_ms=at(0.99).elapsed_ms,
            max_ms=by_time[-1].elapsed_ms,
            connect_ms=self._asking.connect_ms,
            timeout_ms=self._settings.timeout_ms,
        )
        self._ledger.tried(LATENCY, TAIL)
        late = sum(exchange.elapsed_ms > self._settings.timeout_ms for exchange in by_time)
        what = f"{late} of {len(by_time)} answers after the timeout of {self._settings.timeout_ms} ms"
        if self.latency.p90_ms > self._settings.timeout_ms:
            self._asking.find(LATENCY, what, at(0.9))
        elif self.latency.p99_ms > self._settings.timeout_ms:
            self._asking.find(TAIL, what, at(0.99))

    async def _concurrency(self) -> None:
        """Ask about several subjects at once, also about ones that do not exist."""
        known = [(inputs, True) for inputs in self._known]
        absent = [(self._source.unknown(self._inputs, f"{n}"), False) for n in range(3) if self._source.subject]
        turns = [*known, *absent] * _CALLS_PER_TURN

        async def ask_in_turn(first: int) -> None:
            for inputs, exists in (turns[first % len(turns) :] + turns)[:_CALLS_PER_TURN]:
                await self._asking.read(
                    self._source, inputs, exists=exists, rule=CONCURRENCY, tolerated=OVERLOAD_STATUSES
                )

        await asyncio.gather(*(ask_in_turn(number) for number in range(self._settings.concurrency)))
        self._ledger.note(OVERLOAD, f"no call was refused, with {self._settings.concurrency} at once")


class HttpReadChecks(ReadChecks):
    """Also the checks of HTTP, for a service that speaks the contract."""

    def __init__(
        self, asking: HttpAsking, source: ReadSource, known: Sequence[Inputs], inputs: Inputs, settings: ReadSettings
    ) -> None:
        super().__init__(asking, source, known, inputs, settings)
        self._http = asking

    async def run(self) -> None:
        """Raises `GivenUp`."""
        await super().run()
        await self._unknown_path()
        await self._tolerance()
        await self._deadline()
        await self._keep_alive()
        await self._batch()
        await self._closed_order()

    async def _unknown_path(self) -> None:
        exchange = await self._http.ask(Request(_NO_SUCH_PATH))
        response = exchange.outcome
        if isinstance(response, SourceError):
            return
        self._ledger.tried(UNKNOWN_PATH)
        if response.status == 200:
            self._asking.find(UNKNOWN_PATH, "200 for a path that does not exist", exchange)
        elif response.status == 404 and not isinstance(parse_or_error(check_not_found, response.body), SourceError):
            self._asking.find(UNKNOWN_PATH, "a 404 that means: there is no such subject", exchange)

    async def _tolerance(self) -> None:
        inputs, exists = self._usual
        request = self._source.source.request(inputs)
        join = "&" if "?" in request.target else "?"
        grown = replace(request, target=f"{request.target}{join}conform=1", headers=(("X-Conform", "1"),))
        await self._http.read(self._source, inputs, exists=exists, rule=TOLERANCE, request=grown)

    async def _deadline(self) -> None:
        inputs, exists = self._usual
        await self._http.read(self._source, inputs, exists=exists, rule=DEADLINE, deadline_ms=_LONGEST_MS)
        await self._http.read(
            self._source, inputs, exists=exists, rule=DEADLINE, deadline_ms=_SHORTEST_MS, tolerated=_TOO_LITTLE_TIME
        )

    async def _keep_alive(self) -> None:
        inputs, exists = self._usual
        connection = self._http.new_connection()
        try:
            first = await self._http.read(self._source, inputs, exists=exists, connection=connection)
            if isinstance(first.outcome, SourceError):
                return
            self._ledger.tried(KEEP_ALIVE)
            if not first.kept:
                rule, how = (KEEP_ALIVE, first.closing) if first.closing else (FRAMING, "bytes after the answer")
                self._asking.find(rule, f"the connection ends with its first answer: {how}", first)
                return
            if await self._is_left_open(connection, first):
                await self._http.read(self._source, inputs, exists=exists, rule=KEEP_ALIVE, connection=connection)
        finally:
            connection.close()

    async def _is_left_open(self, connection: Connection, exchange: Exchange) -> bool:
        """Leave the connection alone: nothing may come, and it should stay open."""
        self._ledger.tried(CLOSING)
        announced = re.search(r"timeout=(\d{1,6})", _header(exchange, "keep-alive"))
        idle_s = self._settings.idle_s
        soon_s = min(_SOON_S, idle_s)
        for wait_s, rule, when in (
            (soon_s, CLOSING, "right after its answer"),
            (min(_UNSAFE_IDLE_S, idle_s) - soon_s, CLOSING, "within a second"),
            (idle_s - _UNSAFE_IDLE_S, IDLE, f"within {idle_s:g} s"),
        ):
            came = await connection.unasked(wait_s) if wait_s > 0 else None
            if came == "closed":
                self._asking.find(rule, f"the connection is closed {when}, without Connection: close", exchange)
                return False
            if came is not None:
                self._asking.find(FRAMING, f"{came} came after the answer", exchange)
                return False
        if not idle_s:
            return True
        self._ledger.tried(IDLE)
        self._ledger.note(IDLE, f"open after {idle_s:g} s; --idle-s {_CLIENT_IDLE_S} tries the client's whole time")
        if announced and int(announced[1]) <= _CLIENT_IDLE_S:
            self._asking.find(IDLE, f"Keep-Alive announces {announced[1]} s", exchange)
        return True

    async def _batch(self) -> None:
        source = self._source.source
        if source.parameters is None or self._settings.batch_path is None:
            given = "give --batch PATH of the batch form, if there is one"
            self._ledger.note(BATCH, given if source.parameters else "this source has no batch form")
            return
        absent = self._source.unknown(self._inputs)
        some = [*self._known[:1], absent, *self._known[-1:], *self._known[:1]]
        full = (some * self._settings.batch_max)[: self._settings.batch_max]
        for many in (some, [absent], full):
            captured = CapturedRequest()
            outcomes: list[Any] = []
            upstream = BatchWireUpstream(source, captured, self._settings.batch_path)  # type: ignore[arg-type]
            upstream.call_many(many, CallHeaders("conform"), _LONGEST_MS, outcomes.append)
            assert captured.request is not None  # noqa: S101  made by the call
            exchange = await self._http.ask(captured.request)
            captured.on_response(exchange.outcome)
            self._ledger.tried(BATCH)
            self._judge_parts(exchange, many, outcomes[0], absent)

    def _judge_parts(self, exchange: Exchange, many: Sequence[Inputs], outcomes: Any, absent: Inputs) -> None:
        if isinstance(outcomes, SourceError):
            self._asking.find(BATCH, outcomes.detail, exchange)
            return
        for place, (inputs, (outcome, not_found, _)) in enumerate(zip(many, outcomes, strict=True)):
            where = f"part {place + 1} of {len(many)}"
            if isinstance(outcome, SourceError):
                self._asking.find(BATCH, f"{where}: {outcome.detail}", exchange)
            elif not_found and inputs is not absent:
                self._asking.find(BATCH, f"{where}: 404 for a subject that exists", exchange)
            elif not not_found and inputs is absent and self._source.has_entities:
                self._asking.find(BATCH, f"{where}: an answer for an id that cannot exist", exchange)

    async def _closed_order(self) -> None:
        if self._source.source.answer_type is not OrderResult:
            return
        closed = self._settings.closed_order_id
        if closed is None:
            self._ledger.note(CLOSED_ORDER, "give --closed-order-id of an order that is over")
            return
        inputs = {**self._inputs, "order_id": closed}
        seen: set[ResultStatus] = set()
        for _ in range(3):
            exchange = await self._http.read(self._source, inputs, rule=CLOSED_ORDER)
            result = parse_response(self._source.source, exchange.outcome, inputs)
            if isinstance(result, OrderResult):
                seen.add(result.status)
                if result.status not in _FINAL:
                    self._asking.find(CLOSED_ORDER, f"{result.status.value} for an order that is over", exchange)
                elif len(seen) > 1:
                    self._asking.find(CLOSED_ORDER, f"{' and '.join(sorted(seen))} for one order", exchange)


def _header(exchange: Exchange, name: str) -> str:
    return exchange.outcome.headers.get(name, "") if isinstance(exchange.outcome, Response) else ""
