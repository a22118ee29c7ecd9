"""Line: one kind of pay method in a case. What its ways to pay share is computed once.

A line knows its case and not the other way round, so that what is made per answer is freed without the collector.
"""

from __future__ import annotations

from cashier.domain.case import Case
from cashier.domain.catalog import Terms
from cashier.domain.facts import Channel
from cashier.domain.limits import UNLIMITED, left, smallest_carried
from cashier.domain.method import Amounts, Kind, Limits, ReasonCode, Remedy, RemedyType
from cashier.domain.money import share_half_up
from cashier.domain.quote import Quote
from cashier.domain.refusal import Refusal

NOT_OFFERED = Refusal(ReasonCode.NOT_OFFERED)
MERCHANT_NOT_PERMITTED = Refusal(ReasonCode.MERCHANT_NOT_PERMITTED, "merchant")
PRODUCT_NOT_SUPPORTED = Refusal(ReasonCode.PRODUCT_NOT_SUPPORTED)
TERMINAL_NOT_SUPPORTED = Refusal(ReasonCode.TERMINAL_NOT_SUPPORTED)
COUNTRY_NOT_SUPPORTED = Refusal(ReasonCode.COUNTRY_NOT_SUPPORTED)
CURRENCY_NOT_SUPPORTED = Refusal(ReasonCode.CURRENCY_NOT_SUPPORTED, None, Remedy(RemedyType.SWITCH_CURRENCY))
KYC_REQUIRED = Refusal(ReasonCode.KYC_REQUIRED, "member")
_ALONE = {kind: frozenset((kind,)) for kind in Kind}


class Line:
    """One kind: its terms, its channels by provider and its quotas by bank, and what refuses it as a whole."""

    __slots__ = (
        "_left", "_named_kind", "case", "channels", "kind", "name", "named_banks", "next_action", "quotas", "refusal", "terms", "title",
        "verdicts",
    )  # fmt: skip

    def __init__(self, case: Case, kind: Kind) -> None:
        self.case = case
        self.kind = kind
        self.terms: Terms = case.catalog.methods[kind]
        self.name = self.terms.name[case.locale]
        self.channels = case.channels.get(kind, {})
        self.quotas = case.quotas.get(kind)
        self.refusal = _refusal(case, kind, self.terms)
        self.next_action = self.terms.terminal_actions.get(case.terminal, self.terms.next_action)
        self.title = self.terms.title[case.locale]
        self.named_banks = case.coupons.banks
        # What a channel's own figures come to, by those figures: see `offer.quote`.
        self.verdicts: dict[tuple[str | None, int, int, int | None], Quote] = {}
        self._named_kind = kind if kind in case.coupons.kinds else None
        self._left: dict[tuple[str | None, str | None, str | None], Limits] = {}

    def fee_bps(self, channel: Channel) -> int:
        return self.terms.fee_bps if channel.fee_bps is None else channel.fee_bps

    def amounts(self, bank: str | None, least: int, fee_bps: int) -> Amounts:
        """What a payment costs through a channel that carries `least` or more. The fee is on what it carries: the order less discounts."""
        case = self.case
        key = (self._named_kind, bank if bank in self.named_banks else None, least, fee_bps)
        found = case.amounts.get(key)
        if found is None:
            discounts = case.coupons.best(_ALONE[self.kind], bank, smallest_carried(least, fee_bps))
            found = case.amounts[key] = case.priced(discounts, share_half_up(case.amount.value - discounts.total, fee_bps))
        return found

    def left(self, bank: str | None, channel_id: str | None, card_id: str | None) -> Limits:
        """What the quotas leave for a payment with this bank (or other provider), over this channel, from this card."""
        if self.quotas is None:
            return UNLIMITED
        key = (bank, channel_id, card_id)
        found = self._left.get(key)
        if found is None:
            covering = [*self.quotas.get(None, ()), *(() if bank is None else self.quotas.get(bank, ()))]
            found = self._left[key] = left(covering, channel_id, card_id)
        return found


def _refusal(case: Case, kind: Kind, terms: Terms) -> Refusal | None:
    """What refuses a whole kind, whatever instrument or channel. Every fact it needs is required, so it is never undetermined."""
    facts = case.facts
    if not terms.offered:
        return NOT_OFFERED
    if kind not in facts.merchant.kinds:
        return MERCHANT_NOT_PERMITTED
    if terms.products is not None and case.product not in terms.products:
        return PRODUCT_NOT_SUPPORTED
    if terms.terminals is not None and case.terminal not in terms.terminals:
        return TERMINAL_NOT_SUPPORTED
    if terms.countries is not None and facts.order.country not in terms.countries:
        return COUNTRY_NOT_SUPPORTED
    if terms.currencies is not None and case.currency not in terms.currencies:
        return CURRENCY_NOT_SUPPORTED
    return None if facts.member.kyc_level >= terms.kyc_level else KYC_REQUIRED
