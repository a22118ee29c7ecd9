"""The consultation's questions, as one table: what each is called, what its silence costs, what it needs, what it makes known.

Concurrency follows from the needs, not from stages: with the caller's claims of amount and country all eight are asked at once; without
them what needs them waits for the order, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from cashier.domain.order import ConsultRequest, Order
from cashier.fanout.ask import Ask, Importance, Start
from cashier.fanout.plan import Plan
from cashier.sources.balance import BALANCE
from cashier.sources.card import CARD
from cashier.sources.channel import CHANNEL
from cashier.sources.marketing import MARKETING
from cashier.sources.member import MEMBER
from cashier.sources.merchant import MERCHANT
from cashier.sources.order import ORDER
from cashier.sources.quota import QUOTA
from cashier.sources.source import Source


class Question(Struct, frozen=True):
    source: Source
    importance: Importance
    needs: tuple[str, ...]
    timeout_ms: int
    gives: tuple[str, ...] = ()


_R, _G, _E = Importance.REQUIRED, Importance.GATING, Importance.ENRICHING

QUESTIONS = (
    Question(ORDER, _R, ("order_id",), 120, gives=("amount", "currency", "country")),
    Question(MERCHANT, _R, ("merchant_id",), 100),
    Question(MEMBER, _R, ("user_id",), 100),
    Question(CARD, _G, ("user_id",), 100),
    Question(BALANCE, _G, ("user_id",), 100),
    Question(CHANNEL, _G, ("currency", "country"), 100),
    Question(QUOTA, _G, ("user_id", "currency"), 100),
    Question(MARKETING, _E, ("user_id", "merchant_id", "amount"), 80),
)
NAMES = tuple(question.source.name for question in QUESTIONS)
ALWAYS_GIVEN = ("order_id", "user_id", "merchant_id")
CLAIMED = (*ALWAYS_GIVEN, "amount", "currency", "country")


def known(request: ConsultRequest) -> dict[str, Any]:
    """What the caller says, by the names that questions need."""
    found: dict[str, Any] = {"order_id": request.order_id, "user_id": request.user_id, "merchant_id": request.merchant_id}
    if request.amount is not None:
        found["amount"] = request.amount
        found["currency"] = request.amount.currency
    if request.country is not None:
        found["country"] = request.country
    return found


def reveal(order: Order | None) -> dict[str, Any]:
    """What an order makes known; nothing where there is none."""
    return {} if order is None else {"amount": order.amount, "currency": order.amount.currency, "country": order.country}


def consultation(starts: Mapping[str, Start], timeouts_ms: Mapping[str, int]) -> Plan:
    """The plan, with a way to start each question. `timeouts_ms` overrides by name."""
    return Plan(
        [
            Ask(
                question.source.name,
                question.importance,
                question.needs,
                timeouts_ms.get(question.source.name, question.timeout_ms),
                starts[question.source.name],
                question.gives,
                reveal if question.gives else None,
            )
            for question in QUESTIONS
        ],
        inputs=CLAIMED,
    )
