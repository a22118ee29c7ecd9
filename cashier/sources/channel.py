"""The channel gateway: the channels for a currency and a country."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, structs

from cashier.domain.facts import Channel, Channels, ChannelStatus
from cashier.domain.kinds import KINDS, Listing
from cashier.domain.money import MAX_VALUE
from cashier.source_errors import FailureReason, Garbled
from cashier.sources.doubts import doubt
from cashier.sources.source import Inputs, define_source

_BY_TERM = frozenset(kind for kind, row in KINDS.items() if row.listing is Listing.TERM_PER_PROVIDER)
_STATUSES = frozenset(ChannelStatus)


class ChannelRow(Channel, frozen=True):
    """A channel of an answer, where an optional field may be null."""

    step: Annotated[int, Meta(ge=1, le=MAX_VALUE)] | None = 1  # type: ignore[assignment]


class ChannelAnswer(Struct, frozen=True):
    channels: tuple[ChannelRow, ...]


def target(inputs: Inputs) -> str:
    return f"/channels?currency={inputs['currency']}&country={inputs['country']}"


def to_fact(answer: ChannelAnswer | None, inputs: Inputs) -> Channels:
    """The answer names no currency or country of the request, so there is no identity to check."""
    rows = () if answer is None else answer.channels
    channels = Channels.prepared([structs.replace(row, step=1) if row.step is None else row for row in rows])
    if answer is not None and len(channels.by_id) < len(answer.channels):
        raise Garbled("two channels with one channel_id", reason=FailureReason.FIELD)
    for channel in channels.by_id.values():
        if channel.terms is not None and len({term.term_id for term in channel.terms}) < len(channel.terms):
            raise Garbled("two terms of a channel with one term_id", reason=FailureReason.FIELD)
        if not channel.terms and channel.kind in _BY_TERM:
            doubt("channel", f"a channel of kind {channel.kind}", "terms", None, "it offers nothing")
        if channel.status not in _STATUSES:
            doubt("channel", "a channel", "status", channel.status, "its methods are undetermined")
    return channels


def unprepare(fact: Any, inputs: Inputs) -> Any:
    if not isinstance(fact, Channels):
        return fact
    # Not by id: that would drop the second of two channels with one id.
    return {"channels": [channel for by in fact.by_kind.values() for several in by.values() for channel in several]}


# No `parameters`, so no batch: without an identity, swapped answers would go unnoticed.
CHANNEL = define_source("channel", ChannelAnswer, target, to_fact, repetitive=True, unprepare=unprepare)
