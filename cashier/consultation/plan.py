"""The consultation's questions, as one table: what each is called, what its silence costs, what it needs, what it makes known.

Concurrency follows from the needs, not from stages: with the caller's claims of amount and country all eight are asked at once; without
them what needs them waits for the order, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from cashier.domain.order import ConsultRequest, Order
from cashier.fanout.ask import Ask, Fallback, Importance, Known, Start, TimeoutSource
from cashier.fanout.plan import Plan
from cashier.fanout.ttl import CacheSettings
from cashier.sources.balance import BALANCE
from cashier.sources.card import CARD
from cashier.sources.channel import CHANNEL
from cashier.sources.marketing import MARKETING
from cashier.sources.member import MEMBER
from cashier.sources.merchant import MERCHANT
from cashier.sources.order import ORDER
from cashier.sources.quota import QUOTA
from cashier.sources.source import Source


class SourceSpec(Struct, frozen=True):
    """`key`: the texts that make its answer this one and no other. `cache`: how old an answer may be where nothing else is configured."""

    source: Source
    importance: Importance
    needs: tuple[str, ...]
    timeout_ms: int
    key: Callable[[Known], str | tuple[str, ...]]
    cache: CacheSettings = CacheSettings()
    gives: tuple[str, ...] = ()


class SourceBinding(Struct, frozen=True):
    """How a question is started, and what is known of its source. `timeout_ms`: where it is not the plan's own."""

    start: Start
    timeout_ms: int | None = None
    instead: Fallback | None = None
    pace: TimeoutSource | None = None


def _order(known: Known) -> str:
    found: str = known["order_id"]
    return found


def _merchant(known: Known) -> str:
    found: str = known["merchant_id"]
    return found


def _user(known: Known) -> str:
    found: str = known["user_id"]
    return found


def _market(known: Known) -> tuple[str, ...]:
    return (known["currency"], known["country"])


def _user_and_currency(known: Known) -> tuple[str, ...]:
    return (known["user_id"], known["currency"])


def _purchase(known: Known) -> tuple[str, ...]:
    amount = known["amount"]
    return (known["user_id"], known["merchant_id"], amount.currency, str(amount.value))


_R, _G, _E = Importance.REQUIRED, Importance.GATING, Importance.ENRICHING
_MINUTE, _HOUR = 60, 3600

SOURCE_SPECS = (
    SourceSpec(ORDER, _R, ("order_id",), 120, _order, gives=("amount", "currency", "country")),
    SourceSpec(MERCHANT, _R, ("merchant_id",), 100, _merchant, CacheSettings(60, 10 * _MINUTE, _HOUR, 5)),
    SourceSpec(MEMBER, _R, ("user_id",), 100, _user, CacheSettings(30, 5 * _MINUTE, 30 * _MINUTE, 5)),
    SourceSpec(CARD, _G, ("user_id",), 100, _user, CacheSettings(30, 5 * _MINUTE, 30 * _MINUTE, 5)),
    SourceSpec(BALANCE, _G, ("user_id",), 100, _user),
    SourceSpec(CHANNEL, _G, ("currency", "country"), 100, _market, CacheSettings(5, _MINUTE, 10 * _MINUTE, 1)),
    SourceSpec(QUOTA, _G, ("user_id", "currency"), 100, _user_and_currency),
    SourceSpec(MARKETING, _E, ("user_id", "merchant_id", "amount"), 80, _purchase, CacheSettings(2, 10, _MINUTE, 2)),
)
SOURCE_NAMES = tuple(question.source.name for question in SOURCE_SPECS)
ALWAYS_GIVEN = ("order_id", "user_id", "merchant_id")
CLAIMED = (*ALWAYS_GIVEN, "amount", "currency", "country")


def known_inputs(request: ConsultRequest) -> dict[str, Any]:
    """What the caller says, by the names that questions need."""
    found: dict[str, Any] = {
        "order_id": request.order_id,
        "user_id": request.user_id,
        "merchant_id": request.merchant_id,
    }
    if request.amount is not None:
        found["amount"] = request.amount
        found["currency"] = request.amount.currency
    if request.country is not None:
        found["country"] = request.country
    return found


def reveal(order: Order | None) -> dict[str, Any]:
    """What an order makes known; nothing where there is none."""
    return (
        {} if order is None else {"amount": order.amount, "currency": order.amount.currency, "country": order.country}
    )


def consultation_plan(ways: Mapping[str, SourceBinding]) -> Plan:
    """The plan, with a way to start each question, by name."""
    return Plan([_ask(question, ways[question.source.name]) for question in SOURCE_SPECS], inputs=CLAIMED)


def _ask(question: SourceSpec, way: SourceBinding) -> Ask:
    timeout_ms = question.timeout_ms if way.timeout_ms is None else way.timeout_ms
    given = reveal if question.gives else None
    return Ask(
        question.source.name,
        question.importance,
        question.needs,
        timeout_ms,
        way.start,
        question.gives,
        given,
        way.instead,
        way.pace,
    )
