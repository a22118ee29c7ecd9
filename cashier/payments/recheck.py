"""Recheck: consult again from fresh answers, and compare with the accepted offer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cashier.consultation.answer import Blockage, Consultation, ConsultationWithCase, RequiredSourceUnavailable
from cashier.domain.change_text import with_messages
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.offer_diff import Change, ChangeType, CurrentOffer, changes, unverified
from cashier.domain.order import Blocked, OrderStatus
from cashier.domain.order_result import OrderResult
from cashier.domain.pay_method import PayMethod
from cashier.fanout.ask import Importance
from cashier.payments.attempt import Attempt
from cashier.payments.errors import CheckUnavailable, ConsultChanged, OrderBusy
from cashier.payments.ports import AcquirerPort
from cashier.source_errors import Unanswered

# The order changed since the consultation, so our claims are wrong now. Consult again without
# claims.
_WRONG_CLAIMS = frozenset({Blocked.AMOUNT_MISMATCH, Blocked.COUNTRY_MISMATCH})

# An attempt may be the cause, even this one: another worker may have sent it since the look-up
# here.
_TAKEN = frozenset({Blocked.ORDER_IN_PROGRESS, Blocked.ORDER_PAID, Blocked.ORDER_CLOSED})

# A payment token travels in a header: room for a dozen usual titles, and for none beyond.
_TITLE_BYTES, _TITLE_CHARS = 2_048, 40


class RecheckedOffer(Struct, frozen=True):
    """The chosen method in its current state, at the accepted price.

    `promotion_titles`: by id, of the promotions in that price, for the payment token.
    """

    method: PayMethod
    case: ConsultationCase
    consultation: Consultation
    promotion_titles: dict[str, str] = {}


class AlreadySubmitted(Exception):
    """The acquirer names this attempt: the engine has received it since the look-up."""


def ended_order(attempt: Attempt, rechecked: RecheckedOffer) -> ConsultChanged:
    """For an order that ended after the recheck, before anything was sent."""
    ended = Blocked.ORDER_EXPIRED
    text = attempt.operation.policy.catalog.wording(attempt.chosen.locale).blocked[ended]
    consultation = replace(rechecked.consultation, payable=False, blocked=Blockage(ended, text), methods=())
    change = Change(what=ChangeType.ORDER_STATE, before=OrderStatus.PENDING, after=ended)
    return offer_changed(attempt, (change,), consultation)


def offer_changed(attempt: Attempt, differences: Sequence[Change], consultation: Consultation) -> ConsultChanged:
    """With a message for the payer in each change."""
    wording = attempt.operation.policy.catalog.wording(attempt.chosen.locale)
    return ConsultChanged(
        with_messages(differences, consultation.methods, attempt.chosen.method_id, wording), consultation
    )


class Recheck:
    def __init__(self, acquirer: AcquirerPort) -> None:
        self._acquirer = acquirer

    async def check(self, attempt: Attempt) -> RecheckedOffer:
        """Return the chosen method if the accepted offer still holds.

        Raises `CheckUnavailable`, `ConsultChanged`, `OrderBusy`, `AlreadySubmitted`,
        `OrderUnknown`.
        """
        fresh = await self._consult(attempt)
        consultation = fresh.consultation
        blocked = None if consultation.blocked is None else consultation.blocked.code
        if blocked in _TAKEN:
            await self._refuse_taken_order(attempt, consultation, in_progress=blocked is Blocked.ORDER_IN_PROGRESS)
        current = CurrentOffer(
            amount=consultation.order.amount,
            methods=consultation.methods,
            blocked=blocked,
            combine=attempt.operation.policy.catalog.methods[attempt.kind].combine,
        )
        if fresh.case is not None:
            current = replace(
                current, promotion_gap=fresh.case.promotion_gap, applying_values=fresh.case.applying_values
            )
        silent = self._silent_sources(attempt, current, fresh)
        if silent:
            raise CheckUnavailable(silent, consultation.sources)
        differences = changes(attempt.chosen, attempt.accepted_offer, current)
        if differences or fresh.case is None:
            raise offer_changed(attempt, differences, consultation)
        method = next(method for method in consultation.methods if method.method_id == attempt.chosen.method_id)
        titles = _promotion_titles(method, attempt.chosen.option_id)
        return RecheckedOffer(method, fresh.case, consultation, titles)

    async def _consult(self, attempt: Attempt) -> ConsultationWithCase:
        fresh = await self._consult_once(attempt, with_claims=True)
        blocked = fresh.consultation.blocked
        if blocked is not None and blocked.code in _WRONG_CLAIMS:
            return await self._consult_once(attempt, with_claims=False)
        return fresh

    async def _consult_once(self, attempt: Attempt, *, with_claims: bool) -> ConsultationWithCase:
        try:
            return await attempt.operation.policy.consult_uncached(
                attempt.consult_request(with_claims=with_claims), attempt.operation.call_headers
            )
        except RequiredSourceUnavailable as unavailable:
            raise CheckUnavailable(unavailable.failed, unavailable.sources) from None

    def _silent_sources(self, attempt: Attempt, current: CurrentOffer, fresh: ConsultationWithCase) -> tuple[str, ...]:
        """The sources whose answer is needed and missing.

        For a blocked order, or one that leaves nothing to pay, no further answer is needed.
        """
        silent = set(unverified(attempt.chosen, attempt.accepted_offer, current))
        needs_gating = current.blocked is None and current.free is None
        if attempt.operation.policy.settings.every_gating_source and needs_gating:
            silent.update(
                report.name
                for report in fresh.consultation.sources
                if report.importance is Importance.GATING and report.name in fresh.silent
            )
        return tuple(sorted(silent))

    async def _refuse_taken_order(self, attempt: Attempt, consultation: Consultation, *, in_progress: bool) -> None:
        """Ask the acquirer which attempt took the order.

        Returns if it names none, or one that is no longer live: then the caller reports the order's
        state as a change.
        """
        operation = attempt.operation
        result = await self._acquirer.result(
            attempt.chosen.order_id, operation.call_headers, operation.policy.settings.look_ms
        )
        if isinstance(result, Unanswered):
            raise CheckUnavailable(("acquirer",), consultation.sources)
        holder = result.payment_id if isinstance(result, OrderResult) else None
        if holder == attempt.payment_id:
            raise AlreadySubmitted
        if holder is not None and in_progress:
            raise OrderBusy(holder)


def _promotion_titles(method: PayMethod, option_id: str | None) -> dict[str, str]:
    """As far as they fit. A longer title is cut."""
    option = next((option for option in method.options if option.option_id == option_id), None)
    amounts = method.amount if option is None else option.amount
    titles: dict[str, str] = {}
    for discount in () if amounts is None else amounts.discounts:
        more = {**titles, discount.promotion_id: discount.title[:_TITLE_CHARS]}
        if len(msgspec.json.encode(more)) > _TITLE_BYTES:
            break
        titles = more
    return titles
