"""Legs of a payment for the engine: promotions, balance and channel, together order plus fee.

Assembly has set the price and routing the channel; this module only checks the sums. It refuses
rather than guess a leg.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from cashier.domain.kinds import KINDS, InstrumentSource
from cashier.domain.money import Money
from cashier.domain.pay_method import Amounts, Discount, PayMethod, ReasonCode
from cashier.domain.pay_method import LegType as ShareType
from cashier.domain.quote import Quote


class EngineLegType(StrEnum):
    PROMOTION = "PROMOTION"
    BALANCE = "BALANCE"
    CHANNEL = "CHANNEL"


class EngineLeg(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`id`: the promotion, the account or the channel.

    `instrument_id`: the card, agreement or vault token behind a channel. The repr omits it.
    `term_id`: of instalments, at the channel.
    """

    type: EngineLegType
    id: str
    amount: Money
    channel_id: str | None = None
    instrument_id: str | None = None
    term_id: str | None = None

    def __repr__(self) -> str:
        return f"<EngineLeg {self.type} {self.id} {self.amount}>"


class LegsRefusedCode(StrEnum):
    """`REFUSED`: the method itself is refused, see `reason`. The others name what is missing."""

    REFUSED = "REFUSED"
    PRICE_UNKNOWN = "PRICE_UNKNOWN"
    CHANNEL_MISSING = "CHANNEL_MISSING"
    INSTRUMENT_MISSING = "INSTRUMENT_MISSING"


class LegsRefused(Struct, frozen=True):
    """No legs, nothing to send.

    `reason`: of the method's refusal, which a silent source may have caused.
    """

    code: LegsRefusedCode
    reason: ReasonCode | None = None


LegsResult: TypeAlias = tuple[EngineLeg, ...] | LegsRefused

_INSTRUMENT_MISSING = LegsRefused(LegsRefusedCode.INSTRUMENT_MISSING)
# The channel leg names no instrument.
_IDENTIFIED_AT_CHANNEL = (InstrumentSource.AUTH_CODE, InstrumentSource.CHANNEL)


class LegsDoNotAddUp(Exception):
    """The legs do not add up to the price. Our bug; nothing may be sent."""


def legs(chosen: PayMethod, quote: Quote, channel_id: str | None, card_token: str | None = None) -> LegsResult:
    """The legs of a method at a price, promotions first. Raises `LegsDoNotAddUp`.

    `quote`: of the chosen option, see `channel_candidates`. `channel_id`: from routing, None if no
    channel is needed. `card_token`: of an external card. If nothing is to pay, neither is needed,
    and there are no legs but promotions, or none at all.
    """
    amounts = quote.amounts
    if quote.refusal is not None:
        return LegsRefused(LegsRefusedCode.REFUSED, quote.refusal.code)
    if amounts is None:
        return LegsRefused(LegsRefusedCode.PRICE_UNKNOWN)
    paid = _payer_legs(chosen, amounts.payable, quote, channel_id, card_token) if amounts.payable.value else ()
    if isinstance(paid, LegsRefused):
        return paid
    all_legs = (*map(_promotion, amounts.discounts), *paid)
    return _checked_sums(all_legs, amounts)


def _payer_legs(
    chosen: PayMethod, payable: Money, quote: Quote, channel_id: str | None, card_token: str | None
) -> LegsResult:
    """The payer's part: one instrument, or a balance and the card that completes it."""
    split = quote.legs
    row, instrument_id = KINDS[chosen.kind], None if chosen.instrument is None else chosen.instrument.id
    if not row.needs_channel and not split:
        # A balance with options needs a card, so it never pays the whole.
        if instrument_id is None or chosen.options:
            return _INSTRUMENT_MISSING
        return (_balance(instrument_id, payable),)
    if channel_id is None:
        return LegsRefused(LegsRefusedCode.CHANNEL_MISSING)
    if split:
        return tuple(
            _balance(share.id, share.amount)
            if share.type is ShareType.BALANCE
            else _channel(channel_id, share.id, share.amount)
            for share in split
        )
    if row.instrument_source in _IDENTIFIED_AT_CHANNEL:
        return (_channel(channel_id, None, payable, None if quote.term is None else quote.term.term_id),)
    charged_id = card_token if row.instrument_source is InstrumentSource.CARD_TOKEN else instrument_id
    return _INSTRUMENT_MISSING if charged_id is None else (_channel(channel_id, charged_id, payable),)


def _promotion(discount: Discount) -> EngineLeg:
    return EngineLeg(type=EngineLegType.PROMOTION, id=discount.promotion_id, amount=discount.amount)


def _balance(account_id: str, amount: Money) -> EngineLeg:
    return EngineLeg(type=EngineLegType.BALANCE, id=account_id, amount=amount)


def _channel(channel_id: str, instrument_id: str | None, amount: Money, term_id: str | None = None) -> EngineLeg:
    return EngineLeg(
        type=EngineLegType.CHANNEL,
        id=channel_id,
        channel_id=channel_id,
        instrument_id=instrument_id,
        term_id=term_id,
        amount=amount,
    )


def _checked_sums(legs: tuple[EngineLeg, ...], amounts: Amounts) -> tuple[EngineLeg, ...]:
    """Return the legs if the payer's part is the payable amount and all legs are order plus fee."""
    currencies = {leg.amount.currency for leg in legs} | {
        amounts.order.currency,
        amounts.payable.currency,
        amounts.fee.currency,
    }
    discounted = sum(leg.amount.value for leg in legs if leg.type is EngineLegType.PROMOTION)
    paid = sum(leg.amount.value for leg in legs if leg.type is not EngineLegType.PROMOTION)
    exact = paid == amounts.payable.value and discounted + paid == amounts.order.value + amounts.fee.value
    if len(currencies) != 1 or not exact:
        raise LegsDoNotAddUp(f"{discounted} off and {paid} paid in {len(currencies)} currencies are not the price")
    return legs
