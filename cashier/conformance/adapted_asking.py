"""Asks a source through production's own client: its adapter, credential and discovery included.

Of HTTP only the last request and answer of a read are seen, so the checks of connections are left
out. Time is that of the whole answer, which may take several requests.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Collection, Iterator, MutableMapping
from contextvars import ContextVar
from typing import Any

from cashier.conformance.asking import Asking, faults_of_answer
from cashier.conformance.exchange import Exchange
from cashier.conformance.redaction import described_foreign_request
from cashier.conformance.report import Ledger
from cashier.conformance.rules import ANSWERS, INVENTED, NOT_FOUND, OVERLOAD, Rule
from cashier.conformance.subject import Inputs, ReadSource
from cashier.fanout.upstream_protocol import Upstream
from cashier.source_errors import FailureReason, Overloaded, SourceError, TimedOut
from cashier.sources.doubts import collected_doubts
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response, Transport, TransportCall

_OF_THE_ANSWER = (FailureReason.FIELD, FailureReason.NOT_JSON, FailureReason.WRONG_IDENTITY)
_Seen = list[tuple[Request, Response | SourceError | None]]
# The exchanges of the read that is under way in this task, or in one that it started.
_seen: ContextVar[_Seen | None] = ContextVar("exchanges_of_a_read", default=None)


class SeenTransport:
    """A `Transport` around another one, whose exchanges a read can see."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._transport.addresses

    async def open(self) -> None:
        """Open nothing ahead: a read shows why a connection fails."""

    async def is_reachable(self) -> bool:
        return await self._transport.is_reachable()

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> TransportCall:
        seen = _seen.get()
        place = 0 if seen is None else len(seen)

        def on_seen(response: Response | SourceError) -> None:
            if seen is not None:
                seen[place] = (request, response)
            on_response(response)

        if seen is not None:
            seen.append((request, None))
        return self._transport.send(request, call_headers, budget_ms, on_seen, avoid)

    async def close(self) -> None:
        await self._transport.close()


class AdaptedAsking(Asking):
    """`mappings`: takes what an adapter gave as JSON, under the source's name, just before each
    answer; None: the source has no adapter.
    """

    def __init__(
        self, upstream: Upstream, ledger: Ledger, mappings: MutableMapping[str, bytes] | None, patience_s: float
    ) -> None:
        super().__init__(ledger)
        self._upstream = upstream
        self._mappings = mappings
        self._patience_s = patience_s

    async def read(
        self,
        source: ReadSource,
        inputs: Inputs,
        *,
        exists: bool | None = True,
        rule: Rule | None = None,
        tolerated: Collection[int] = (),
    ) -> Exchange:
        """See `Asking`. `tolerated` is of HTTP: an error that means overload is, with any of it."""
        seen: _Seen = []

        def take_mapping() -> bytes:
            """What the adapter gave; of a service of the contract, its 200."""
            last = seen[-1][1] if seen else None
            plain = last.body if isinstance(last, Response) and last.status == 200 else b""
            return plain if self._mappings is None else self._mappings.pop(source.source.name, b"")

        started_s = time.perf_counter()
        with collected_doubts() as doubts:
            token = _seen.set(seen)
            try:
                fact, body, given = await answer_of(self._upstream, inputs, self._patience_s, take_mapping)
            finally:
                _seen.reset(token)
        elapsed_ms = (time.perf_counter() - started_s) * 1000
        exchange = _exchange(source.source.name, fact, seen, elapsed_ms)
        self.judge(rule, list(_breaches(source, fact, body, given, exists, tolerated)), exchange)
        if isinstance(fact, TimedOut):
            self.count_silence(exchange, fact)
            return exchange
        self.silent = 0
        if isinstance(fact, Overloaded):
            self.ledger.tried(OVERLOAD)
        elif not isinstance(fact, SourceError):
            self.judge_fact(source, exchange, body, exists, doubts)
        return exchange


async def answer_of(
    upstream: Upstream, inputs: Inputs, patience_s: float, take_mapping: Callable[[], bytes] = bytes
) -> tuple[Any, bytes | None, bytes]:
    """The fact or error of one call; the answer as JSON, None: there is none; what `take_mapping`
    returns when it comes.
    """
    answered: asyncio.Future[tuple[Any, bytes | None, bytes]] = asyncio.get_running_loop().create_future()

    def on_answer(outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        if not answered.done():
            answered.set_result((outcome, None if not_found else body or b"", take_mapping()))

    call = upstream.call(inputs, CallHeaders(f"conform-{uuid.uuid4().hex[:16]}"), round(patience_s * 1000), on_answer)
    try:
        async with asyncio.timeout(patience_s):
            return await answered
    except TimeoutError:
        return TimedOut(f"no answer within {patience_s * 1000:.0f} ms"), None, b""
    finally:
        call.abandon()


def _exchange(name: str, fact: Any, seen: _Seen, elapsed_ms: float) -> Exchange:
    """The last exchange of a read, with all its requests. An error stands for no answer."""
    sent = "; ".join(described_foreign_request(request) for request, _ in seen)
    last = seen[-1][1] if seen else None
    outcome = last or (fact if isinstance(fact, SourceError) else Response(200, b""))
    return Exchange(sent or f"nothing, for {name}", outcome, elapsed_ms, reused=False, kept=True, closing=None)


def _breaches(
    source: ReadSource,
    fact: Any,
    body: bytes | None,
    given: bytes,
    exists: bool | None,
    tolerated: Collection[int],
) -> Iterator[tuple[Rule, str]]:
    if isinstance(fact, SourceError):
        if given and fact.reason in _OF_THE_ANSWER:
            yield from faults_of_answer(source, given, fact)
        elif not (tolerated and isinstance(fact, Overloaded)):
            yield NOT_FOUND if exists is False else ANSWERS, f"{fact.detail}: {fact.cause.value}"
    elif body is None:
        if exists:
            yield ANSWERS, "there is none, for the subject that has to exist: give --id of one that does"
    elif exists is False and source.has_entities:
        yield INVENTED, "an answer for an id that cannot exist"
