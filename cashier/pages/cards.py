"""The card that a payer has entered at the vault, and the methods that are charged to one."""

from __future__ import annotations

from cashier.domain.kinds import KINDS, InstrumentSource
from cashier.payments.attempt import kind_of
from cashier.payments.errors import Invalid
from cashier.tokens.page_session import SessionClaims


def takes_card(method_id: str) -> bool:
    """Whether what is charged is a card that the payer enters."""
    try:
        return KINDS[kind_of(method_id)].instrument_source is InstrumentSource.CARD_TOKEN
    except Invalid:
        return False


def card_for(session: SessionClaims, attempt: str) -> str | None:
    """The token of the card that the payer has entered for the attempt after this one."""
    card = session.card
    return card.token if card is not None and card.attempt == attempt else None
