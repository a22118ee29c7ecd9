"""The engine, with a memory of the payments that this worker saw end.

An engine need not keep an attempt that it refused, and its look-ups may lag behind its answers. So
after a final answer "unknown" means that final answer: a retry with the key is not sent again, and
every token gets the same end. The memory is this worker's own. After a restart, and in other
workers, such a retry is a new submit of the same payment, which the engine executes at most once.
It is not shared: a forged or stale entry would end a payment, and the engine could not disprove it.

It also notes the breaches of the engine's obligations that the answers show.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from itertools import count
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from cashier.domain.engine_contract import (
    EngineAnswered,
    EngineFailure,
    EnginePayment,
    EngineStatus,
    LookUpOutcome,
    NeverArrived,
    OutcomeUnknown,
    ReversalReason,
    ReverseOutcome,
    Sealed,
    Submission,
    SubmitOutcome,
)
from cashier.domain.upstream_report import REVERSED
from cashier.logs.code_word import code_word
from cashier.payments.engine_obligations import AttemptSightings, BreachLog, Obligation, Window
from cashier.payments.payment_metrics import PaymentMetrics
from cashier.payments.ports import ReasonedEnginePort
from cashier.source_errors import WrongIdentity

_FINAL = frozenset({EngineStatus.SUCCEEDED, EngineStatus.FAILED})
# The most recently ended, and the most recently sent.
_MOST_ENDED = 10_000
_MOST_SENT = 10_000
# Of a success. An engine keeps those; one that has lost it after this has begun anew, as a sandbox
# does that is started again.
_LONGEST_LAG_S = 60


class _End(Struct, frozen=True):
    """`sealed`: the engine refuses the payment, which it never had. `at_s`: on the loop's clock."""

    payment: EnginePayment
    order_id: str
    window: Window
    at_s: float
    sealed: bool = False


class _Sent(Struct, frozen=True):
    """What is known of a submit that the engine answered, without anything secret."""

    fingerprint: str
    merchant_id: str


class RememberingEngine:
    """An engine port. `breaches`: of the obligations that its answers show to be broken."""

    def __init__(self, engine: ReasonedEnginePort, counts: PaymentMetrics | None = None) -> None:
        self._engine = engine
        self._ended: OrderedDict[str, _End] = OrderedDict()
        self._sent: OrderedDict[str, _Sent] = OrderedDict()
        self._sightings = AttemptSightings()
        self._count = count()
        self.breaches = BreachLog(counts)

    def __repr__(self) -> str:
        return f"<RememberingEngine ended={len(self._ended)} sent={len(self._sent)} {self.breaches!r}>"

    async def submit(self, submission: Submission, call_headers: Any, budget_ms: int) -> SubmitOutcome:
        asked, payment_id, order_id = next(self._count), submission.payment_id, submission.order_id
        outcome = await self._engine.submit(submission, call_headers, budget_ms)
        match outcome:
            case EngineAnswered(payment) if payment.fingerprint not in (None, submission.fingerprint):
                self.breaches.note(
                    Obligation.SAME_ID_SAME_PAYMENT, payment_id, order_id, "another body was answered, not refused"
                )
            case EngineAnswered(payment):
                self._sent[payment_id] = _Sent(submission.fingerprint, submission.merchant_id)
                if len(self._sent) > _MOST_SENT:
                    self._sent.popitem(last=False)
                self._note(payment, order_id, asked)
            case OutcomeUnknown(WrongIdentity()):
                self.breaches.note(
                    Obligation.SAME_ID_SAME_PAYMENT, payment_id, order_id, "the answer was about another payment"
                )
        return outcome

    async def look_up(self, payment_id: str, order_id: str, call_headers: Any, budget_ms: int) -> LookUpOutcome:
        asked = next(self._count)
        outcome = await self._engine.look_up(payment_id, order_id, call_headers, budget_ms)
        match outcome:
            case EngineAnswered(payment):
                self._note(payment, order_id, asked)
            case NeverArrived():
                return self._end(payment_id, order_id) or outcome
        return outcome

    async def reverse(
        self,
        payment_id: str,
        order_id: str,
        call_headers: Any,
        budget_ms: int,
        *,
        reason: ReversalReason | None = None,
    ) -> ReverseOutcome:
        asked = next(self._count)
        outcome = await self._engine.reverse(payment_id, order_id, call_headers, budget_ms, reason=reason)
        match outcome:
            case EngineAnswered(payment):
                self._note(payment, order_id, asked)
            case NeverArrived():
                return self._end(payment_id, order_id) or outcome
            case Sealed(first_reason):
                ended = self._end(payment_id, order_id)
                if ended is not None and not self._ended[payment_id].sealed:
                    return ended
                self._remember(_sealed(payment_id, order_id, first_reason, Window(asked, next(self._count))))
        return outcome

    def _end(self, payment_id: str, order_id: str) -> EngineAnswered | None:
        """The final answer about a payment that the engine calls unknown now."""
        end = self._ended.get(payment_id)
        if end is None or end.order_id != order_id:
            return None
        lags = _now_s() < end.at_s + _LONGEST_LAG_S
        return EngineAnswered(end.payment) if lags or end.payment.status is EngineStatus.FAILED else None

    def _note(self, payment: EnginePayment, order_id: str, asked: int) -> None:
        window, sent = Window(asked, next(self._count)), self._sent.get(payment.payment_id)
        if sent is not None and payment.fingerprint not in (None, sent.fingerprint):
            why = "its body is another one now"
            self.breaches.note(Obligation.SAME_ID_SAME_PAYMENT, payment.payment_id, order_id, why)
        self._note_change(payment, order_id, window)
        merchant_id = payment.merchant_id or (None if sent is None else sent.merchant_id)
        if merchant_id is not None:
            beside = self._sightings.note(merchant_id, order_id, payment, window)
            if beside is not None:
                why = f"beside {beside}"
                self.breaches.note(Obligation.ONE_LIVE_ATTEMPT, payment.payment_id, order_id, why)
        if payment.status in _FINAL:
            fingerprint = payment.fingerprint or (None if sent is None else sent.fingerprint)
            self._remember(_End(replace(payment, fingerprint=fingerprint), order_id, window, _now_s()))

    def _note_change(self, payment: EnginePayment, order_id: str, window: Window) -> None:
        """Compare with the end that is remembered, unless the answer may be older than that."""
        end = self._ended.get(payment.payment_id)
        if end is None or (payment.status not in _FINAL and not end.window.is_before(window)):
            return
        if end.sealed:
            if payment.status is not EngineStatus.FAILED:
                why = f"{payment.status} after it was refused"
                self.breaches.note(Obligation.SEALED_STAYS_REFUSED, payment.payment_id, order_id, why)
        elif _result(payment) != _result(end.payment):
            why = f"{_result(payment)} after {_result(end.payment)}"
            self.breaches.note(Obligation.FINAL_STAYS_FINAL, payment.payment_id, order_id, why)
        if payment.status not in _FINAL:
            del self._ended[payment.payment_id]

    def _remember(self, end: _End) -> None:
        self._ended[end.payment.payment_id] = end
        self._ended.move_to_end(end.payment.payment_id)
        if len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)


def _sealed(payment_id: str, order_id: str, reason: str | None, window: Window) -> _End:
    payment = EnginePayment(
        payment_id=payment_id,
        order_id=order_id,
        status=EngineStatus.FAILED,
        failure=EngineFailure(REVERSED, ""),
        reversal_reason=reason,
    )
    return _End(payment, order_id, window, _now_s(), sealed=True)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _result(payment: EnginePayment) -> str:
    """For comparison and for the log, which takes no text of an upstream."""
    if payment.failure is None:
        return payment.status
    return f"{payment.status} {code_word(payment.failure.code)}"
