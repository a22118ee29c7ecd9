"""The table of kinds: one row per kind of payment method, with all that code derives from it.

Terms and texts, which an operator may change, are in `methods.toml`. A kind without a row, or a row
without one of its fields, fails at import.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import TypeVar

from msgspec import Struct

from cashier.domain import poll_schedule
from cashier.domain.pay_method import Kind
from cashier.domain.poll_schedule import PollSchedule

Key = TypeVar("Key")
Value = TypeVar("Value")


class Listing(Enum):
    """One payment method per what.

    `assembly` and `channel_candidates` have one function per listing.
    """

    PER_CARD = auto()
    PER_AGREEMENT = auto()
    PER_ACCOUNT = auto()
    PER_PROVIDER = auto()
    # One method with an option per bank or chain. The payer names it by `option_id`.
    OPTION_PER_PROVIDER = auto()
    # One method per provider, with an option per instalment term.
    TERM_PER_PROVIDER = auto()
    # One method over all channels of the kind. Acceptance chooses the channel.
    WHOLE_KIND = auto()
    # One method in the place of all others, for an order that leaves nothing to pay.
    NOTHING_TO_PAY = auto()


class InstrumentSource(Enum):
    """Where the charged instrument comes from."""

    METHOD = auto()
    CARD_TOKEN = auto()
    AUTH_CODE = auto()
    # The payer identifies it to the channel: by logging in or by paying there.
    CHANNEL = auto()
    # Nothing is charged.
    NONE = auto()


class KindRow(Struct, frozen=True, kw_only=True):
    """One kind. No field has a default, so that none is forgotten.

    `contracted`: a merchant takes the kind only if its record names it. `needs_channel`: money goes
    through a channel. `payer_present`: the payer can answer a challenge. `poll_schedule`: while the
    payer acts elsewhere. `reversed_after_s`: a payment that is not final this long after the submit
    is reversed. `returns_to_source`: the rail carries money back to where it came from. Transfers
    and cash have no way back: the shop arranges a return.
    """

    listing: Listing
    instrument_source: InstrumentSource
    contracted: bool
    needs_channel: bool
    payer_present: bool
    poll_schedule: PollSchedule
    reversed_after_s: int | None
    returns_to_source: bool


def complete(name: str, table: Mapping[Key, Value], members: Iterable[Key]) -> Mapping[Key, Value]:
    """Return the table. Raises LookupError with the members that it lacks: our bug, at import."""
    missing = [str(member) for member in members if member not in table]
    if missing:
        raise LookupError(f"{name} has no entry for {', '.join(missing)}")
    return table


# Whether the payer shows the instrument or confirms its use to the channel. Where not, naming the
# payer is enough to charge it.
SHOWN_OR_CONFIRMED = complete(
    "domain.kinds.SHOWN_OR_CONFIRMED",
    {
        InstrumentSource.METHOD: False,
        InstrumentSource.CARD_TOKEN: False,
        InstrumentSource.AUTH_CODE: True,
        InstrumentSource.CHANNEL: True,
        InstrumentSource.NONE: True,
    },
    InstrumentSource,
)

# In the order of assembly. Methods share one search budget for promotions: first come, first
# served.
KINDS = complete(
    "domain.kinds.KINDS",
    {
        Kind.QUICK_PAY: KindRow(
            listing=Listing.PER_CARD,
            instrument_source=InstrumentSource.METHOD,
            contracted=True,
            needs_channel=True,
            payer_present=True,
            poll_schedule=poll_schedule.PROMPT,
            reversed_after_s=None,
            returns_to_source=True,
        ),
        Kind.AGREEMENT: KindRow(
            listing=Listing.PER_AGREEMENT,
            instrument_source=InstrumentSource.METHOD,
            contracted=True,
            needs_channel=True,
            payer_present=False,
            poll_schedule=poll_schedule.PROMPT,
            reversed_after_s=None,
            returns_to_source=True,
        ),
        Kind.BALANCE: KindRow(
            listing=Listing.PER_ACCOUNT,
            instrument_source=InstrumentSource.METHOD,
            contracted=True,
            needs_channel=False,
            payer_present=True,
            poll_schedule=poll_schedule.PROMPT,
            reversed_after_s=None,
            returns_to_source=True,
        ),
        Kind.WALLET: KindRow(
            listing=Listing.PER_PROVIDER,
            instrument_source=InstrumentSource.CHANNEL,
            contracted=True,
            needs_channel=True,
            payer_present=True,
            poll_schedule=poll_schedule.REDIRECTED,
            reversed_after_s=None,
            returns_to_source=True,
        ),
        Kind.INSTALMENT: KindRow(
            listing=Listing.TERM_PER_PROVIDER,
            instrument_source=InstrumentSource.CHANNEL,
            contracted=True,
            needs_channel=True,
            payer_present=True,
            poll_schedule=poll_schedule.REDIRECTED,
            reversed_after_s=None,
            returns_to_source=True,
        ),
        Kind.MERCHANT_QR: KindRow(
            listing=Listing.PER_PROVIDER,
            instrument_source=InstrumentSource.CHANNEL,
            contracted=True,
            needs_channel=True,
            payer_present=True,
            poll_schedule=poll_schedule.QR_DISPLAYED,
            reversed_after_s=None,
            returns_to_source=True,
        ),
        Kind.NET_BANKING: KindRow(
            listing=Listing.OPTION_PER_PROVIDER,
            instrument_source=InstrumentSource.CHANNEL,
            contracted=True,
            needs_channel=True,
            payer_present=True,
            poll_schedule=poll_schedule.REDIRECTED,
            reversed_after_s=None,
            returns_to_source=True,
        ),
        Kind.VA: KindRow(
            listing=Listing.OPTION_PER_PROVIDER,
            instrument_source=InstrumentSource.CHANNEL,
            contracted=True,
            needs_channel=True,
            payer_present=True,
            poll_schedule=poll_schedule.OFFLINE,
            reversed_after_s=None,
            returns_to_source=False,
        ),
        Kind.OTC: KindRow(
            listing=Listing.OPTION_PER_PROVIDER,
            instrument_source=InstrumentSource.CHANNEL,
            contracted=True,
            needs_channel=True,
            payer_present=True,
            poll_schedule=poll_schedule.OFFLINE,
            reversed_after_s=None,
            returns_to_source=False,
        ),
        Kind.CARD: KindRow(
            listing=Listing.WHOLE_KIND,
            instrument_source=InstrumentSource.CARD_TOKEN,
            contracted=True,
            needs_channel=True,
            payer_present=True,
            poll_schedule=poll_schedule.REDIRECTED,
            reversed_after_s=None,
            returns_to_source=True,
        ),
        Kind.CONSUMER_QR: KindRow(
            listing=Listing.WHOLE_KIND,
            instrument_source=InstrumentSource.AUTH_CODE,
            contracted=True,
            needs_channel=True,
            payer_present=True,
            poll_schedule=poll_schedule.ATTENDED,
            reversed_after_s=poll_schedule.ATTENDED_S,
            returns_to_source=True,
        ),
        Kind.FREE: KindRow(
            listing=Listing.NOTHING_TO_PAY,
            instrument_source=InstrumentSource.NONE,
            contracted=False,
            needs_channel=False,
            payer_present=True,
            poll_schedule=poll_schedule.PROMPT,
            reversed_after_s=None,
            returns_to_source=True,
        ),
    },
    Kind,
)
