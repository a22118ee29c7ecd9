"""Road: a channel as one checkout sees it. Carrier: a provider of one kind, with its face and its roads.

Nothing here may depend on the order's amount, on who pays or on the time of day: see `view`, which remembers it.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from cashier.domain.facts import Channel, ChannelStatus
from cashier.domain.money import Currency
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import ReasonCode, Remedy, RemedyType
from cashier.domain.presentation import Presentation
from cashier.domain.refusal import Refusal

CHANNEL_CLOSED = Refusal(ReasonCode.CHANNEL_CLOSED, "channel")
CHANNEL_MAINTENANCE = Refusal(ReasonCode.CHANNEL_MAINTENANCE, "channel", Remedy(RemedyType.RETRY))
CURRENCY_NOT_SUPPORTED = Refusal(ReasonCode.CURRENCY_NOT_SUPPORTED, None, Remedy(RemedyType.SWITCH_CURRENCY))
_CHANNEL_PRODUCT = Refusal(ReasonCode.PRODUCT_NOT_SUPPORTED, "channel")
_CHANNEL_TERMINAL = Refusal(ReasonCode.TERMINAL_NOT_SUPPORTED, "channel")
_OPEN, _CLOSED = ChannelStatus.OPEN, ChannelStatus.CLOSED


class StorefrontChannel(Struct, frozen=True, gc=False):
    """`refusal`: what the channel refuses whatever the amount; see `refused`. `bounded`: whether its limits speak the order's currency;
    one without bounds is not one to send money through. `figures`: minimum, maximum and fee, which a price and a verdict depend on."""

    channel: Channel
    refusal: Refusal | None
    bounded: bool
    fee_bps: int
    figures: tuple[int, int, int]

    def refused(self, now: datetime) -> Refusal | None:
        """`refusal` as of now: a maintenance may have an end."""
        until = self.channel.until
        if self.refusal is not CHANNEL_MAINTENANCE or until is None or until <= now:
            return self.refusal
        return Refusal(ReasonCode.CHANNEL_MAINTENANCE, "channel", Remedy(RemedyType.WAIT_UNTIL, until=until))


class StorefrontProvider(Struct, frozen=True, gc=False):
    """`provider_name` is its name for people. `roads` by channel id. `sole`: its only road, where it has one and that is open. `choosy`:
    whether one of its roads takes only some cards."""

    provider: str
    provider_name: str
    face: Presentation
    roads: list[StorefrontChannel]
    sole: StorefrontChannel | None
    choosy: bool


def storefront_channel(
    channel: Channel, product: Product, terminal: Terminal, currency: Currency, kind_fee_bps: int
) -> StorefrontChannel:
    """`kind_fee_bps`: what the payer pays where the channel does not say."""
    bounded = channel.min.currency == currency == channel.max.currency
    fee_bps = kind_fee_bps if channel.fee_bps is None else channel.fee_bps
    refusal = _refusal(channel, product, terminal, bounded and currency in channel.currencies)
    return StorefrontChannel(channel, refusal, bounded, fee_bps, (channel.min.value, channel.max.value, fee_bps))


def _refusal(channel: Channel, product: Product, terminal: Terminal, speaks: bool) -> Refusal | None:
    """`speaks`: whether it takes the order's currency and has its limits in it."""
    if channel.products is not None and product not in channel.products:
        return _CHANNEL_PRODUCT
    if terminal not in channel.terminals:
        return _CHANNEL_TERMINAL
    if not speaks:
        return CURRENCY_NOT_SUPPORTED
    if channel.status is _OPEN:
        return None
    return CHANNEL_CLOSED if channel.status is _CLOSED else CHANNEL_MAINTENANCE
