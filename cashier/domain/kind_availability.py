"""Kind availability: the kinds and channels on offer at one place of sale.

A place of sale is a combination of product, terminal, country, currency and locale. Together with
the catalog and the channel gateway's answer it decides what is on offer. The answer is the same for
all payers for a while, so the result is cached with it. Nothing here may depend on the order's
amount, the payer or the time of day.
"""

from __future__ import annotations

from msgspec import Struct

from cashier.domain.catalog import Catalog, Terms
from cashier.domain.channel_eligibility import (
    CURRENCY_NOT_SUPPORTED,
    ChannelEligibility,
    ProviderChannels,
    channel_eligibility,
)
from cashier.domain.facts import Channel, Channels
from cashier.domain.money import Currency
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind, NextAction, ReasonCode
from cashier.domain.presentation import provider_presentation
from cashier.domain.refusal import Refusal

PRODUCT_NOT_SUPPORTED = Refusal(ReasonCode.PRODUCT_NOT_SUPPORTED)
TERMINAL_NOT_SUPPORTED = Refusal(ReasonCode.TERMINAL_NOT_SUPPORTED)
COUNTRY_NOT_SUPPORTED = Refusal(ReasonCode.COUNTRY_NOT_SUPPORTED)
# Per answer of the channel gateway. Far above the combinations in one country.
MAX_KIND_AVAILABILITIES = 64


class KindOnOffer(Struct, frozen=True, gc=False):
    """One kind at a place of sale: terms, texts, a refusal for every payer, providers by id."""

    terms: Terms
    name: str
    title: str
    next_action: NextAction
    refusal: Refusal | None
    providers: dict[str, ProviderChannels]


class KindAvailability:
    """The kinds at one place of sale, each built on first use."""

    __slots__ = ("_kinds", "catalog", "country", "currency", "locale", "product", "terminal")

    def __init__(
        self, catalog: Catalog, product: Product, terminal: Terminal, country: str, currency: Currency, locale: str
    ) -> None:
        self.catalog = catalog
        self.product = product
        self.terminal = terminal
        self.country = country
        self.currency = currency
        self.locale = locale
        self._kinds: dict[Kind, KindOnOffer] = {}

    def kind_on_offer(self, kind: Kind, channels: Channels | None) -> KindOnOffer:
        """`channels`: always those that this object is cached with, or None."""
        on_offer = self._kinds.get(kind)
        if on_offer is None:
            by_provider = {} if channels is None else channels.by_kind.get(kind, {})
            on_offer = self._kinds[kind] = self._build(kind, by_provider)
        return on_offer

    def channel(self, channel: Channel, terms: Terms) -> ChannelEligibility:
        return channel_eligibility(channel, self.product, self.terminal, self.currency, terms.fee_bps)

    def _build(self, kind: Kind, by_provider: dict[str, list[Channel]]) -> KindOnOffer:
        terms = self.catalog.methods[kind]
        title = terms.title[self.locale]
        providers = {}
        for provider, channels in by_provider.items():
            name = channels[0].provider_name
            offered, has_card_filters = [], False
            for channel in channels:
                offered.append(channel_eligibility(channel, self.product, self.terminal, self.currency, terms.fee_bps))
                has_card_filters = has_card_filters or channel.brands is not None or channel.card_types is not None
            sole_open_channel = offered[0] if len(offered) == 1 and offered[0].refusal is None else None
            presentation = provider_presentation(kind, title, terms.icon, provider, name)
            providers[provider] = ProviderChannels(
                provider, name, presentation, offered, sole_open_channel, has_card_filters
            )
        next_action = terms.terminal_actions.get(self.terminal, terms.next_action)
        return KindOnOffer(terms, terms.name[self.locale], title, next_action, self._refusal(terms), providers)

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


def kind_availability(
    channels: Channels | None,
    catalog: Catalog,
    product: Product,
    terminal: Terminal,
    country: str,
    currency: Currency,
    locale: str,
) -> KindAvailability:
    """Return what is cached with `channels`; build it if there is none for this catalog."""
    if channels is None:
        return KindAvailability(catalog, product, terminal, country, currency, locale)
    cache, key = channels.kind_availabilities, (product, terminal, country, currency, locale)
    cached = cache.get(key)
    if cached is None or cached.catalog is not catalog:
        if len(cache) >= MAX_KIND_AVAILABILITIES:
            cache.clear()
        cached = cache[key] = KindAvailability(catalog, product, terminal, country, currency, locale)
    return cached
