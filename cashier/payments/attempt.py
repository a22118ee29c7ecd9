"""Attempt: one payment being accepted, from the submit or from the token that a challenge left behind."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from cashier.domain.catalog import Catalog
from cashier.domain.challenge_progress import CarriedChallenge
from cashier.domain.money import Money
from cashier.domain.offer_diff import AcceptedOffer
from cashier.domain.order import ConsultRequest
from cashier.domain.pan import payment_pan_fields
from cashier.domain.pay_method import Kind
from cashier.domain.payment_id import fingerprint, payment_id
from cashier.domain.payment_request import ChosenFields, Device, HandedOver, IdempotencyKey, PaymentRequest
from cashier.domain.status_resolution import PaymentProgress
from cashier.payments.errors import FieldFault, Invalid
from cashier.tokens.consult_token import ConsultClaims, OfferedPrice
from cashier.tokens.payment_token import PaymentClaims, TokenRoute

# Where a kind has no time of its own: as long as most cashier pages stay open.
LIFE_S = 900
# A token outlives what the payer can do: money by transfer comes days late, and somebody may want to know what became of it.
LOOKING_S = 7 * 86_400

_KINDS = frozenset(Kind)


class Attempt(Struct, frozen=True, kw_only=True):
    """`amount` and `offered`: what the consult token says of the order and of the chosen method. `trip` is of this call."""

    payment_id: str
    fingerprint: str
    chosen: ChosenFields
    means: HandedOver
    kind: Kind
    amount: Money
    offered: OfferedPrice | None
    trip: Any
    device: Device = Device()

    @property
    def before(self) -> AcceptedOffer:
        """What was offered."""
        return AcceptedOffer(self.amount, self.offered)

    def question(self, *, claiming: bool) -> ConsultRequest:
        """The consultation of this choice. With the order's amount as a claim everybody can be asked at once."""
        chosen = self.chosen
        return ConsultRequest(
            order_id=chosen.order_id,
            user_id=chosen.user_id,
            merchant_id=chosen.merchant_id,
            product=chosen.product,
            terminal=chosen.terminal,
            locale=chosen.locale,
            amount=self.amount if claiming else None,
            country=chosen.country if claiming else None,
        )

    def claims(
        self,
        now_s: int,
        expires_at: int,
        *,
        sent_at: int | None = None,
        challenge: CarriedChallenge | None = None,
        route: TokenRoute | None = None,
    ) -> PaymentClaims:
        """What the payer's token has to say from here on."""
        return PaymentClaims(
            iat=now_s,
            exp=max(expires_at, now_s) + LOOKING_S,
            payment_id=self.payment_id,
            kind=self.kind,
            chosen=self.chosen,
            expires_at=expires_at,
            order_amount=self.amount,
            offered=self.offered,
            route=route,
            sent_at=sent_at,
            challenge=challenge,
            means=self.means,
            fingerprint=self.fingerprint,
        )


def bounded(request: PaymentRequest, idempotency_key: str) -> PaymentRequest:
    """The request within its bounds, and without a card number: whoever calls it, from wherever.

    Raises `Invalid` for a card number and for a key that is none; msgspec.ValidationError for a request that breaks its types' bounds.
    """
    try:
        msgspec.convert(idempotency_key, IdempotencyKey)
    except msgspec.ValidationError:
        raise Invalid((FieldFault("Idempotency-Key", "INVALID", "must be 1 to 64 of A-Za-z0-9_-"),)) from None
    plain = msgspec.to_builtins(request)
    refuse_card_numbers({**plain, "Idempotency-Key": idempotency_key})
    found: PaymentRequest = msgspec.convert(plain, PaymentRequest)
    return found


def refuse_card_numbers(told: Any) -> None:
    """Raises `Invalid`, which names where they are and nothing of them."""
    found = payment_pan_fields(told)
    if found:
        raise Invalid(
            tuple(
                FieldFault(path, "LOOKS_LIKE_PAN", "looks like a card number, and none may come here") for path in found
            )
        )


def submitted(
    request: PaymentRequest, idempotency_key: str, claims: ConsultClaims, catalog: Catalog, trip: Any
) -> Attempt:
    """The attempt that a submit asks for. Raises `Invalid` for one that names no way to pay, or not what that way needs."""
    chosen = request.chosen
    kind = _kind(chosen.method_id)
    _refuse_missing(request, catalog.methods[kind].required_fields)
    return Attempt(
        payment_id=payment_id(chosen.merchant_id, chosen.order_id, idempotency_key),
        fingerprint=fingerprint(chosen, request.means),
        chosen=chosen,
        means=_needed(request.means, kind),
        kind=kind,
        amount=claims.order_amount,
        offered=claims.offered(chosen.method_id, chosen.option_id),
        trip=trip,
        device=request.device or Device(),
    )


def resumed(claims: PaymentClaims, trip: Any) -> Attempt:
    """The same attempt, from its token. What was told of the device is in no token."""
    return Attempt(
        payment_id=claims.payment_id,
        fingerprint=claims.fingerprint,
        chosen=claims.chosen,
        means=claims.means,
        kind=claims.kind,
        amount=claims.order_amount,
        offered=claims.offered,
        trip=trip,
    )


def underway(claims: PaymentClaims, catalog: Catalog) -> PaymentProgress:
    """As `standing` wants it. A token from before the submit knows when its challenge ends, and not until when the payer may act where it
    was passed elsewhere: then as late as it could have been."""
    later_s = 0 if claims.sent_at is not None else catalog.methods[claims.kind].expires_in_s or LIFE_S
    return PaymentProgress(
        payment_id=claims.payment_id,
        kind=claims.kind,
        expires_at=claims.expires_at + later_s,
        sent_at=claims.sent_at,
        challenge=claims.challenge,
        cancelled=claims.cancelled,
        told=claims.told,
    )


def acts_until(kind: Kind, catalog: Catalog, now: datetime, order_ends: datetime | None = None) -> int:
    """Until when the payer may act, in seconds since 1970: as long as the kind allows, and never longer than the order lives."""
    ends_s = int(now.timestamp()) + (catalog.methods[kind].expires_in_s or LIFE_S)
    return ends_s if order_ends is None else min(ends_s, int(order_ends.timestamp()))


def order_key(chosen: ChosenFields) -> str:
    """An order is a merchant's: the same id of another merchant is another order."""
    return f"{chosen.merchant_id}/{chosen.order_id}"


def _kind(method_id: str) -> Kind:
    name = method_id.partition(":")[0]
    if name not in _KINDS:
        raise Invalid(
            (FieldFault("method_id", "UNKNOWN_VALUE", "names no way to pay; take one that the consultation told"),)
        )
    return Kind(name)


def _needed(means: HandedOver, kind: Kind) -> HandedOver:
    """What is of no use for this kind goes no further: nobody looks for a card number in a payer's code."""
    card_token = means.card_token if kind is Kind.CARD else None
    return HandedOver(
        card_token=card_token,
        auth_code=means.auth_code if kind is Kind.CONSUMER_QR else None,
        return_url=means.return_url,
    )


def _refuse_missing(request: PaymentRequest, names: tuple[str, ...]) -> None:
    """Where there is nothing to pay, there is nothing to pay with."""
    missing = [name for name in names if getattr(request, name, None) is None] if request.expected_payable.value else []
    if missing:
        raise Invalid(
            tuple(
                FieldFault(name, "MISSING", f"is required to pay by {request.method_id.partition(':')[0]}")
                for name in missing
            )
        )
