"""View: what one sort of checkout sees of the catalog and of the channels, kind by kind.

All of it follows from the catalog, the gateway's answer and where the payer stands (product, terminal, country, currency, locale). The
gateway's answer is the same for all payers for a while, so what is found is kept with it. Nothing here may depend on the order's amount,
on who pays or on the time of day.
"""

from __future__ import annotations

from msgspec import Struct

from cashier.domain import presentation
from cashier.domain.catalog import Catalog, Terms
from cashier.domain.facts import Channel, Channels
from cashier.domain.money import Currency
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind, NextAction, ReasonCode
from cashier.domain.refusal import Refusal
from cashier.domain.storefront_channel import (
    CURRENCY_NOT_SUPPORTED,
    StorefrontChannel,
    StorefrontProvider,
    storefront_channel,
)

PRODUCT_NOT_SUPPORTED = Refusal(ReasonCode.PRODUCT_NOT_SUPPORTED)
TERMINAL_NOT_SUPPORTED = Refusal(ReasonCode.TERMINAL_NOT_SUPPORTED)
COUNTRY_NOT_SUPPORTED = Refusal(ReasonCode.COUNTRY_NOT_SUPPORTED)
# Of one gateway's answer. Far more than there are products, terminals and languages in one country; a bound all the same.
MAX_VIEWS = 64


class KindOnOffer(Struct, frozen=True, gc=False):
    """One kind: its terms and its words, what refuses it to everybody here, and who carries it, by provider."""

    terms: Terms
    name: str
    title: str
    next_action: NextAction
    refusal: Refusal | None
    carriers: dict[str, StorefrontProvider]


class Storefront:
    """Shelves are put up as they are asked for."""

    __slots__ = ("_shelves", "catalog", "country", "currency", "locale", "product", "terminal")

    def __init__(
        self, catalog: Catalog, product: Product, terminal: Terminal, country: str, currency: Currency, locale: str
    ) -> None:
        self.catalog = catalog
        self.product = product
        self.terminal = terminal
        self.country = country
        self.currency = currency
        self.locale = locale
        self._shelves: dict[Kind, KindOnOffer] = {}

    def shelf(self, kind: Kind, channels: Channels | None) -> KindOnOffer:
        """`channels`: always those that the view is kept with; None while they are not known."""
        found = self._shelves.get(kind)
        if found is None:
            found = self._shelves[kind] = self._put_up(kind, {} if channels is None else channels.by_kind.get(kind, {}))
        return found

    def channel(self, channel: Channel, terms: Terms) -> StorefrontChannel:
        return storefront_channel(channel, self.product, self.terminal, self.currency, terms.fee_bps)

    def _put_up(self, kind: Kind, by_provider: dict[str, list[Channel]]) -> KindOnOffer:
        terms = self.catalog.methods[kind]
        title = terms.title[self.locale]
        carriers = {}
        for provider, channels in by_provider.items():
            name = channels[0].provider_name
            roads, choosy = [], False
            for channel in channels:
                roads.append(storefront_channel(channel, self.product, self.terminal, self.currency, terms.fee_bps))
                choosy = choosy or channel.brands is not None or channel.card_types is not None
            sole = roads[0] if len(roads) == 1 and roads[0].refusal is None else None
            carriers[provider] = StorefrontProvider(
                provider, name, presentation.of_provider(kind, title, terms.icon, provider, name), roads, sole, choosy
            )
        next_action = terms.terminal_actions.get(self.terminal, terms.next_action)
        return KindOnOffer(terms, terms.name[self.locale], title, next_action, self._refusal(terms), carriers)

    def _refusal(self, terms: Terms) -> Refusal | None:
        if terms.products is not None and self.product not in terms.products:
            return PRODUCT_NOT_SUPPORTED
        if terms.terminals is not None and self.terminal not in terms.terminals:
            return TERMINAL_NOT_SUPPORTED
        if terms.countries is not None and self.country not in terms.countries:
            return COUNTRY_NOT_SUPPORTED
        return (
            CURRENCY_NOT_SUPPORTED if terms.currencies is not None and self.currency not in terms.currencies else None
        )


def storefront(
    channels: Channels | None,
    catalog: Catalog,
    product: Product,
    terminal: Terminal,
    country: str,
    currency: Currency,
    locale: str,
) -> Storefront:
    """The same one for the same channels, as long as the catalog is the same."""
    if channels is None:
        return Storefront(catalog, product, terminal, country, currency, locale)
    views, key = channels.views, (product, terminal, country, currency, locale)
    found = views.get(key)
    if found is None or found.catalog is not catalog:
        if len(views) >= MAX_VIEWS:
            views.clear()
        found = views[key] = Storefront(catalog, product, terminal, country, currency, locale)
    return found
