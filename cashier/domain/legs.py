"""Legs: a payment as the engine takes it. What promotions give, what a balance gives, what a channel carries; together order and fee.

Nothing is computed here but sums that must come out. What is to be paid was found by assembly, at the price that the payer has agreed to,
and which channel carries it by routing; a leg that would have to be guessed is refused.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from cashier.domain.money import Money
from cashier.domain.pay_method import Amounts, Discount, Kind, PayMethod, ReasonCode
from cashier.domain.pay_method import Leg as Share
from cashier.domain.pay_method import LegType as ShareType
from cashier.domain.quote import Quote


class EngineLegType(StrEnum):
    PROMOTION = "PROMOTION"
    BALANCE = "BALANCE"
    CHANNEL = "CHANNEL"


class EngineLeg(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`id`: the promotion, the account or the channel. `instrument_id`: the card, the agreement or the vault's card token behind a channel;
    it does not show itself."""

    type: EngineLegType
    id: str
    amount: Money
    channel_id: str | None = None
    instrument_id: str | None = None

    def __repr__(self) -> str:
        return f"<Leg {self.type} {self.id} {self.amount}>"


class LegsRefusedCode(StrEnum):
    """`REFUSED`: the method itself is; see `reason`. The others: what is missing to make legs of it."""

    REFUSED = "REFUSED"
    PRICE_UNKNOWN = "PRICE_UNKNOWN"
    CHANNEL_MISSING = "CHANNEL_MISSING"
    INSTRUMENT_MISSING = "INSTRUMENT_MISSING"
    NOTHING_TO_PAY = "NOTHING_TO_PAY"


class LegsRefused(Struct, frozen=True):
    """No legs, and nothing to send. `reason`: why the method is refused, or that a source was silent about it."""

    code: LegsRefusedCode
    reason: ReasonCode | None = None


Paid: TypeAlias = tuple[EngineLeg, ...] | LegsRefused

_INSTRUMENT_MISSING = LegsRefused(LegsRefusedCode.INSTRUMENT_MISSING)
# What the channel takes the money from is named. Elsewhere the payer names it to the channel: by logging in, by paying there, by a code.
_BEHIND_A_CHANNEL = frozenset({Kind.QUICK_PAY, Kind.AGREEMENT, Kind.CARD})


class LegsDoNotAddUp(Exception):
    """The parts of a price are not the price. Our bug, whatever was heard; nothing may be sent."""


def legs(chosen: PayMethod, quote: Quote, channel_id: str | None, card_token: str | None = None) -> Paid:
    """The legs of a method at a price, promotions first.

    `quote`: of the chosen option, and of the channels in question: see `candidates`. `channel_id`: the one that routing took, None where
    none is needed. `card_token`: of an external card. Nothing to pay needs neither. Raises `LegsDoNotAddUp`.
    """
    amounts = quote.amounts
    if quote.refusal is not None:
        return LegsRefused(LegsRefusedCode.REFUSED, quote.refusal.code)
    if amounts is None:
        return LegsRefused(LegsRefusedCode.PRICE_UNKNOWN)
    paid = _paid(chosen, amounts.payable, quote.legs, channel_id, card_token) if amounts.payable.value else ()
    if isinstance(paid, LegsRefused):
        return paid
    found = (*map(_promotion, amounts.discounts), *paid)
    return _adding_up(found, amounts) if found else LegsRefused(LegsRefusedCode.NOTHING_TO_PAY)


def _paid(
    chosen: PayMethod, payable: Money, split: tuple[Share, ...], channel_id: str | None, card_token: str | None
) -> Paid:
    """What the payer gives: by one instrument, or by a balance and the card that completes it."""
    held = None if chosen.instrument is None else chosen.instrument.id
    if chosen.kind is Kind.BALANCE and not split:
        # One with options is to be completed by a card, so it never gives it all.
        return _INSTRUMENT_MISSING if held is None or chosen.options else (_balance(held, payable),)
    if channel_id is None:
        return LegsRefused(LegsRefusedCode.CHANNEL_MISSING)
    if split:
        return tuple(
            _balance(share.id, share.amount)
            if share.type is ShareType.BALANCE
            else _channel(channel_id, share.id, share.amount)
            for share in split
        )
    if chosen.kind not in _BEHIND_A_CHANNEL:
        return (_channel(channel_id, None, payable),)
    behind = card_token if chosen.kind is Kind.CARD else held
    return _INSTRUMENT_MISSING if behind is None else (_channel(channel_id, behind, payable),)


def _promotion(discount: Discount) -> EngineLeg:
    return EngineLeg(type=EngineLegType.PROMOTION, id=discount.promotion_id, amount=discount.amount)


def _balance(account_id: str, amount: Money) -> EngineLeg:
    return EngineLeg(type=EngineLegType.BALANCE, id=account_id, amount=amount)


def _channel(channel_id: str, instrument_id: str | None, amount: Money) -> EngineLeg:
    return EngineLeg(
        type=EngineLegType.CHANNEL, id=channel_id, channel_id=channel_id, instrument_id=instrument_id, amount=amount
    )


def _adding_up(found: tuple[EngineLeg, ...], amounts: Amounts) -> tuple[EngineLeg, ...]:
    """The legs, once it is certain that they are the payment: promotions the discounts, the rest the payable amount, all order and fee."""
    currencies = {leg.amount.currency for leg in found} | {
        amounts.order.currency,
        amounts.payable.currency,
        amounts.fee.currency,
    }
    given = sum(leg.amount.value for leg in found if leg.type is EngineLegType.PROMOTION)
    paid = sum(leg.amount.value for leg in found if leg.type is not EngineLegType.PROMOTION)
    exact = paid == amounts.payable.value and given + paid == amounts.order.value + amounts.fee.value
    if len(currencies) != 1 or not exact:
        raise LegsDoNotAddUp(f"{given} off and {paid} paid in {len(currencies)} currencies are not the price")
    return found
