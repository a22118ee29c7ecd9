"""The acquirer, asked what became of an order. Its word is what the payer is told."""

from __future__ import annotations

from typing import Any

from cashier.domain.acquirer_contract import NoOrder, OrderResult, AcquirerResult
from cashier.source_errors import SourceError, Unanswered, WrongIdentity
from cashier.sources.retry import RetrySettings, retry_until_answered
from cashier.sources.source import Inputs, parse_response, source
from cashier.wire.request_response import send_and_wait
from cashier.wire.transport import CallHeaders, Request, Response, Transport


def target(asked: Inputs) -> str:
    return f"/orders/{asked['order_id']}/result"


def accept(answer: OrderResult | None, asked: Inputs) -> OrderResult | None:
    if answer is not None and answer.order_id != asked["order_id"]:
        raise WrongIdentity("answered about another order")
    return answer


ACQUIRER = source("acquirer", OrderResult, target, accept)


def request(order_id: str) -> Request:
    return ACQUIRER.request({"order_id": order_id})


def parse(response: Response | SourceError, order_id: str) -> AcquirerResult:
    found: Any = parse_response(ACQUIRER, response, {"order_id": order_id})
    match found:
        case SourceError():
            return Unanswered(found)
        case OrderResult():
            return found
    return NoOrder()


class AcquirerClient:
    """Asked over a transport, again and again within the budget where that helps."""

    def __init__(self, transport: Transport, tries: RetrySettings | None = None) -> None:
        self._transport = transport
        self._tries = tries or RetrySettings()

    async def result(self, order_id: str, call_headers: CallHeaders, budget_ms: int) -> AcquirerResult:
        async def once(left_ms: int) -> AcquirerResult:
            return parse(await send_and_wait(self._transport, request(order_id), call_headers, left_ms), order_id)

        return await retry_until_answered(once, budget_ms, self._tries)
