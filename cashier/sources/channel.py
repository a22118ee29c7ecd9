"""The channel gateway: the channels for a currency and a country."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct, structs

from cashier.domain.facts import Bps, Channel, Channels, ChannelStatus, UnratedChannel
from cashier.domain.kinds import KINDS, Listing
from cashier.domain.money import BPS, MAX_VALUE
from cashier.source_errors import FailureReason, Garbled
from cashier.sources.doubts import doubt
from cashier.sources.source import Inputs, define_source

_BY_TERM = frozenset(kind for kind, row in KINDS.items() if row.listing is Listing.TERM_PER_PROVIDER)
_STATUSES = frozenset(ChannelStatus)
_COMPLETED = ("cost_bps", "success_bps", "step")


class ChannelRow(Channel, frozen=True, kw_only=True):
    """A channel of an answer, where a figure may be absent and an optional field null."""

    cost_bps: Bps | None = None  # type: ignore[assignment]
    success_bps: Bps | None = None  # type: ignore[assignment]
    step: Annotated[int, Meta(ge=1, le=MAX_VALUE)] | None = 1  # type: ignore[assignment]


class ChannelAnswer(Struct, frozen=True):
    channels: tuple[ChannelRow, ...]


def target(inputs: Inputs) -> str:
    return f"/channels?currency={inputs['currency']}&country={inputs['country']}"


def to_fact(answer: ChannelAnswer | None, inputs: Inputs) -> Channels:
    """The answer names no currency or country of the request, so there is no identity to check."""
    channels = Channels.prepared(() if answer is None else _completed(answer.channels))
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


def _completed(rows: Sequence[ChannelRow]) -> Sequence[Channel]:
    """The rows with a value for each figure that is not stated.

    That is the mean of the stated ones of its kind, else of all channels, else no loss and no cost:
    no channel is preferred or put back for the want of a figure. One that states only a fixed cost
    has no other.
    """
    if all(getattr(row, name) is not None for row in rows for name in _COMPLETED):
        return rows
    costs, rates = _means(rows, "cost_bps"), _means(rows, "success_bps")
    return [_complete(row, costs, rates) for row in rows]


def _means(rows: Sequence[ChannelRow], figure: str) -> Mapping[str | None, int]:
    """The mean of the stated figures by kind, and of all of them under None."""
    stated: dict[str | None, list[int]] = defaultdict(list)
    for row in rows:
        value = getattr(row, figure)
        if value is not None:
            stated[row.kind].append(value)
            stated[None].append(value)
    return {kind: sum(values) // len(values) for kind, values in stated.items()}


def _complete(row: ChannelRow, costs: Mapping[str | None, int], rates: Mapping[str | None, int]) -> Channel:
    usual_cost = 0 if row.fixed_cost is not None else costs.get(row.kind, costs.get(None, 0))
    usual = {"cost_bps": usual_cost, "success_bps": rates.get(row.kind, rates.get(None, BPS)), "step": 1}
    stated = structs.asdict(row)
    absent = {name: value for name, value in usual.items() if stated[name] is None}
    return (UnratedChannel if "success_bps" in absent else Channel)(**stated | absent)


def unprepare(fact: Any, inputs: Inputs) -> Any:
    if not isinstance(fact, Channels):
        return fact
    # Not by id: that would drop the second of two channels with one id.
    return {"channels": [channel for by in fact.by_kind.values() for several in by.values() for channel in several]}


# No `parameters`, so no batch: without an identity, swapped answers would go unnoticed.
CHANNEL = define_source("channel", ChannelAnswer, target, to_fact, repetitive=True, unprepare=unprepare)
