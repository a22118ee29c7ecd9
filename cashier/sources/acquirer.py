"""The acquirer, asked what became of an order. Its word is what the payer is told."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct

from cashier.answer import SourceError, WrongIdentity
from cashier.domain.money import Money
from cashier.sources.again import NoNews, Tries, until_heard
from cashier.sources.source import Asked, read, source
from cashier.wire.awaited import ask
from cashier.wire.exchange import Request, Response, Transport, Trip


class ResultStatus(StrEnum):
    PENDING = "PENDING"
    PAYING = "PAYING"
    PAID = "PAID"
    CLOSED = "CLOSED"
    CLOSED_REFUNDING = "CLOSED_REFUNDING"
    REFUNDED = "REFUNDED"


class OrderResult(Struct, frozen=True, kw_only=True):
    """`payment_id`: the attempt that lives or that paid, which need not be the one that somebody asks for."""

    order_id: str
    status: ResultStatus
    payment_id: str | None = None
    paid: Money | None = None
    closed_reason: str | None = None


class NoOrder(Struct, frozen=True):
    """The acquirer knows no such order."""


Result: TypeAlias = OrderResult | NoOrder | NoNews


def target(asked: Asked) -> str:
    return f"/orders/{asked['order_id']}/result"


def accept(answer: OrderResult | None, asked: Asked) -> OrderResult | None:
    if answer is not None and answer.order_id != asked["order_id"]:
        raise WrongIdentity("answered about another order")
    return answer


ACQUIRER = source("acquirer", OrderResult, target, accept)


def request(order_id: str) -> Request:
    return ACQUIRER.request({"order_id": order_id})


def parse(response: Response | SourceError, order_id: str) -> Result:
    found: Any = read(ACQUIRER, response, {"order_id": order_id})
    match found:
        case SourceError():
            return NoNews(found)
        case OrderResult():
            return found
    return NoOrder()


class Acquirer:
    """Asked over a transport, again and again within the budget where that helps."""

    def __init__(self, transport: Transport, tries: Tries | None = None) -> None:
        self._transport = transport
        self._tries = tries or Tries()

    async def result(self, order_id: str, trip: Trip, budget_ms: int) -> Result:
        async def once(left_ms: int) -> Result:
            return parse(await ask(self._transport, request(order_id), trip, left_ms), order_id)

        return await until_heard(once, budget_ms, self._tries)
