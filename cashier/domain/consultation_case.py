"""Consultation case: the input of one assembly, and what all kinds share."""

from __future__ import annotations

from datetime import datetime

from cashier.domain.catalog import Catalog
from cashier.domain.facts import Facts, Promotion, Quota
from cashier.domain.money import Currency, Money
from cashier.domain.offered_kinds import offered_kinds
from cashier.domain.order import ConsultRequest, at_till
from cashier.domain.pay_method import Amounts
from cashier.domain.promotion import DiscountedPrice, Discounts, OrderPromotions
from cashier.domain.refusal import silence_refusal
from cashier.source_errors import Missing, MissingCause


class ConsultationCase:
    """The input of one assembly, and what follows from it for every kind.

    Lives as long as that assembly. `channels` is None and `quotas` is empty while their source is
    silent. `channel_gap` and `quota_gap` are then the refusals, undetermined ones, of every method
    that this source could refuse. `unclear_quotas`: quotas that cannot be understood and could
    refuse the methods in their scope. `promotion_gap`: the source of the promotions if it is
    silent; None too if it is not configured, because then there are none. `left_s`: whole seconds
    left of the order. `promotions`: those that the payer chose, or all. `discounted`: the prices at
    which promotions apply, by identity: comparing the figures would cost more. `at_till`: see
    `order.at_till`.
    """

    __slots__ = (
        "_prices",
        "amount",
        "at_till",
        "catalog",
        "channel_gap",
        "channels",
        "currency",
        "discounted",
        "facts",
        "kyc_level",
        "left_s",
        "locale",
        "now",
        "offered_kinds",
        "promotion_gap",
        "promotions",
        "quota_gap",
        "quotas",
        "request",
        "unclear_quotas",
        "wording",
        "zero",
    )  # fmt: skip

    def __init__(self, request: ConsultRequest, facts: Facts, catalog: Catalog, now: datetime) -> None:
        channels, quotas, marketing = facts.channel, facts.quota, facts.marketing
        self.request = request
        self.facts = facts
        self.catalog = catalog
        self.now = now
        self.at_till = at_till(request.product, request.terminal)
        self.left_s = int((facts.order.expires_at - now).total_seconds())
        self.kyc_level = 0 if facts.member is None else facts.member.kyc_level
        self.locale = catalog.locale(request.locale)
        self.wording = catalog.texts[self.locale]
        self.amount: Money = facts.order.amount
        self.currency: Currency = self.amount.currency
        self.zero = Money(self.currency, 0)
        self.channels = None if isinstance(channels, Missing) else channels
        self.offered_kinds = offered_kinds(
            self.channels, catalog, request.product, request.terminal, facts.order.country, self.currency, self.locale
        )
        self.channel_gap = silence_refusal(channels) if isinstance(channels, Missing) else None
        self.quotas: dict[str, dict[str | None, list[Quota]]] = {} if isinstance(quotas, Missing) else quotas.by_kind
        self.unclear_quotas: tuple[Quota, ...] = () if isinstance(quotas, Missing) else quotas.unclear
        self.quota_gap = silence_refusal(quotas) if isinstance(quotas, Missing) else None
        self.promotion_gap: str | None = None
        promotions: tuple[Promotion, ...] = ()
        if not isinstance(marketing, Missing):
            promotions = marketing.promotions
        elif marketing.cause is not MissingCause.NOT_CONFIGURED:
            self.promotion_gap = marketing.source
        self.promotions = OrderPromotions(promotions, facts.order, now, at_till=self.at_till)
        if request.chosen_promotions is not None:
            chosen = frozenset(request.chosen_promotions)
            self.promotions = OrderPromotions(
                [promotion for promotion in promotions if promotion.promotion_id in chosen],
                facts.order,
                now,
                at_till=self.at_till,
                chosen_of=self.promotions,
            )
        self.discounted: dict[int, DiscountedPrice] = {}
        self._prices: dict[tuple[int, int], DiscountedPrice] = {}

    def price(self, discounts: Discounts, fee: int) -> Amounts:
        """`fee` in minor units. The same object for the same discounts and fee."""
        key = (id(discounts), fee)
        if key in self._prices:
            return self._prices[key].amounts
        payable = self.amount.value - discounts.total + fee
        amounts = Amounts(
            self.amount,
            Money(self.currency, fee) if fee else self.zero,
            discounts.discounts,
            Money(self.currency, payable) if payable != self.amount.value else self.amount,
        )
        price = self._prices[key] = DiscountedPrice(amounts, discounts)
        if discounts.applying:
            self.discounted[id(amounts)] = price
        return amounts

    def applying_values(self, amounts: Amounts) -> dict[str, Money]:
        """What each promotion that applies at this price takes off alone, chosen or not. By id."""
        price = self.discounted.get(id(amounts))
        applying = () if price is None else price.discounts.applying
        return {each.discount.promotion_id: each.discount.amount for each in applying}
