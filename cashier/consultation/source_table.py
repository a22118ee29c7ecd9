"""The table of sources: importance, inputs, timeout, cache key and lifetime, and outputs of each.

Concurrency follows from the inputs, not from stages. If the caller claims amount and country, all
sources start at once. Otherwise the sources that need them wait for the order; the others do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from cashier.domain.facts import Balances, Cards, Marketing, Quotas
from cashier.domain.learned_facts import FactGroup, FactGroups
from cashier.domain.order import ConsultRequest, Order
from cashier.fanout.ask import Ask, CurrentTimeout, Fallback, Importance, Known, Start, Unasked
from cashier.fanout.cache_lifetime import CacheSettings
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


class SourceSpec(Struct, frozen=True):
    """One row of the table.

    `needs`: the names of its inputs. `timeout_ms` and `cache`: defaults. `key`: the cache key of an
    answer. `gives`: the inputs that `reveal` takes from its answer. `leading`: no answer is
    streamed before it has ended, because that would list no method. `changes_with`: the groups of
    facts that it gives; when acceptance learns that one has changed, kept answers are dropped.
    `unasked`: the fact that stands for an answer if the request names no payer. The source is not
    called then.
    """

    source: Source
    importance: Importance
    needs: tuple[str, ...]
    timeout_ms: int
    key: Callable[[Known], str | tuple[str, ...]]
    changes_with: FactGroups
    cache: CacheSettings = CacheSettings()
    gives: tuple[str, ...] = ()
    reveal: Callable[[Any], dict[str, Any]] | None = None
    leading: bool = False
    unasked: Unasked | None = None

    @property
    def subject(self) -> str | None:
        """The input whose value alone may be at fault if calls fail: a payer, an order, a shop."""
        return next((name for name in self.needs if name in ALWAYS_GIVEN), None)

    @property
    def optional(self) -> bool:
        """True if a configuration may leave the source out."""
        return self.importance is Importance.ENRICHING


class SourceBinding(Struct, frozen=True):
    """How to start one source. `timeout_ms` replaces the table's."""

    start: Start
    timeout_ms: int | None = None
    fallback: Fallback | None = None
    current_timeout: CurrentTimeout | None = None


def _order(known: Known) -> str:
    order_id: str = known["order_id"]
    return order_id


def _merchant(known: Known) -> str:
    merchant_id: str = known["merchant_id"]
    return merchant_id


def _user(known: Known) -> str:
    user_id: str = known["user_id"]
    return user_id


def _market(known: Known) -> tuple[str, ...]:
    return (known["currency"], known["country"])


def _user_and_currency(known: Known) -> tuple[str, ...]:
    return (known["user_id"], known["currency"])


def _purchase(known: Known) -> tuple[str, ...]:
    amount = known["amount"]
    return (known["user_id"], known["merchant_id"], amount.currency, str(amount.value))


def _order_inputs(order: Order | None) -> dict[str, Any]:
    """The inputs that the order's answer gives; none if there is no such order."""
    if order is None:
        return {}
    return {"amount": order.amount, "currency": order.amount.currency, "country": order.country}


_R, _G, _E = Importance.REQUIRED, Importance.GATING, Importance.ENRICHING
_MINUTE, _HOUR = 60, 3600

# The payer's facts that a payment changes, and those that it does not.
_PAYMENTS, _PAYER = frozenset({FactGroup.HOLDINGS, FactGroup.PAYER}), frozenset({FactGroup.PAYER})
_MERCHANT, _MARKET = frozenset({FactGroup.MERCHANT}), frozenset({FactGroup.MARKET})

SOURCE_SPECS = (
    SourceSpec(
        ORDER, _R, ("order_id",), 120, _order, _PAYMENTS, gives=("amount", "currency", "country"), reveal=_order_inputs
    ),
    SourceSpec(MERCHANT, _R, ("merchant_id",), 100, _merchant, _MERCHANT, CacheSettings(60, 10 * _MINUTE, _HOUR, 5)),
    SourceSpec(
        MEMBER,
        _R,
        ("user_id",),
        100,
        _user,
        _PAYMENTS,
        CacheSettings(30, 5 * _MINUTE, 30 * _MINUTE, 5),
        unasked=Unasked(None),
    ),
    SourceSpec(
        CARD,
        _G,
        ("user_id",),
        100,
        _user,
        _PAYER,
        CacheSettings(30, 5 * _MINUTE, 30 * _MINUTE, 5),
        unasked=Unasked(Cards("", (), ())),
    ),
    SourceSpec(BALANCE, _G, ("user_id",), 100, _user, _PAYMENTS, unasked=Unasked(Balances("", ()))),
    SourceSpec(
        CHANNEL,
        _G,
        ("currency", "country"),
        100,
        _market,
        _MARKET,
        CacheSettings(5, _MINUTE, 10 * _MINUTE, 1),
        leading=True,
    ),
    SourceSpec(
        QUOTA,
        _G,
        ("user_id", "currency"),
        100,
        _user_and_currency,
        _PAYMENTS,
        unasked=Unasked(Quotas.prepared(())),
    ),
    SourceSpec(
        MARKETING,
        _E,
        ("user_id", "merchant_id", "amount"),
        80,
        _purchase,
        _PAYMENTS,
        CacheSettings(2, 10, _MINUTE, 2),
        unasked=Unasked(Marketing("", (), ())),
    ),
)
SOURCE_NAMES = tuple(spec.source.name for spec in SOURCE_SPECS)
# A walk-in gives no `user_id`, and then nothing that needs it is asked.
ALWAYS_GIVEN = ("order_id", "user_id", "merchant_id")
CLAIMED = (*ALWAYS_GIVEN, "amount", "currency", "country")


def known_inputs(request: ConsultRequest) -> dict[str, Any]:
    """The inputs in the request, by the names in `SourceSpec.needs`."""
    inputs: dict[str, Any] = {
        "order_id": request.order_id,
        "merchant_id": request.merchant_id,
    }
    if request.user_id is not None:
        inputs["user_id"] = request.user_id
    if request.amount is not None:
        inputs["amount"] = request.amount
        inputs["currency"] = request.amount.currency
    if request.country is not None:
        inputs["country"] = request.country
    return inputs


def consultation_plan(bindings: Mapping[str, SourceBinding]) -> Plan:
    """The plan of a consultation, with the bindings by source. Optional sources may have none."""
    configured = [spec for spec in SOURCE_SPECS if spec.source.name in bindings or not spec.optional]
    return Plan([_ask(spec, bindings[spec.source.name]) for spec in configured], inputs=CLAIMED)


def _ask(spec: SourceSpec, binding: SourceBinding) -> Ask:
    return Ask(
        name=spec.source.name,
        importance=spec.importance,
        needs=spec.needs,
        timeout_ms=spec.timeout_ms if binding.timeout_ms is None else binding.timeout_ms,
        start=binding.start,
        gives=spec.gives,
        reveal=spec.reveal,
        fallback=binding.fallback,
        current_timeout=binding.current_timeout,
        leading=spec.leading,
        unasked=spec.unasked,
    )
