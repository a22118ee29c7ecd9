"""Sources behind an adapter, for the fan-out: one call in either form, and batches.

Form 1 is one request and a callback. Form 2 is a task that sends any number of requests, all of
them within the time and the trace of the ask, and ends with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from cashier.fanout.ask import Known
from cashier.fanout.batch import OnBatchOutcomes, Outcome
from cashier.fanout.upstream_protocol import CautiousCall, OnAnswer, UpstreamCall
from cashier.source_errors import FailureReason, Garbled, Skipped, SourceError, WrongIdentity
from cashier.sources.adapter import Adapter, error_of_undeclared
from cashier.sources.asked import Asked
from cashier.sources.batch_call import BatchWireUpstream
from cashier.wire.transport import CallHeaders, Request, Response, Transport, TransportCall

# The most requests of one answer: many pages. More is a loop that the adapter forgot to end.
MAX_REQUESTS = 64
# The pace of an adapter that goes on although its call has ended.
_ENDED_PACE_S = 0.05


class AdapterUpstream:
    """A source behind an adapter, over a transport."""

    __slots__ = ("_adapter", "_kind", "_transport", "addresses")

    def __init__(self, adapter: Adapter, transport: Transport) -> None:
        self.addresses = transport.addresses
        self._adapter = adapter
        self._transport = transport
        self._kind: type[AdaptedCall] = SingleRequestCall if adapter.answer is None else SequenceCall

    def call(self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, avoid: int = 0) -> AdaptedCall:
        call = self._kind(self._adapter, self._transport, known, call_headers, budget_ms, on_answer, avoid)
        if self._adapter.unopened is not None:
            call.finish_soon((self._adapter.unopened, False, None))
        else:
            call.start()
        return call

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        return self._adapter.parse_stored(not_found, body, known)


class AdaptedCall(CautiousCall):
    """An `UpstreamCall`. `start` makes the first request."""

    __slots__ = (
        "_adapter", "_asked", "_avoid", "_budget_ms", "_call", "_call_headers", "_index", "_on_answer", "_transport",
    )  # fmt: skip

    def __init__(
        self,
        adapter: Adapter,
        transport: Transport,
        known: Known,
        call_headers: CallHeaders,
        budget_ms: int,
        on_answer: OnAnswer,
        avoid: int,
    ) -> None:
        super().__init__()
        self._adapter = adapter
        self._transport = transport
        self._asked: Asked = adapter.asked(known)
        self._call_headers = call_headers
        self._budget_ms = budget_ms
        self._on_answer: OnAnswer | None = on_answer
        self._avoid = avoid
        self._call: TransportCall | None = None  # the latest in flight
        self._index = 0

    @property
    def address_index(self) -> int:
        """That of the latest request: see `UpstreamCall`."""
        index = self._index if self._call is None else self._call.address_index
        return index if index < len(self._transport.addresses) else -1

    def start(self) -> None:
        raise NotImplementedError

    def finish_soon(self, outcome: Outcome) -> None:
        asyncio.get_running_loop().call_soon(self.finish, outcome)

    def finish(self, outcome: Outcome) -> None:
        """Deliver the outcome, unless one was delivered or the call was abandoned."""
        on_answer, self._on_answer = self._on_answer, None
        if on_answer is None:
            return
        error, _, _ = outcome
        if isinstance(error, SourceError) and not self.repeatable:
            error.final = True
        on_answer(*outcome)

    def abandon(self) -> None:
        self._on_answer = None


class SingleRequestCall(AdaptedCall):
    """Form 1."""

    __slots__ = ()

    def start(self) -> None:
        try:
            request = self._adapter.request(self._asked)
        except SourceError as fault:
            self.finish_soon((fault, False, None))
            return
        self.repeatable = request.method == "GET"
        self._call = self._transport.send(request, self._call_headers, self._budget_ms, self._on_response, self._avoid)

    def _on_response(self, response: Response | SourceError) -> None:
        self.context.run(self._finish_with, response)

    def _finish_with(self, response: Response | SourceError) -> None:
        self.finish(self._adapter.outcome(response, self._asked))

    def abandon(self) -> None:
        super().abandon()
        if self._call is not None:
            self._call.abandon()


class SequenceCall(AdaptedCall):
    """Form 2."""

    __slots__ = ("_expires_s", "_in_flight", "_last", "_passed_on", "_requests", "_task")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._expires_s = time.monotonic() + self._budget_ms / 1000
        self._in_flight: dict[asyncio.Future[Response | SourceError], TransportCall] = {}
        self._last: Response | None = None
        self._passed_on: list[SourceError] = []
        self._requests = 0
        self._task: asyncio.Task[Outcome] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[Outcome]) -> None:
        if not task.cancelled():  # else it was abandoned
            self.finish(task.result())

    async def _run(self) -> Outcome:
        assert self._adapter.answer is not None, "an adapter of form 1 has no answer"  # noqa: S101
        try:
            value = await self._adapter.answer(self._asked, self._send)
        except BaseException as fault:  # SystemExit would end the event loop
            if self._on_answer is None and isinstance(fault, asyncio.CancelledError):
                raise
            return self._adapter.error_of(fault, "answer", self._passed_on), False, None
        finally:
            self._end_requests()
        outcome = self._adapter.outcome_of_value(value, self._asked, "answer")
        if self._last is not None and isinstance(outcome[0], WrongIdentity):
            self._last.discredit(outcome[0])
        return outcome

    async def _send(self, request: Request) -> Response:
        """The `call` of the adapter.

        Raises the `SourceError` in place of a response, also for a status that the adapter does not
        declare.
        """
        self._requests += 1
        if self._on_answer is None or self._task is None or self._task.done():
            await asyncio.sleep(_ENDED_PACE_S)
            raise asyncio.CancelledError
        if self._requests > MAX_REQUESTS:
            endless = f"adapter {self._adapter.name} makes more than {MAX_REQUESTS} requests"
            await self._give_up(Garbled(endless, reason=FailureReason.ADAPTER))
        try:
            checked = self._adapter.checked(request)
        except Garbled as fault:
            await self._give_up(fault)
        outcome = await self._outcome(checked)
        if isinstance(outcome, Response):
            if outcome.status in self._adapter.statuses:
                self._last = outcome
                return outcome
            outcome = error_of_undeclared(outcome, self._adapter.name)
        self._passed_on.append(outcome)
        raise outcome

    async def _outcome(self, request: Request) -> Response | SourceError:
        if request.method != "GET":
            if self.beside_another:
                await self._give_up(Skipped("a request other than GET is not hedged", reason=FailureReason.NOT_NEEDED))
            self.repeatable = False
        loop = asyncio.get_running_loop()
        received: asyncio.Future[Response | SourceError] = loop.create_future()

        def on_response(response: Response | SourceError) -> None:
            self._index = call.address_index
            if self._call is call:
                self._call = None
            if not received.done():
                received.set_result(response)

        left_ms = max(1, int((self._expires_s - time.monotonic()) * 1000))
        self._call = call = self._transport.send(request, self._call_headers, left_ms, on_response, self._avoid)
        self._in_flight[received] = call
        try:
            return await received
        finally:
            self._in_flight.pop(received, None)
            call.abandon()

    async def _give_up(self, fault: SourceError) -> NoReturn:
        """End the call at once: an adapter that tries again in a loop would block everything."""
        self.finish_soon((fault, False, None))
        if self._task is not None:
            self._task.cancel()
        await asyncio.sleep(_ENDED_PACE_S)
        raise asyncio.CancelledError

    def _end_requests(self) -> None:
        """Those that the adapter left behind in tasks of its own."""
        for received, call in tuple(self._in_flight.items()):
            call.abandon()
            received.cancel()

    def abandon(self) -> None:
        super().abandon()
        if self._task is not None:
            self._task.remove_done_callback(self._on_done)
            self._task.cancel()
            self._end_requests()


class AdapterBatchUpstream(BatchWireUpstream):
    """The batch form of a source behind an adapter of form 1. Each part is a response of its own.

    ValueError for an adapter without the function `parameters`.
    """

    __slots__ = ("_adapter",)

    def __init__(self, adapter: Adapter, transport: Transport, path: str) -> None:
        super().__init__(adapter, transport, path)
        self._adapter = adapter
        self._statuses = adapter.statuses - {200}

    def call_many(
        self, many: Sequence[Known], call_headers: Any, budget_ms: int, on_outcomes: OnBatchOutcomes, avoid: int = 0
    ) -> UpstreamCall:
        """Raises SourceError of the adapter."""
        if self._adapter.unopened is not None:
            raise self._adapter.unopened
        return super().call_many(many, call_headers, budget_ms, on_outcomes, avoid)

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        return self._adapter.parse_stored(not_found, body, known)

    def _read(self, status: int, body: bytes, known: Known) -> Outcome:
        return self._adapter.outcome(Response(status, body), self._adapter.asked(known))
