"""Assessment of one kind of payment method in one consultation.

An assessment refers to its case, never the reverse. Without a reference cycle, reference counting
frees both after each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.facts import Quota
from cashier.domain.kinds import KINDS
from cashier.domain.limits import smallest_carried
from cashier.domain.money import stepped_fee
from cashier.domain.offered_kinds import CHANNEL_MAINTENANCE
from cashier.domain.pay_method import Amounts, Kind, Limits, ReasonCode, Remedy, RemedyType
from cashier.domain.refusal import Refusal

NOT_OFFERED = Refusal(ReasonCode.NOT_OFFERED)
MERCHANT_NOT_PERMITTED = Refusal(ReasonCode.MERCHANT_NOT_PERMITTED, "merchant")
KYC_REQUIRED = Refusal(ReasonCode.KYC_REQUIRED, "member")
ORDER_EXPIRES_SOON = Refusal(ReasonCode.ORDER_EXPIRES_SOON, "order")
CHANNEL_MAINTENANCE_TO_THE_END = Refusal(ReasonCode.CHANNEL_MAINTENANCE, "channel")
WITHOUT_CHANNEL = (0, 0, 1)
_KIND_SETS = {kind: frozenset((kind,)) for kind in Kind}
_WITHOUT_CONTRACT = frozenset(kind for kind, row in KINDS.items() if not row.contracted)


class KindAssessment:
    """All that the offers of one kind share: `offered`, and what this consultation adds to it.

    That is quotas by bank, promotions and the refusal of the kind as a whole.
    `limits_cache`: `Limits` and the source of the single limit, by provider, channel and card; see
    `offer.channel_limits`.
    """

    __slots__ = (
        "case",
        "kind",
        "limits_cache",
        "offered",
        "promotions",
        "providers",
        "quotas",
        "refusal",
        "terms",
    )

    def __init__(self, case: ConsultationCase, kind: Kind) -> None:
        offered = case.offered_kinds[kind]
        self.case = case
        self.kind = kind
        self.offered = offered
        self.terms = terms = offered.terms
        self.providers = offered.providers
        self.quotas = case.quotas.get(kind)
        self.promotions = case.promotions.usable_with(_KIND_SETS[kind])
        # Of the kind as a whole. All its facts are required ones, so it is never undetermined.
        self.refusal: Refusal | None
        if not terms.offered:
            self.refusal = NOT_OFFERED
        elif kind not in case.facts.merchant.kinds and kind not in _WITHOUT_CONTRACT:
            self.refusal = MERCHANT_NOT_PERMITTED
        elif offered.refusal is not None:
            self.refusal = offered.refusal
        elif case.kyc_level < terms.kyc_level:
            self.refusal = KYC_REQUIRED
        else:
            self.refusal = None if case.left_s >= terms.needs_s else ORDER_EXPIRES_SOON
        self.limits_cache: dict[tuple[str, str, str | None], tuple[Limits, str]] = {}

    def maintenance_refusal(self, until: datetime | None) -> Refusal:
        """The refusal of a channel under maintenance, with its end if that is known and ahead.

        Waiting is no remedy if the end leaves the payer less time than needed.
        """
        case = self.case
        if until is None or until <= case.now:
            return CHANNEL_MAINTENANCE
        if until > case.facts.order.expires_at - timedelta(seconds=self.terms.needs_s):
            return CHANNEL_MAINTENANCE_TO_THE_END
        return Refusal(ReasonCode.CHANNEL_MAINTENANCE, "channel", Remedy(RemedyType.WAIT_UNTIL, until=until))

    def amounts(self, bank: str | None = None, price_key: tuple[int, int, int] = WITHOUT_CHANNEL) -> Amounts:
        """Price a payment through a channel. `price_key`: its minimum, fee and step.

        The fee is on what the channel carries: order less discounts. Each discount and the fee are
        multiples of the channel's step.
        """
        promotions = self.promotions
        key = (bank, price_key) if bank in promotions.banks else price_key
        amounts = promotions.prices.get(key)
        if amounts is None:
            channel_min, fee_bps, step = price_key
            case, floor = self.case, smallest_carried(channel_min, fee_bps, step)
            discounts = promotions.best(bank, floor, step)
            fee = stepped_fee(case.amount.value - discounts.total, fee_bps, step) if fee_bps else 0
            amounts = promotions.prices[key] = case.price(discounts, fee)
        return amounts

    def quotas_for(self, bank: str | None) -> Sequence[Quota]:
        """The quotas on payments with this bank or other provider.

        Channel and card scopes are not applied yet.
        """
        if self.quotas is None:
            return ()
        general, own = self.quotas.get(None, ()), self.quotas.get(bank, ()) if bank is not None else ()
        return [*general, *own] if general and own else general or own
