"""What payers of the model try: orders of several people, any method that they were shown, and bodies that differ in something."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from cashier.consultation.flow import Consultation
from cashier.domain.money import Money
from cashier.domain.order import ConsultRequest
from cashier.domain.pay_method import Amounts, Availability, Kind, Option, PayMethod
from cashier.domain.payment_id import fingerprint, payment_id
from cashier.domain.payment_request import Device, PaymentRequest
from cashier.sandbox import CASES

# Of u_1 several, who share a balance and promotions; of others; of guests; of a listed user; paid, withdrawn and in progress at the start.
CHINESE = (
    "chinese_shop",
    "balance_is_enough",
    "discounted_to_zero",
    "guest_order",
    "scan_to_pay",
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


class Twist(StrEnum):
    """How a body differs from an honest one."""

    HONEST = "honest"
    PRICE = "a lower price"
    PROMOTION = "a promotion left out"
    DEVICE = "another device"
    OPTION = "another option"


class Offer(Struct, frozen=True):
    question: ConsultRequest
    consultation: Consultation


class Submit(Struct, frozen=True):
    """What a client sends, and sends again."""

    request: PaymentRequest
    key: str

    @property
    def payment_id(self) -> str:
        return payment_id(self.request.merchant_id, self.request.order_id, self.key)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.request.chosen, self.request.means)


def question(case: str) -> ConsultRequest:
    return msgspec.convert(CASES[case].request, ConsultRequest)


def submit(offer: Offer, place: int, key: str, means: int, twist: Twist) -> Submit | None:
    """By the method at `place`, now and then one that is said to be no use; None where none is shown. `means`: which card, code, option."""
    shown = offer.consultation.methods
    if not shown:
        return None
    usable = [method for method in shown if method.availability is Availability.AVAILABLE]
    these = usable if usable and place % 8 else shown
    method = these[place % len(these)]
    asked = offer.question
    option = _option(method, means + (twist is Twist.OPTION))
    amounts = (option.amount if option is not None else None) or method.amount
    request = PaymentRequest(
        consult_token=offer.consultation.consult_token,
        order_id=asked.order_id,
        user_id=asked.user_id,
        merchant_id=asked.merchant_id,
        product=asked.product,
        terminal=asked.terminal,
        country=asked.country,
        method_id=method.method_id,
        option_id=None if option is None else option.option_id,
        expected_payable=_price(offer, amounts, twist),
        promotion_ids=_promotions(amounts, twist),
        device=Device(ip="192.0.2.1") if twist is Twist.DEVICE else None,
        **_means(method.kind, means),
    )
    return Submit(request, key)


def _option(method: PayMethod, place: int) -> Option | None:
    return method.options[place % len(method.options)] if method.options and place % 8 != 7 else None


def _price(offer: Offer, amounts: Amounts | None, twist: Twist) -> Money:
    price = offer.consultation.order.amount if amounts is None else amounts.payable
    return Money(price.currency, max(0, price.value - 1)) if twist is Twist.PRICE else price


def _promotions(amounts: Amounts | None, twist: Twist) -> tuple[str, ...]:
    found = tuple(discount.promotion_id for discount in amounts.discounts) if amounts is not None else ()
    return found[1:] if twist is Twist.PROMOTION else found


def _means(kind: Kind, place: int) -> dict[str, Any]:
    """A card token that is taken, asks for 3-D Secure, or is declined; a code that pays at once, later, or never."""
    match kind:
        case Kind.CARD:
            card_token = ("tok_1", "tok_3ds_1", "tok_declined_1")[place % 3]
            return {"card_token": card_token, "return_url": "https://shop.example/back"}
        case Kind.CONSUMER_QR:
            return {"auth_code": ("13", "28", "62")[place % 3] + "0" * 15 + "089"[place // 3 % 3]}
        case _:
            return {"return_url": "https://shop.example/back"}
