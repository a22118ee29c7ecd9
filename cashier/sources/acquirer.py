"""The acquirer's result of an order, which decides what the payer is shown."""

from __future__ import annotations

from functools import partial
from typing import Any

from cashier.domain.order_result import AcquirerResult, NoOrder, OrderResult
from cashier.fanout.failure_log import OnFailure, ignore_failure
from cashier.metrics.store import Store
from cashier.source_errors import SourceError, Unanswered, WrongIdentity
from cashier.sources.idempotent_retry import RetrySettings
from cashier.sources.service_calls import ServiceCalls
from cashier.sources.service_request import ServiceRequest
from cashier.sources.source import Inputs, define_source, parse_response
from cashier.wire.transport import CallHeaders, Response, Transport


def target(inputs: Inputs) -> str:
    return f"/orders/{inputs['order_id']}/result"


def to_result(answer: OrderResult | None, inputs: Inputs) -> OrderResult | None:
    if answer is not None and answer.order_id != inputs["order_id"]:
        raise WrongIdentity("an answer about another order")
    return answer


ACQUIRER = define_source("acquirer", OrderResult, target, to_result)


def result_request(order_id: str) -> ServiceRequest:
    return ServiceRequest(target({"order_id": order_id}), operation="result", arguments=(order_id,))


def parse_result(response: Response | SourceError, order_id: str) -> AcquirerResult:
    outcome: Any = parse_response(ACQUIRER, response, {"order_id": order_id})
    match outcome:
        case SourceError():
            return Unanswered(outcome)
        case OrderResult():
            return outcome
    return NoOrder()


class AcquirerClient:
    """Queries the acquirer over a transport, with retries within the budget."""

    def __init__(
        self,
        transport: Transport,
        retry: RetrySettings | None = None,
        on_failure: OnFailure = ignore_failure,
        metrics: Store | None = None,
    ) -> None:
        self._calls = ServiceCalls("acquirer", transport, on_failure, metrics)
        self._retry = retry or RetrySettings()

    async def result(self, order_id: str, call_headers: CallHeaders, budget_ms: int) -> AcquirerResult:
        parse = partial(parse_result, order_id=order_id)
        return await self._calls.ask_until_answered(
            result_request(order_id), parse, call_headers, budget_ms, self._retry
        )
