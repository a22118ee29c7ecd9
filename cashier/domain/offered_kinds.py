"""Offered kinds: kinds, providers and channels on offer at one place of sale, with display texts.

A place of sale is a combination of product, terminal, country, currency and locale. Together with
the catalog and the channel gateway's answer it decides what is on offer. The result is the same for
all payers for a while, so it is cached with that answer. Nothing here may depend on the order's
amount, the payer or the time of day.
"""

from __future__ import annotations

from functools import lru_cache
from string import Formatter
from typing import Any

from msgspec import Struct

from cashier.domain.catalog import Catalog, Terms
from cashier.domain.facts import Channel, Channels, ChannelStatus, InstalmentTerm
from cashier.domain.kinds import KINDS, SHOWN_OR_CONFIRMED, Listing
from cashier.domain.money import Currency
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Instrument, Kind, Limits, NextAction, ReasonCode, Remedy, RemedyType
from cashier.domain.recurring_values import RecurringValues
from cashier.domain.refusal import Refusal, unclear_refusal
from cashier.domain.wording import TITLE_PARTS

PRODUCT_NOT_SUPPORTED = Refusal(ReasonCode.PRODUCT_NOT_SUPPORTED)
TERMINAL_NOT_SUPPORTED = Refusal(ReasonCode.TERMINAL_NOT_SUPPORTED)
COUNTRY_NOT_SUPPORTED = Refusal(ReasonCode.COUNTRY_NOT_SUPPORTED)
CURRENCY_NOT_SUPPORTED = Refusal(ReasonCode.CURRENCY_NOT_SUPPORTED, None, Remedy(RemedyType.SWITCH_CURRENCY))
CHANNEL_CLOSED = Refusal(ReasonCode.CHANNEL_CLOSED, "channel")
CHANNEL_MAINTENANCE = Refusal(ReasonCode.CHANNEL_MAINTENANCE, "channel", Remedy(RemedyType.RETRY))
_CHANNEL_PRODUCT = Refusal(ReasonCode.PRODUCT_NOT_SUPPORTED, "channel")
_CHANNEL_TERMINAL = Refusal(ReasonCode.TERMINAL_NOT_SUPPORTED, "channel")
CHANNEL_UNCLEAR = unclear_refusal("channel")
_OPEN, _TERM_PER_PROVIDER = ChannelStatus.OPEN.value, Listing.TERM_PER_PROVIDER
_REFUSAL_BY_STATUS: dict[str, Refusal] = {
    ChannelStatus.CLOSED: CHANNEL_CLOSED,
    ChannelStatus.MAINTENANCE: CHANNEL_MAINTENANCE,
}
_NO_PROVIDERS: dict[str, list[Channel]] = {}
_EMPTY_PARTS = dict.fromkeys(TITLE_PARTS, "")
# Per answer of the channel gateway. Far above the combinations in one country.
MAX_CACHED = 64
# Of the offers of one place of sale. Some ten kilobytes each.
MAX_SHARED = 128


class OfferedChannel(Struct, frozen=True, gc=False):
    """`refusal`: holds for any amount. That of a maintenance gets its end in each consultation.

    `limits_in_currency`: the channel's limits are in the order's currency; without this no money
    may go through it. `price_key`: minimum, fee and step. Channels with equal keys give equal
    prices. `limits`: its own. `term`: of instalments; a channel then occurs once per term.
    """

    channel: Channel
    refusal: Refusal | None
    limits_in_currency: bool
    fee_bps: int
    price_key: tuple[int, int, int]
    limits: Limits
    term: InstalmentTerm | None = None


class OfferedProvider(Struct, frozen=True, gc=False):
    """A provider of one kind, and the display of a payment method that stands for it.

    `channels` are sorted by id. `sole_open_channel`: the only channel, if there is one and it is
    open. `has_card_filters`: a channel accepts only some brands or types.
    """

    provider: str
    provider_name: str
    method_id: str
    title: str
    icon: str
    instrument: Instrument
    channels: list[OfferedChannel]
    sole_open_channel: OfferedChannel | None
    has_card_filters: bool


class OfferedKind(Struct, frozen=True, gc=False):
    """One kind: terms, texts, a refusal for every payer, providers by id.

    `title`: the template for one method of the kind. `maintained`: a channel is under maintenance
    to a stated end, so that its refusal depends on the time.
    """

    kind: Kind
    terms: Terms
    name: str
    title: str
    icon: str
    next_action: NextAction
    refusal: Refusal | None
    providers: dict[str, OfferedProvider]
    maintained: bool


class OfferedKinds(dict[Kind, OfferedKind]):
    """The kinds at one place of sale, each built on first use.

    Holds the channels by kind, not the answer that caches it: that would be a reference cycle.
    `needs_s`: the least time that each kind needs, sorted. `shared_offers`: cache of
    `shared_offers.shared_offers`.
    """

    __slots__ = (
        "_channels",
        "_country",
        "_currency",
        "_locale",
        "_product",
        "_terminal",
        "catalog",
        "needs_s",
        "shared_offers",
    )

    def __init__(
        self,
        channels: dict[str, dict[str, list[Channel]]],
        catalog: Catalog,
        product: Product,
        terminal: Terminal,
        country: str,
        currency: Currency,
        locale: str,
    ) -> None:
        self.catalog = catalog
        self._channels = channels
        self._product = product
        self._terminal = terminal
        self._country = country
        self._currency = currency
        self._locale = locale
        self.needs_s = sorted(terms.needs_s for terms in catalog.methods.values())
        self.shared_offers: RecurringValues[Any] = RecurringValues(MAX_SHARED)

    def __missing__(self, kind: Kind) -> OfferedKind:
        terms, title_template, providers = self.catalog.methods[kind], self.catalog.title(kind, self._locale), {}
        by_term, maintained = KINDS[kind].listing is _TERM_PER_PROVIDER, False
        for provider, channels in self._channels.get(kind, _NO_PROVIDERS).items():
            name = channels[0].name_in(self._locale)
            offered, has_card_filters = [], False
            for channel in channels:
                if by_term:
                    offered += [self.channel(channel, terms, term) for term in channel.terms or ()]
                else:
                    offered.append(self.channel(channel, terms))
                has_card_filters = has_card_filters or channel.brands is not None or channel.card_types is not None
            if not offered:
                continue
            maintained = maintained or any(
                each.refusal is CHANNEL_MAINTENANCE and each.channel.until is not None for each in offered
            )
            method_id, title, icon_name, instrument = provider_display(kind, title_template, terms.icon, provider, name)
            sole_open_channel = offered[0] if len(offered) == 1 and offered[0].refusal is None else None
            # By position: keywords add 1 % to a consultation with fresh channels.
            providers[provider] = OfferedProvider(
                provider, name, method_id, title, icon_name, instrument, offered, sole_open_channel, has_card_filters
            )
        offered_kind = self[kind] = OfferedKind(
            kind=kind,
            terms=terms,
            name=self.catalog.name(kind, self._locale),
            title=title_template,
            icon=icon(terms.icon),
            next_action=terms.terminal_actions.get(self._terminal, terms.next_action),
            refusal=self._kind_refusal(kind, terms),
            providers=providers,
            maintained=maintained,
        )
        return offered_kind

    def channel(self, channel: Channel, terms: Terms, term: InstalmentTerm | None = None) -> OfferedChannel:
        """`terms`: of the channel's kind, with the payer's fee where the channel names none.

        `term`: of instalments, with a fee of its own.
        """
        currency, least, most = self._currency, channel.min, channel.max
        limits_in_currency = least.currency == currency == most.currency
        own_fee_bps = channel.fee_bps if term is None else term.fee_bps
        fee_bps = terms.fee_bps if own_fee_bps is None else own_fee_bps
        refusal: Refusal | None = None
        if channel.products is not None and self._product not in channel.products:
            refusal = _CHANNEL_PRODUCT
        elif self._terminal not in channel.terminals:
            refusal = _CHANNEL_TERMINAL
        elif not limits_in_currency or currency not in channel.currencies:
            refusal = CURRENCY_NOT_SUPPORTED
        elif channel.status != _OPEN:
            refusal = _REFUSAL_BY_STATUS.get(channel.status, CHANNEL_UNCLEAR)
        price_key, limits = (least.value, fee_bps, channel.step), Limits(most, None, None)
        return OfferedChannel(channel, refusal, limits_in_currency, fee_bps, price_key, limits, term)

    def _kind_refusal(self, kind: Kind, terms: Terms) -> Refusal | None:
        """The first two are no terms, so that no catalog can lift them.

        A till says who pays, and no payer has signed in. SCAN means a till on any terminal.
        """
        if not SHOWN_OR_CONFIRMED[KINDS[kind].instrument_source]:
            if self._terminal is Terminal.POS:
                return TERMINAL_NOT_SUPPORTED
            if self._product is Product.SCAN:
                return PRODUCT_NOT_SUPPORTED
        if terms.products is not None and self._product not in terms.products:
            return PRODUCT_NOT_SUPPORTED
        if terms.terminals is not None and self._terminal not in terms.terminals:
            return TERMINAL_NOT_SUPPORTED
        if terms.countries is not None and self._country not in terms.countries:
            return COUNTRY_NOT_SUPPORTED
        if terms.currencies is not None and self._currency not in terms.currencies:
            return CURRENCY_NOT_SUPPORTED
        return None


def offered_kinds(
    channels: Channels | None,
    catalog: Catalog,
    product: Product,
    terminal: Terminal,
    country: str,
    currency: Currency,
    locale: str,
) -> OfferedKinds:
    """Return what is cached with `channels`; build it if there is none for this catalog."""
    if channels is None:
        return OfferedKinds({}, catalog, product, terminal, country, currency, locale)
    cache, key = channels.offered_kinds, (product, terminal, country, currency, locale)
    cached = cache.get(key)
    if cached is None or cached.catalog is not catalog:
        if len(cache) >= MAX_CACHED:
            cache.clear()
        cached = cache[key] = OfferedKinds(channels.by_kind, catalog, product, terminal, country, currency, locale)
    return cached


@lru_cache(maxsize=4096)
def provider_display(
    kind: Kind, title_template: str, icon_template: str, provider: str, provider_name: str
) -> tuple[str, str, str, Instrument]:
    """Method id, title, icon and instrument of a method that stands for a provider.

    Cached beyond one answer of the gateway: providers recur in all of them.
    """
    return (
        f"{kind}:{provider}",
        _fill(title_template, bank_name=provider_name, provider_name=provider_name),
        icon(icon_template, provider),
        Instrument(provider),
    )


@lru_cache(maxsize=1024)
def account_title_and_icon(
    title_template: str, icon_template: str, account_type: str, account_name: str
) -> tuple[str, str]:
    """The same for every account of a type."""
    return _fill(title_template, account=account_name), icon(icon_template, account_type)


def card_title(title_template: str, bank_name: str, type_name: str, last4: str) -> str:
    """Insert `last4` last: it is the payer's, and must stay out of the cache."""
    pieces = _around_last4(title_template, bank_name, type_name)
    if pieces is None:
        return _fill(title_template, bank_name=bank_name, provider_name=bank_name, type=type_name, last4=last4)
    return last4.join(pieces)


@lru_cache(maxsize=4096)
def _around_last4(title_template: str, bank_name: str, type_name: str) -> tuple[str, ...] | None:
    """The pieces around each `{last4}`; None if the template gives it a format or a conversion."""
    pieces = [""]
    for literal, field, spec, conversion in Formatter().parse(title_template):
        pieces[-1] += literal
        if field == "last4" and not spec and conversion is None:
            pieces.append("")
        elif field == "last4" or "last4" in (spec or ""):
            return None
        elif field is not None:
            part = f"{{{field}{'' if conversion is None else '!' + conversion}:{spec}}}"
            pieces[-1] += _fill(part, bank_name=bank_name, provider_name=bank_name, type=type_name)
    return tuple(pieces)


def _fill(template: str, **parts: str) -> str:
    return template.format(**(_EMPTY_PARTS | parts))


@lru_cache(maxsize=4096)
def icon(template: str, name: str = "") -> str:
    """`name`: the bank, the provider or the account type that the icon stands for."""
    return template.format(provider=name.lower())
