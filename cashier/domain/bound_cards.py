"""Bound cards as payment methods: title, refusal and the channels that accept each card."""

from __future__ import annotations

from datetime import timedelta
from operator import attrgetter

from msgspec import Struct

from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.facts import Card, CardStatus
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.offer import Offer, best_quote_over
from cashier.domain.offered_kinds import OfferedChannel, card_title, icon
from cashier.domain.pay_method import Instrument, Kind, ReasonCode, Remedy, RemedyType
from cashier.domain.refusal import Refusal, unclear_refusal
from cashier.source_errors import Missing

CARD_UNBOUND = Refusal(ReasonCode.CARD_UNBOUND, "card", Remedy(RemedyType.BIND_CARD))
CARD_FROZEN = Refusal(ReasonCode.CARD_FROZEN, "card")
CARD_EXPIRED = Refusal(ReasonCode.CARD_EXPIRED, "card", Remedy(RemedyType.UPDATE_CARD))
CARD_UNCLEAR = unclear_refusal("card")
_ACTIVE = CardStatus.ACTIVE.value
# The issuer's time zone is unknown, so a month ends where it ends last: at UTC−12.
_LAST_ON_EARTH = timedelta(hours=12)
_REFUSAL_BY_STATUS: dict[str, Refusal] = {CardStatus.UNBOUND: CARD_UNBOUND, CardStatus.FROZEN: CARD_FROZEN}
_card_id = attrgetter("card_id")


class BoundCard(Struct, frozen=True, gc=False):
    """A card in one consultation. `channels`: those of its bank that accept its brand and type.

    `bank_name`: for the payer's locale.
    """

    card: Card
    bank_name: str
    title: str
    refusal: Refusal | None
    channels: list[OfferedChannel]


class BoundCards(Struct, frozen=True, gc=False):
    """The payer's cards and the assessment of QUICK_PAY. No cards while the card centre is silent.

    Sorted by id, so that no result depends on the card centre's order.
    """

    assessment: KindAssessment
    cards: list[BoundCard]


def bound_cards(case: ConsultationCase) -> BoundCards:
    assessment, held = KindAssessment(case, Kind.QUICK_PAY), case.facts.card
    if isinstance(held, Missing):
        return BoundCards(assessment, [])
    title, types = assessment.offered.title, case.wording.card_types
    there = case.now - _LAST_ON_EARTH
    month = f"{there.year:04d}-{there.month:02d}"
    locale = case.locale
    cards = [
        BoundCard(
            card,
            bank_name := card.bank_name if (names := card.bank_names) is None else names.get(locale) or card.bank_name,
            card_title(title, bank_name, types[card.type], card.last4),
            card_refusal(card, month),
            _accepting_channels(assessment, card),
        )
        for card in sorted(held.cards, key=_card_id)
    ]
    return BoundCards(assessment, cards)


def card_offer(assessment: KindAssessment, bound: BoundCard) -> Offer:
    card = bound.card
    instrument = Instrument(card.card_id, card.bank, bound.bank_name, card.last4, card.type, card.brand)
    quote = best_quote_over(assessment, bound.channels, card.bank, assessment.refusal or bound.refusal, card.card_id)
    return Offer(
        f"QUICK_PAY:{card.card_id}",
        assessment.offered,
        bound.title,
        icon(assessment.terms.icon, card.bank),
        instrument,
        quote,
    )


def _accepting_channels(assessment: KindAssessment, card: Card) -> list[OfferedChannel]:
    bank = assessment.providers.get(card.bank)
    if bank is None:
        return []
    if not bank.has_card_filters:
        return bank.channels
    brand, card_type = card.brand, card.type
    return [
        offered
        for offered in bank.channels
        if ((brands := offered.channel.brands) is None or brand in brands)
        and ((types := offered.channel.card_types) is None or card_type in types)
    ]


def card_refusal(card: Card, month: str) -> Refusal | None:
    """`month`: the current one, `2031-05`. A card is valid to the end of its last month."""
    if card.status == _ACTIVE:
        return CARD_EXPIRED if card.expiry < month else None
    return _REFUSAL_BY_STATUS.get(card.status, CARD_UNCLEAR)
