"""Case: one consultation's matter, as the rules see it. Line: one kind in it. What several ways to pay share is computed once.

Both live as long as one assembly, a line knowing its case and not the other way round: what is made per answer is freed without the
collector. Everything here follows from the question, the facts and the catalog; nothing is remembered longer.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from cashier.answer import Missing
from cashier.domain.catalog import Catalog, Terms
from cashier.domain.facts import Channel, Facts
from cashier.domain.limits import Room, room, smallest_carried
from cashier.domain.method import Amounts, Kind, ReasonCode, Remedy, RemedyType
from cashier.domain.money import Currency, Money, share_half_up
from cashier.domain.order import ConsultRequest
from cashier.domain.promotion import NONE, Discounts, best, reached, usable
from cashier.domain.refusal import Refusal, silence

NOT_OFFERED = Refusal(ReasonCode.NOT_OFFERED)
MERCHANT_NOT_PERMITTED = Refusal(ReasonCode.MERCHANT_NOT_PERMITTED, "merchant")
PRODUCT_NOT_SUPPORTED = Refusal(ReasonCode.PRODUCT_NOT_SUPPORTED)
TERMINAL_NOT_SUPPORTED = Refusal(ReasonCode.TERMINAL_NOT_SUPPORTED)
COUNTRY_NOT_SUPPORTED = Refusal(ReasonCode.COUNTRY_NOT_SUPPORTED)
CURRENCY_NOT_SUPPORTED = Refusal(ReasonCode.CURRENCY_NOT_SUPPORTED, None, Remedy(RemedyType.SWITCH_CURRENCY))
KYC_REQUIRED = Refusal(ReasonCode.KYC_REQUIRED, "member")


class Case:
    """The question, the facts, and what follows from them for every kind.

    `channel_gap` and `quota_gap`: what the silence of the channel gateway or the quotas means for each way that they could refuse.
    """

    def __init__(self, request: ConsultRequest, facts: Facts, catalog: Catalog, now: datetime) -> None:
        self.request = request
        self.facts = facts
        self.catalog = catalog
        self.now = now
        self.locale = catalog.locale(request.locale)
        self.wording = catalog.texts[self.locale]
        self.amount: Money = facts.order.amount
        self.currency: Currency = self.amount.currency
        self.zero = Money(self.currency, 0)
        self.channel_gap = silence(facts.channel) if isinstance(facts.channel, Missing) else None
        self.quota_gap = silence(facts.quota) if isinstance(facts.quota, Missing) else None
        self._coupons = reached(() if isinstance(facts.marketing, Missing) else facts.marketing.promotions, facts.order, now)
        # Ways that differ only in a kind or a bank that no promotion names cost the same, and most ways do.
        self._named_kinds: frozenset[Kind] = frozenset().union(*[coupon.promotion.kinds for coupon in self._coupons])
        self._named_banks: frozenset[str] = frozenset().union(*[coupon.promotion.banks or () for coupon in self._coupons])
        self._amounts: dict[tuple[Kind | None, str | None, int, int], Amounts] = {}

    def discounts(self, kinds: frozenset[Kind], bank: str | None, floor: int) -> Discounts:
        """The best legal set for these kinds with this bank that leaves nothing, or at least `floor`."""
        return best(usable(self._coupons, kinds, bank), self.amount, floor) if self._coupons else NONE

    def amounts(self, kind: Kind, bank: str | None, least: int, fee_bps: int) -> Amounts:
        """What a payment costs through a channel that carries `least` or more. The fee is on what it carries: the order less discounts."""
        key = (kind if kind in self._named_kinds else None, bank if bank in self._named_banks else None, least, fee_bps)
        found = self._amounts.get(key)
        if found is None:
            discounts = self.discounts(frozenset((kind,)), bank, smallest_carried(least, fee_bps))
            found = self._amounts[key] = self.priced(discounts, share_half_up(self.amount.value - discounts.total, fee_bps))
        return found

    def priced(self, discounts: Discounts, fee: int) -> Amounts:
        payable = self.amount.value - discounts.total + fee
        return Amounts(
            self.amount,
            Money(self.currency, fee) if fee else self.zero,
            discounts.discounts,
            Money(self.currency, payable) if payable != self.amount.value else self.amount,
        )


class Line:
    """One kind: its terms, its channels by provider and its quotas, and what refuses it as a whole.

    While the gateway or the quotas are silent there are no channels or quotas here; the case's gaps stand for them.
    """

    def __init__(self, case: Case, kind: Kind) -> None:
        facts = case.facts
        self.case = case
        self.kind = kind
        self.terms: Terms = case.catalog.methods[kind]
        self.name = self.terms.name[case.locale]
        self.channels = {} if isinstance(facts.channel, Missing) else facts.channel.by_kind.get(kind, {})
        self.quotas = () if isinstance(facts.quota, Missing) else facts.quota.by_kind.get(kind, ())
        self.refusal = _refusal(case, kind, self.terms)
        self.next_action = self.terms.terminal_actions.get(case.request.terminal, self.terms.next_action)
        self._title = self.terms.title[case.locale]
        self._rooms: dict[tuple[str | None, str | None, str | None], Room] = {}

    def title(self, bank_name: str = "", type: str = "", last4: str = "", account: str = "") -> str:  # noqa: A002  # the templates' word
        return self._title.format(bank_name=bank_name, type=type, last4=last4, account=account, provider_name=bank_name)

    def provider_title(self, provider_name: str) -> str:
        return _provider_title(self._title, provider_name)

    def icon(self, provider: str = "") -> str:
        return _icon(self.terms.icon, provider.lower())

    def fee_bps(self, channel: Channel) -> int:
        return self.terms.fee_bps if channel.fee_bps is None else channel.fee_bps

    def amounts(self, bank: str | None, channel: Channel) -> Amounts:
        return self.case.amounts(self.kind, bank, channel.min.value, self.terms.fee_bps if channel.fee_bps is None else channel.fee_bps)

    def room(self, bank: str | None, channel_id: str | None, card_id: str | None) -> Room:
        key = (bank, channel_id, card_id)
        found = self._rooms.get(key)
        if found is None:
            found = self._rooms[key] = room(self.quotas, bank, channel_id, card_id)
        return found


def _refusal(case: Case, kind: Kind, terms: Terms) -> Refusal | None:
    """What refuses a whole kind, whatever instrument or channel. Every fact it needs is required, so it is never undetermined."""
    facts, request = case.facts, case.request
    if not terms.offered:
        return NOT_OFFERED
    if kind not in facts.merchant.kinds:
        return MERCHANT_NOT_PERMITTED
    if terms.products is not None and request.product not in terms.products:
        return PRODUCT_NOT_SUPPORTED
    if terms.terminals is not None and request.terminal not in terms.terminals:
        return TERMINAL_NOT_SUPPORTED
    if terms.countries is not None and facts.order.country not in terms.countries:
        return COUNTRY_NOT_SUPPORTED
    if terms.currencies is not None and case.currency not in terms.currencies:
        return CURRENCY_NOT_SUPPORTED
    return None if facts.member.kyc_level >= terms.kyc_level else KYC_REQUIRED


# Providers are few and their names come again with every consultation; a formatted title costs four times a look-up.
@lru_cache(maxsize=4096)
def _provider_title(template: str, provider_name: str) -> str:
    return template.format(provider_name=provider_name, bank_name=provider_name, type="", last4="", account="")


@lru_cache(maxsize=4096)
def _icon(template: str, provider: str) -> str:
    return template.format(provider=provider)
