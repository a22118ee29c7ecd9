"""Requests of the model's payers: several users' orders, any listed method, tampered bodies."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cashier.consultation.answer import Consultation
from cashier.domain.money import Money
from cashier.domain.order import ConsultRequest
from cashier.domain.pay_method import Amounts, Availability, Kind, Option, PayMethod
from cashier.domain.payment_id import fingerprint, payment_id
from cashier.domain.payment_request import AttemptRequest, Device, PaymentRequest
from cashier.sandbox import CASES

# Several orders of u_1, which share a balance and promotions; of other users, guests and a walk-in;
# of a user rejected by risk; and orders that are paid, closed or in progress at the start.
CHINESE = (
    "chinese_shop",
    "balance_is_enough",
    "discounted_to_zero",
    "guest_order",
    "scan_to_pay",
    "walk_in",
    "nothing_to_pay",
    "in_instalments",
    "unbound_and_terminated",
)
ABROAD = ("indonesian_shop", "japanese_shop", "kuwaiti_shop")
ODD = (
    "listed_by_risk",
    "low_kyc",
    "without_cards",
    "order_paid",
    "order_closed",
    "order_in_progress",
    "nothing_claimed",
    "on_a_computer",
)
ORDERS = CHINESE + ABROAD + ODD


class Tampering(StrEnum):
    """How a body differs from an honest one."""

    HONEST = "honest"
    PRICE = "a lower price"
    PROMOTION = "a promotion left out"
    DEVICE = "another device"
    OPTION = "another option"
    COUPONS = "no coupons, at the price with coupons"


class Offer(Struct, frozen=True):
    request: ConsultRequest
    consultation: Consultation


class Submit(Struct, frozen=True):
    """A submit that a client may repeat."""

    request: PaymentRequest
    key: str

    @property
    def payment_id(self) -> str:
        return payment_id(self.request.merchant_id, self.request.order_id, self.key)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.request.chosen, self.request.means)


def consult_request(case: str) -> ConsultRequest:
    return msgspec.convert(CASES[case].request, ConsultRequest)


def with_coupons(request: ConsultRequest, known: Sequence[str], choice: int | None) -> ConsultRequest:
    """The request with some of the known promotions chosen, by the bits of `choice`.

    None: the payer does not choose.
    """
    if choice is None:
        return request
    return replace(request, chosen_promotions=tuple(known[bit] for bit in range(len(known)) if choice >> bit & 1))


def attempt_request(request: ConsultRequest) -> AttemptRequest:
    """The body that resumes or replaces an attempt on this order."""
    return AttemptRequest(
        order_id=request.order_id,
        merchant_id=request.merchant_id,
        user_id=request.user_id,
        product=request.product,
        terminal=request.terminal,
    )


def new_submit(offer: Offer, choice: int, key: str, means: int, tampering: Tampering) -> Submit | None:
    """A submit of the method number `choice`, sometimes an unavailable one; None without methods.

    `means`: the number of the card, code or option.
    """
    listed = offer.consultation.methods
    if not listed:
        return None
    available = [method for method in listed if method.availability is Availability.AVAILABLE]
    methods = available if available and choice % 8 else listed
    method = methods[choice % len(methods)]
    consulted = offer.request
    option = _option(method, means + (tampering is Tampering.OPTION))
    amounts = (option.amount if option is not None else None) or method.amount
    request = PaymentRequest(
        consult_token=offer.consultation.consult_token,
        order_id=consulted.order_id,
        user_id=consulted.user_id,
        merchant_id=consulted.merchant_id,
        product=consulted.product,
        terminal=consulted.terminal,
        country=consulted.country,
        method_id=method.method_id,
        option_id=None if option is None else option.option_id,
        expected_payable=_price(offer, amounts, tampering),
        promotion_ids=_promotions(amounts, tampering),
        chosen_promotions=() if tampering is Tampering.COUPONS else consulted.chosen_promotions,
        device=Device(ip="192.0.2.1") if tampering is Tampering.DEVICE else None,
        **_means(method.kind, means),
    )
    return Submit(request, key)


def _option(method: PayMethod, number: int) -> Option | None:
    return method.options[number % len(method.options)] if method.options and number % 8 != 7 else None


def _price(offer: Offer, amounts: Amounts | None, tampering: Tampering) -> Money:
    price = offer.consultation.order.amount if amounts is None else amounts.payable
    return Money(price.currency, max(0, price.value - 1)) if tampering is Tampering.PRICE else price


def _promotions(amounts: Amounts | None, tampering: Tampering) -> tuple[str, ...]:
    promotion_ids = tuple(discount.promotion_id for discount in amounts.discounts) if amounts is not None else ()
    return promotion_ids[1:] if tampering is Tampering.PROMOTION else promotion_ids


def _means(kind: Kind, number: int) -> dict[str, Any]:
    """A card token: accepted, challenged or declined. A code: pays now, later or never."""
    match kind:
        case Kind.CARD:
            card_token = ("tok_1", "tok_3ds_1", "tok_declined_1")[number % 3]
            return {"card_token": card_token, "return_url": "https://shop.example/back"}
        case Kind.CONSUMER_QR:
            return {"auth_code": ("13", "28", "62")[number % 3] + "0" * 15 + "089"[number // 3 % 3]}
        case _:
            return {"return_url": "https://shop.example/back"}
