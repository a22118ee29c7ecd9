"""The channel gateway: which roads money can take, in a currency and a country."""

from __future__ import annotations

from msgspec import Struct

from cashier.domain.facts import Channel, Channels
from cashier.source_errors import Garbled
from cashier.sources.source import Inputs, source


class ChannelAnswer(Struct, frozen=True):
    channels: tuple[Channel, ...]


def target(asked: Inputs) -> str:
    return f"/channels?currency={asked['currency']}&country={asked['country']}"


def accept(answer: ChannelAnswer | None, asked: Inputs) -> Channels:
    """The answer is about nobody, so there is no identity in it: a currency and a country are what it was asked for."""
    channels = Channels.prepared(() if answer is None else answer.channels)
    if answer is not None and len(channels.by_id) < len(answer.channels):
        raise Garbled("two channels of one channel_id")
    return channels


# No `parameters`, so no batch: with nobody's name in it, an answer in another's place could not be told from the right one.
CHANNEL = source("channel", ChannelAnswer, target, accept, recurring=True)
