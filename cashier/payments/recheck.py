"""Checking: everything again, from answers of this moment, before anything is sent. What differs from what the payer saw is told."""

from __future__ import annotations

from msgspec import Struct

from cashier.consultation.flow import Consultation, ConsultationWithCase, RequiredSourceUnavailable
from cashier.domain.acquirer_contract import OrderResult
from cashier.domain.case import ConsultationCase
from cashier.domain.offer_diff import CurrentOffer, changes, unverified
from cashier.domain.order import Blocked
from cashier.domain.pay_method import PayMethod
from cashier.fanout.ask import Importance
from cashier.payments.attempt import Attempt
from cashier.payments.errors import CheckUnavailable, ConsultChanged, OrderBusy
from cashier.payments.ports import AcquirerPort, ConsultUncached
from cashier.payments.settings import AcceptSettings
from cashier.source_errors import Unanswered

# A claim of ours that is wrong now, of what the order was or where. Without claims the question is what the order says.
_CLAIMS = frozenset({Blocked.AMOUNT_MISMATCH, Blocked.COUNTRY_MISMATCH})

# An attempt may be why, also this very one: by another worker, since it was looked up here.
_TAKEN = frozenset({Blocked.ORDER_IN_PROGRESS, Blocked.ORDER_PAID, Blocked.ORDER_CLOSED})


class RecheckedOffer(Struct, frozen=True):
    """The chosen method as it is now, at the price that was agreed to, and the case that says so."""

    method: PayMethod
    case: ConsultationCase
    consultation: Consultation


class AlreadySubmitted(Exception):
    """The order waits for this very attempt, or is over by it: the engine has it, though it had not when it was looked up."""


class Recheck:
    """Makes the checks of an acceptance."""

    def __init__(self, recheck: ConsultUncached, acquirer: AcquirerPort, settings: AcceptSettings) -> None:
        self._recheck = recheck
        self._acquirer = acquirer
        self._settings = settings

    async def checked(self, attempt: Attempt) -> RecheckedOffer:
        """Raises `CheckUnavailable`, `ConsultChanged`, `OrderBusy`, `AlreadySubmitted` and `OrderUnknown`."""
        fresh = await self._fresh(attempt)
        answer = fresh.consultation
        blocked = None if answer.blocked is None else answer.blocked.code
        if blocked in _TAKEN:
            await self._refuse_taken(attempt, answer, lives=blocked is Blocked.ORDER_IN_PROGRESS)
        now = CurrentOffer(answer.order.amount, answer.methods, blocked, fresh.silent)
        silent = self._silent(attempt, now, answer)
        if silent:
            raise CheckUnavailable(silent, answer.sources)
        found = changes(attempt.chosen, attempt.before, now)
        if found or fresh.case is None:
            raise ConsultChanged(found, answer)
        method = next(method for method in answer.methods if method.method_id == attempt.chosen.method_id)
        return RecheckedOffer(method, fresh.case, answer)

    async def _fresh(self, attempt: Attempt) -> ConsultationWithCase:
        fresh = await self._asked(attempt, claiming=True)
        blocked = fresh.consultation.blocked
        return await self._asked(attempt, claiming=False) if blocked is not None and blocked.code in _CLAIMS else fresh

    async def _asked(self, attempt: Attempt, *, claiming: bool) -> ConsultationWithCase:
        try:
            return await self._recheck(attempt.question(claiming=claiming), attempt.call_headers)
        except RequiredSourceUnavailable as silent:
            raise CheckUnavailable(silent.failed, silent.sources) from None

    def _silent(self, attempt: Attempt, now: CurrentOffer, answer: Consultation) -> tuple[str, ...]:
        """Who must be heard and was not. Of an order that cannot be paid nobody else need be."""
        found = set(unverified(attempt.chosen, attempt.before, now))
        if self._settings.every_gating_source and now.blocked is None:
            found.update(
                report.name
                for report in answer.sources
                if report.importance is Importance.GATING and report.name in now.silent
            )
        return tuple(sorted(found))

    async def _refuse_taken(self, attempt: Attempt, answer: Consultation, *, lives: bool) -> None:
        """Which attempt the order waits for, or was ended by, the acquirer knows. Where it does not say, or that one lives no more, the
        order's state is what has changed."""
        result = await self._acquirer.result(attempt.chosen.order_id, attempt.call_headers, self._settings.look_ms)
        if isinstance(result, Unanswered):
            raise CheckUnavailable(("acquirer",), answer.sources)
        holder = result.payment_id if isinstance(result, OrderResult) else None
        if holder == attempt.payment_id:
            raise AlreadySubmitted
        if holder is not None and lives:
            raise OrderBusy(holder)
