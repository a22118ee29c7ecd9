"""Assessment of one kind of payment method in one consultation.

An assessment refers to its case, never the reverse. Without a reference cycle, reference counting
frees both after each answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.facts import Quota
from cashier.domain.kind_availability import KindOnOffer
from cashier.domain.limits import smallest_carried
from cashier.domain.money import share_half_up
from cashier.domain.pay_method import Amounts, Kind, Limits, ReasonCode
from cashier.domain.refusal import Refusal

NOT_OFFERED = Refusal(ReasonCode.NOT_OFFERED)
MERCHANT_NOT_PERMITTED = Refusal(ReasonCode.MERCHANT_NOT_PERMITTED, "merchant")
KYC_REQUIRED = Refusal(ReasonCode.KYC_REQUIRED, "member")
_KIND_SETS = {kind: frozenset((kind,)) for kind in Kind}


class KindAssessment:
    """All that the offers of one kind share: terms, providers, quotas by bank, promotions, refusal.

    `limits_cache`: `Limits` and the source of the single limit, by provider, channel and card; see
    `offer.channel_limits`.
    """

    __slots__ = (
        "case",
        "kind",
        "limits_cache",
        "name",
        "next_action",
        "promotions",
        "providers",
        "quotas",
        "refusal",
        "terms",
        "title",
    )

    def __init__(self, case: ConsultationCase, kind: Kind) -> None:
        on_offer = case.kind_availability.kind_on_offer(kind, case.channels)
        self.case = case
        self.kind = kind
        self.terms = on_offer.terms
        self.name = on_offer.name
        self.title = on_offer.title
        self.next_action = on_offer.next_action
        self.providers = on_offer.providers
        self.quotas = case.quotas.get(kind)
        self.promotions = case.promotions.usable_with(_KIND_SETS[kind])
        self.refusal = _refusal(case, kind, on_offer)
        self.limits_cache: dict[tuple[str, str, str | None], tuple[Limits, str]] = {}

    def amounts(self, bank: str | None, channel_min: int, fee_bps: int) -> Amounts:
        """Price a payment through a channel.

        The fee is on what the channel carries: order less discounts.
        """
        promotions = self.promotions
        key = (bank if bank in promotions.banks else None, channel_min, fee_bps)
        amounts = promotions.prices.get(key)
        if amounts is None:
            discounts = promotions.best(bank, smallest_carried(channel_min, fee_bps))
            amounts = promotions.prices[key] = self.case.price(
                discounts, share_half_up(self.case.amount.value - discounts.total, fee_bps)
            )
        return amounts

    def quotas_for(self, bank: str | None) -> Sequence[Quota]:
        """The quotas on payments with this bank or other provider.

        Channel and card scopes are not applied yet.
        """
        if self.quotas is None:
            return ()
        general, own = self.quotas.get(None, ()), self.quotas.get(bank, ()) if bank is not None else ()
        return [*general, *own] if general and own else general or own


def _refusal(case: ConsultationCase, kind: Kind, on_offer: KindOnOffer) -> Refusal | None:
    """Why the whole kind is refused.

    All facts used here are required ones, so it is never undetermined.
    """
    if not on_offer.terms.offered:
        return NOT_OFFERED
    if kind not in case.facts.merchant.kinds:
        return MERCHANT_NOT_PERMITTED
    return on_offer.refusal or (None if case.facts.member.kyc_level >= on_offer.terms.kyc_level else KYC_REQUIRED)
