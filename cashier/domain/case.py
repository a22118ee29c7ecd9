"""Case: one consultation's matter, as the rules see it. What all kinds of pay method share is computed once.

It lives as long as one assembly. Everything here follows from the question, the facts and the catalog; nothing is remembered longer.
"""

from __future__ import annotations

from datetime import datetime

from cashier.domain.catalog import Catalog
from cashier.domain.facts import Facts, Quota
from cashier.domain.money import Currency, Money
from cashier.domain.order import ConsultRequest
from cashier.domain.pay_method import Amounts
from cashier.domain.promotion import OrderPromotions, Discounts
from cashier.domain.refusal import silence
from cashier.domain.storefront import storefront
from cashier.source_errors import Missing


class ConsultationCase:
    """The question, the facts, and what follows from them for every kind.

    While the gateway or the quotas are silent there are no `channels` or `quotas`; `channel_gap` and `quota_gap` say what that silence
    means for each way that they could refuse.
    """

    __slots__ = (
        "amount", "catalog", "channel_gap", "channels", "coupons", "currency", "facts", "locale", "now", "quota_gap",
        "quotas", "request", "storefront", "wording", "zero",
    )  # fmt: skip

    def __init__(self, request: ConsultRequest, facts: Facts, catalog: Catalog, now: datetime) -> None:
        channels, quotas, marketing = facts.channel, facts.quota, facts.marketing
        self.request = request
        self.facts = facts
        self.catalog = catalog
        self.now = now
        self.locale = catalog.locale(request.locale)
        self.wording = catalog.texts[self.locale]
        self.amount: Money = facts.order.amount
        self.currency: Currency = self.amount.currency
        self.zero = Money(self.currency, 0)
        self.channels = None if isinstance(channels, Missing) else channels
        self.storefront = storefront(
            self.channels, catalog, request.product, request.terminal, facts.order.country, self.currency, self.locale
        )
        self.channel_gap = silence(channels) if isinstance(channels, Missing) else None
        self.quotas: dict[str, dict[str | None, list[Quota]]] = {} if isinstance(quotas, Missing) else quotas.by_kind
        self.quota_gap = silence(quotas) if isinstance(quotas, Missing) else None
        self.coupons = OrderPromotions(() if isinstance(marketing, Missing) else marketing.promotions, facts.order, now)

    def priced(self, discounts: Discounts, fee: int) -> Amounts:
        payable = self.amount.value - discounts.total + fee
        return Amounts(
            self.amount,
            Money(self.currency, fee) if fee else self.zero,
            discounts.discounts,
            Money(self.currency, payable) if payable != self.amount.value else self.amount,
        )
