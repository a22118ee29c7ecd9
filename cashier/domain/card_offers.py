"""A bound card as a way to pay: what it is called, what speaks against it, and which channels take it."""

from __future__ import annotations

from operator import attrgetter

from msgspec import Struct

from cashier.domain import presentation
from cashier.domain.facts import Card, CardStatus, Channel
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.offer import Offer, over
from cashier.domain.pay_method import Instrument, ReasonCode, Remedy, RemedyType
from cashier.domain.refusal import Refusal
from cashier.domain.storefront_channel import StorefrontChannel

CARD_UNBOUND = Refusal(ReasonCode.CARD_UNBOUND, "card", Remedy(RemedyType.BIND_CARD))
CARD_FROZEN = Refusal(ReasonCode.CARD_FROZEN, "card")
CARD_EXPIRED = Refusal(ReasonCode.CARD_EXPIRED, "card", Remedy(RemedyType.UPDATE_CARD))
_ACTIVE, _UNBOUND = CardStatus.ACTIVE, CardStatus.UNBOUND
_card_id = attrgetter("card_id")


class BoundCard(Struct, frozen=True, gc=False):
    """A card with what is needed of it more than once. `roads`: those of its bank that take its brand and type."""

    card: Card
    title: str
    refusal: Refusal | None
    roads: list[StorefrontChannel]


def bound(line: KindAssessment, cards: tuple[Card, ...]) -> list[BoundCard]:
    """By id, so that nothing below depends on the order in which the card centre has them. `line` is that of QUICK_PAY."""
    case = line.case
    types, month = case.wording.card_types, f"{case.now.year:04d}-{case.now.month:02d}"
    return [
        BoundCard(
            card,
            presentation.card_title(line.title, card.bank_name, types[card.type], card.last4),
            refusal(card, month),
            _roads(line, card),
        )
        for card in sorted(cards, key=_card_id)
    ]


def offer(line: KindAssessment, held: BoundCard) -> Offer:
    card = held.card
    instrument = Instrument(card.card_id, card.bank, card.bank_name, card.last4, card.type, card.brand)
    quote = over(line, held.roads, card.bank, line.refusal or held.refusal, card.card_id)
    return Offer(
        f"QUICK_PAY:{card.card_id}", line, held.title, presentation.icon(line.terms.icon, card.bank), instrument, quote
    )


def _roads(line: KindAssessment, card: Card) -> list[StorefrontChannel]:
    bank = line.carriers.get(card.bank)
    if bank is None:
        return []
    return [road for road in bank.roads if _takes(road.channel, card)] if bank.choosy else bank.roads


def _takes(channel: Channel, card: Card) -> bool:
    return (channel.brands is None or card.brand in channel.brands) and (
        channel.card_types is None or card.type in channel.card_types
    )


def refusal(card: Card, month: str) -> Refusal | None:
    """`month` as in `expiry`: a card is good to the end of its last one, by the clock of UTC."""
    if card.status is not _ACTIVE:
        return CARD_UNBOUND if card.status is _UNBOUND else CARD_FROZEN
    return CARD_EXPIRED if card.expiry < month else None
