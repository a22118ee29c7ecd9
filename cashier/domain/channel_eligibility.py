"""A channel, and a provider with its channels, as one place of sale sees them.

Nothing here may depend on the order's amount, the payer or the time of day: `Storefront` caches it.
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


class ChannelEligibility(Struct, frozen=True, gc=False):
    """A channel at a kind_availability.

    `refusal`: holds for any amount; `refusal_at` adds the time. `limits_in_currency`: the channel's
    limits are in the order's currency; without this no money may go through it. `price_key`:
    minimum, maximum and fee. Channels with equal keys give equal prices and limits.
    """

    channel: Channel
    refusal: Refusal | None
    limits_in_currency: bool
    fee_bps: int
    price_key: tuple[int, int, int]

    def refusal_at(self, now: datetime) -> Refusal | None:
        """The refusal with the end of a maintenance, if that is known and ahead."""
        until = self.channel.until
        if self.refusal is not CHANNEL_MAINTENANCE or until is None or until <= now:
            return self.refusal
        return Refusal(ReasonCode.CHANNEL_MAINTENANCE, "channel", Remedy(RemedyType.WAIT_UNTIL, until=until))


class ProviderChannels(Struct, frozen=True, gc=False):
    """A provider of one kind at a kind_availability.

    `provider_name` is for display. `channels` are sorted by id. `sole_open_channel`: the only
    channel, if there is one and it is open. `has_card_filters`: a channel accepts only some brands
    or types.
    """

    provider: str
    provider_name: str
    presentation: Presentation
    channels: list[ChannelEligibility]
    sole_open_channel: ChannelEligibility | None
    has_card_filters: bool


def channel_eligibility(
    channel: Channel, product: Product, terminal: Terminal, currency: Currency, kind_fee_bps: int
) -> ChannelEligibility:
    """`kind_fee_bps`: the payer's fee where the channel names none."""
    limits_in_currency = channel.min.currency == currency == channel.max.currency
    fee_bps = kind_fee_bps if channel.fee_bps is None else channel.fee_bps
    refusal = _refusal(channel, product, terminal, limits_in_currency and currency in channel.currencies)
    return ChannelEligibility(
        channel, refusal, limits_in_currency, fee_bps, (channel.min.value, channel.max.value, fee_bps)
    )


def _refusal(channel: Channel, product: Product, terminal: Terminal, currency_supported: bool) -> Refusal | None:
    if channel.products is not None and product not in channel.products:
        return _CHANNEL_PRODUCT
    if terminal not in channel.terminals:
        return _CHANNEL_TERMINAL
    if not currency_supported:
        return CURRENCY_NOT_SUPPORTED
    if channel.status is _OPEN:
        return None
    return CHANNEL_CLOSED if channel.status is _CLOSED else CHANNEL_MAINTENANCE
