"""Shared offers: the offers of one place of sale that are equal for all payers of one key.

Where the channels list a kind's offers, these follow from the place of sale, the kinds that the
merchant takes, the payer's KYC level, the time left for the slowest kinds, the amount, and the
promotions that apply. Whatever else is the payer's takes part only by quotas: a kind that they
limit is not shared. Nor is one whose refusal names the end of a maintenance, which is a matter of
the time of day.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable

from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.offer import Offer
from cashier.domain.pay_method import Kind
from cashier.domain.promotion import DiscountedPrice


class SharedOffers:
    """The offers by kind, each found for the first payer with an order at this price.

    `discounted`: the prices among them at which promotions apply, as in `ConsultationCase`.
    """

    __slots__ = ("_by_kind", "discounted")

    def __init__(self) -> None:
        self._by_kind: dict[Kind, list[Offer]] = {}
        self.discounted: dict[int, DiscountedPrice] = {}

    def find(
        self, case: ConsultationCase, kind: Kind, listing: Callable[[KindAssessment], Iterable[Offer]]
    ) -> list[Offer]:
        """The offers of a kind without quotas."""
        offers = self._by_kind.get(kind)
        if offers is None:
            assessment = KindAssessment(case, kind)
            offers = [*listing(assessment)]
            if not assessment.offered.maintained:
                self._by_kind[kind] = offers
                self.discounted.update(case.discounted)
        return offers


def shared_offers(case: ConsultationCase) -> SharedOffers | None:
    """Those of the same price, if it recurs at this place of sale.

    Kept with the place, and so with its catalog and its channels. None too where quotas are not
    known: they could limit every kind.
    """
    promotions = case.promotions.key
    if promotions is None or case.quota_gap is not None or case.unclear_quotas:
        return None
    place = case.offered_kinds
    enough_time = bisect_right(place.needs_s, case.left_s)
    key = (case.amount.value, promotions, case.facts.merchant.kinds, case.kyc_level, enough_time)
    try:
        return place.shared_offers.find(key, SharedOffers)
    except TypeError:  # not hashable: a function in this process may return facts with lists for sets
        return None
