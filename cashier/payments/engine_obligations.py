"""The obligations of the engine, checked where its own answers show a breach.

A breach is logged and counted, once per payment. It decides nothing: what the upstreams report now
counts. `cashier/contract/README.md` has the table of all obligations, with what happens without.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum

import structlog
from msgspec import Struct

from cashier.domain.engine_contract import EnginePayment, EngineStatus
from cashier.payments.payment_metrics import PaymentMetrics

_log = structlog.get_logger("cashier.payments")
_MOST_LOGGED = 10_000
_MOST_ORDERS = 10_000
# Per order. Further attempts displace the oldest.
_MOST_ATTEMPTS = 8


class Obligation(StrEnum):
    """The obligations whose breach can show in the answers of the engine."""

    ONE_LIVE_ATTEMPT = "ONE_LIVE_ATTEMPT"
    SAME_ID_SAME_PAYMENT = "SAME_ID_SAME_PAYMENT"
    SEALED_STAYS_REFUSED = "SEALED_STAYS_REFUSED"
    FINAL_STAYS_FINAL = "FINAL_STAYS_FINAL"


class BreachLog:
    """Counts and logs each breach of a payment once."""

    def __init__(self, counts: PaymentMetrics | None = None) -> None:
        counts = counts or PaymentMetrics()
        self._breaches = {each: counts.breaches_of(each.value) for each in Obligation}
        self._logged: set[tuple[Obligation, str]] = set()

    def __repr__(self) -> str:
        return f"<BreachLog of {len(self._logged)}>"

    def note(self, obligation: Obligation, payment_id: str, order_id: str, why: str) -> None:
        if (obligation, payment_id) in self._logged:
            return
        if len(self._logged) >= _MOST_LOGGED:
            self._logged.clear()
        self._logged.add((obligation, payment_id))
        self._breaches[obligation].add()
        _log.error(
            "the engine broke an obligation",
            obligation=obligation.value,
            payment_id=payment_id,
            order_id=order_id,
            why=why,
        )


class Window(Struct, frozen=True):
    """When a call was made and answered, as numbers of one count. The answer is true in between."""

    asked: int
    answered: int

    def is_before(self, other: Window) -> bool:
        return self.answered < other.asked


class _Sighting(Struct):
    """`first`: of the first answer that reported the attempt as live or succeeded.

    `succeeded`: of the first that reported it as succeeded.
    """

    first: Window
    succeeded: Window | None = None


class AttemptSightings:
    """The attempts of each order that the engine reported as live or succeeded.

    A live attempt that was seen before another one, and again after it, was live beside it.
    """

    def __init__(self) -> None:
        self._orders: OrderedDict[tuple[str, str], dict[str, _Sighting]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<AttemptSightings orders={len(self._orders)}>"

    def note(self, merchant_id: str, order_id: str, payment: EnginePayment, window: Window) -> str | None:
        """Return the attempt beside which this one was live or succeeded, or None."""
        key = (merchant_id, order_id)
        attempts = self._orders.setdefault(key, {})
        self._orders.move_to_end(key)
        if payment.status is EngineStatus.FAILED:
            attempts.pop(payment.payment_id, None)
            if not attempts:
                del self._orders[key]
            return None
        mine = attempts.setdefault(payment.payment_id, _Sighting(window))
        if payment.status is EngineStatus.SUCCEEDED and mine.succeeded is None:
            mine.succeeded = window
        if len(attempts) > _MOST_ATTEMPTS:
            del attempts[next(iter(attempts))]
        if len(self._orders) > _MOST_ORDERS:
            self._orders.popitem(last=False)
        others = ((other_id, other) for other_id, other in attempts.items() if other is not mine)
        return next((other_id for other_id, other in others if _side_by_side(mine, other, window)), None)


def _side_by_side(mine: _Sighting, other: _Sighting, window: Window) -> bool:
    """`window`: of the present answer, which reported mine as live or succeeded."""
    if other.succeeded is not None and (mine.succeeded is not None or other.succeeded.is_before(window)):
        return True
    return mine.first.is_before(other.first) and other.first.is_before(window)
