"""Line: one kind of pay method in a case. What its ways to pay share is computed once.

A line knows its case and not the other way round, so that what is made per answer is freed without the collector.
"""

from __future__ import annotations

from collections.abc import Sequence

from cashier.domain.case import ConsultationCase
from cashier.domain.facts import Quota
from cashier.domain.limits import smallest_carried
from cashier.domain.money import share_half_up
from cashier.domain.pay_method import Amounts, Kind, Limits, ReasonCode
from cashier.domain.refusal import Refusal
from cashier.domain.storefront import KindOnOffer

NOT_OFFERED = Refusal(ReasonCode.NOT_OFFERED)
MERCHANT_NOT_PERMITTED = Refusal(ReasonCode.MERCHANT_NOT_PERMITTED, "merchant")
KYC_REQUIRED = Refusal(ReasonCode.KYC_REQUIRED, "member")
_ALONE = {kind: frozenset((kind,)) for kind in Kind}


class KindAssessment:
    """One kind: its terms, its carriers by provider and its quotas by bank, and what refuses it as a whole."""

    __slots__ = (
        "bounds",
        "carriers",
        "case",
        "coupons",
        "kind",
        "name",
        "next_action",
        "quotas",
        "refusal",
        "terms",
        "title",
    )

    def __init__(self, case: ConsultationCase, kind: Kind) -> None:
        shelf = case.storefront.shelf(kind, case.channels)
        self.case = case
        self.kind = kind
        self.terms = shelf.terms
        self.name = shelf.name
        self.title = shelf.title
        self.next_action = shelf.next_action
        self.carriers = shelf.carriers
        self.quotas = case.quotas.get(kind)
        self.coupons = case.coupons.of(_ALONE[kind])
        self.refusal = _refusal(case, kind, shelf)
        # What quotas and a channel allow together, and who is the tightest, by provider, channel and card: see `offer.within`.
        self.bounds: dict[tuple[str, str, str | None], tuple[Limits, str]] = {}

    def amounts(self, bank: str | None, least: int, fee_bps: int) -> Amounts:
        """What a payment costs through a channel that carries `least` or more. The fee is on what it carries: the order less discounts."""
        coupons = self.coupons
        key = (bank if bank in coupons.banks else None, least, fee_bps)
        found = coupons.prices.get(key)
        if found is None:
            discounts = coupons.best(bank, smallest_carried(least, fee_bps))
            found = coupons.prices[key] = self.case.priced(
                discounts, share_half_up(self.case.amount.value - discounts.total, fee_bps)
            )
        return found

    def covering(self, bank: str | None) -> Sequence[Quota]:
        """The quotas on payments with this bank (or other provider), whatever else narrows them."""
        if self.quotas is None:
            return ()
        every, its = self.quotas.get(None, ()), self.quotas.get(bank, ()) if bank is not None else ()
        return [*every, *its] if every and its else every or its


def _refusal(case: ConsultationCase, kind: Kind, shelf: KindOnOffer) -> Refusal | None:
    """What refuses a whole kind, whatever instrument or channel. Every fact it needs is required, so it is never undetermined."""
    if not shelf.terms.offered:
        return NOT_OFFERED
    if kind not in case.facts.merchant.kinds:
        return MERCHANT_NOT_PERMITTED
    return shelf.refusal or (None if case.facts.member.kyc_level >= shelf.terms.kyc_level else KYC_REQUIRED)
