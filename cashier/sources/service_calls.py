"""Calls of the services that take payments: sent, counted, and reported if they fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from cashier.fanout.ask import SourceStatus
from cashier.fanout.failure_log import OnFailure, ignore_failure
from cashier.fanout.source_metrics import configured_url
from cashier.fanout.timeline import CallKind
from cashier.metrics.store import Store
from cashier.source_errors import MissingCause, SourceError, Unanswered
from cashier.sources.idempotent_retry import RetrySettings, further_attempts, retry_until_answered
from cashier.sources.service_request import ServiceRequest
from cashier.wire.awaited_call import send_and_wait
from cashier.wire.transport import CallHeaders, Response, Transport

Outcome = TypeVar("Outcome")
_ERRORS = (MissingCause.UNREACHABLE, MissingCause.OVERLOADED)


class ServiceCalls:
    """`service`: the name of its section in the configuration."""

    def __init__(
        self,
        service: str,
        transport: Transport,
        on_failure: OnFailure = ignore_failure,
        metrics: Store | None = None,
    ) -> None:
        metrics = metrics or Store()
        self._further = further_attempts()
        self._transport = transport
        self._on_failure = on_failure
        calls = partial(metrics.counter, "cashier_source_calls_total", service)
        self._calls = {kind: calls(kind.lower()) for kind in CallKind}
        self._hedges_won = metrics.counter("cashier_hedges_won_total", service)
        self._answers = partial(metrics.counter, "cashier_source_answers_total", service)
        urls = ", ".join(dict.fromkeys(map(configured_url, transport.addresses)))
        duration = partial(metrics.histogram, "cashier_source_duration_seconds", service, urls)
        self._answered, self._failed, self._cancelled = duration("answered"), duration("failed"), duration("cancelled")

    async def ask(
        self,
        request: ServiceRequest,
        parse: Callable[[Response | SourceError], Outcome],
        call_headers: CallHeaders,
        budget_ms: int,
        kind: CallKind = CallKind.FIRST,
    ) -> Outcome:
        """What `parse` makes of the response. Its `error`, if any, says why there is none."""
        started_ns = time.perf_counter_ns()
        self._calls[kind].add()
        try:
            outcome = parse(await send_and_wait(self._transport, request, call_headers, budget_ms))
        except asyncio.CancelledError:
            self._cancelled.record(time.perf_counter_ns() - started_ns)
            raise
        took_ns = time.perf_counter_ns() - started_ns
        error = getattr(outcome, "error", None)
        if isinstance(error, SourceError):
            self._failed.record(took_ns)
            status = SourceStatus.ERROR if error.cause in _ERRORS else SourceStatus(error.cause.value)
            self._answers(status.value, error.reason.value).add()
            self._on_failure(", ".join(self._transport.addresses), error)
        else:
            self._answered.record(took_ns)
            self._answers(SourceStatus.FRESH.value, "").add()
        return outcome

    async def ask_until_answered(
        self,
        request: ServiceRequest,
        parse: Callable[[Response | SourceError], Outcome | Unanswered],
        call_headers: CallHeaders,
        budget_ms: int,
        retry: RetrySettings,
    ) -> Outcome | Unanswered:
        """As `ask`, for a request that may be repeated: see `retry_until_answered`."""
        answered = False

        async def attempt(attempt_ms: int, kind: CallKind) -> Outcome | Unanswered:
            nonlocal answered
            outcome = await self.ask(request, parse, call_headers, attempt_ms, kind)
            if not (answered or isinstance(outcome, Unanswered)):
                answered = True
                if kind is CallKind.HEDGE:
                    self._hedges_won.add()
            return outcome

        return await retry_until_answered(attempt, budget_ms, retry, self._further)
