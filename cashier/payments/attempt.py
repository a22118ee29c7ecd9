"""One payment attempt, built from a submit or from the payment token that a challenge returned."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from cashier.domain.catalog import Catalog
from cashier.domain.challenge_progress import ChallengeProgress
from cashier.domain.engine_contract import EnginePayment
from cashier.domain.kinds import KINDS, InstrumentSource
from cashier.domain.money import Money
from cashier.domain.offer_diff import AcceptedOffer
from cashier.domain.order import ConsultRequest
from cashier.domain.pan import payment_pan_fields
from cashier.domain.pay_method import Kind
from cashier.domain.payment_id import fingerprint, payment_id
from cashier.domain.payment_request import (
    AttemptRequest,
    Device,
    IdempotencyKey,
    PaymentChoice,
    PaymentMeans,
    PaymentRequest,
)
from cashier.domain.poll_schedule import arrival_s
from cashier.domain.status_resolution import PaymentProgress
from cashier.payments.errors import FieldFault, Invalid
from cashier.payments.policy import Operation, PaymentPolicy
from cashier.tokens.consult_token import ConsultClaims, OfferedPrice
from cashier.tokens.payment_state_token import PaymentClaims, TokenRoute

# For kinds that show the payer nothing that runs out: as long as most cashier pages stay open.
DEFAULT_LIFE_S = 900
# A token outlives the payer's deadline: bank transfers arrive days late, and the caller may still
# ask for the result.
QUERYABLE_S = 7 * 86_400

_KINDS = frozenset(Kind)


class Attempt(Struct, frozen=True, kw_only=True):
    """`amount` and `offered`: the order and the chosen method according to the consult token.

    `order_expires_at`: the end of the order as last reported, in seconds since 1970; None if only a
    token of an older version is there. `operation` is the current one.
    """

    payment_id: str
    fingerprint: str
    chosen: PaymentChoice
    means: PaymentMeans
    kind: Kind
    amount: Money
    order_expires_at: int | None
    offered: OfferedPrice | None
    operation: Operation
    device: Device = Device()

    @property
    def accepted_offer(self) -> AcceptedOffer:
        return AcceptedOffer(self.amount, self.offered)

    def consult_request(self, *, with_claims: bool) -> ConsultRequest:
        """The consultation that rechecks this choice.

        With amount and country claimed, all sources start at once.
        """
        chosen = self.chosen
        return ConsultRequest(
            order_id=chosen.order_id,
            user_id=chosen.user_id,
            merchant_id=chosen.merchant_id,
            product=chosen.product,
            terminal=chosen.terminal,
            locale=chosen.locale,
            amount=self.amount if with_claims else None,
            country=chosen.country if with_claims else None,
            chosen_promotions=chosen.chosen_promotions,
        )

    def payer_deadline_s(self, now: datetime) -> int:
        """The end of the payer's time to act, from `now` on.

        The kind's lifetime, cut at the order's end. In seconds since 1970.
        """
        return self.within_order(int(now.timestamp()) + lifetime_s(self.kind, self.operation.policy.catalog))

    def within_order(self, time_s: int) -> int:
        """Cut a time at the order's end. Both in seconds since 1970."""
        return time_s if self.order_expires_at is None else min(time_s, self.order_expires_at)

    def order_ended(self, now_s: int) -> bool:
        return self.order_expires_at is not None and self.order_expires_at <= now_s

    def claims(
        self,
        now_s: int,
        expires_at: int,
        *,
        sent_at: int | None = None,
        challenge: ChallengeProgress | None = None,
        route: TokenRoute | None = None,
        promotion_titles: dict[str, str] | None = None,
    ) -> PaymentClaims:
        """The claims of a new payment token. Times in seconds since 1970.

        After the submit nothing compares the offer any more. It may be long, and a token that is
        too long must not be found after the submit.
        """
        return PaymentClaims(
            iat=now_s,
            exp=max(expires_at, now_s) + QUERYABLE_S,
            payment_id=self.payment_id,
            kind=self.kind,
            chosen=self.chosen,
            expires_at=expires_at,
            order_expires_at=self.order_expires_at,
            order_amount=self.amount,
            offered=self.offered if sent_at is None else None,
            route=route,
            promotion_titles=promotion_titles or {},
            sent_at=sent_at,
            challenge=challenge,
            means=self.means,
            fingerprint=self.fingerprint,
        )


def validated(request: PaymentRequest, idempotency_key: str) -> PaymentRequest:
    """Check bounds and refuse card numbers, also for callers that did not come over HTTP.

    Raises `Invalid` for a card number or a malformed key; msgspec.ValidationError for a field out
    of bounds.
    """
    try:
        msgspec.convert(idempotency_key, IdempotencyKey)
    except msgspec.ValidationError:
        raise Invalid((FieldFault("Idempotency-Key", "INVALID", "must be 1 to 64 of A-Za-z0-9_-"),)) from None
    plain = msgspec.to_builtins(request)
    refuse_card_numbers({**plain, "Idempotency-Key": idempotency_key})
    checked: PaymentRequest = msgspec.convert(plain, PaymentRequest)
    return checked


def checked(request: AttemptRequest) -> AttemptRequest:
    """Raises `Invalid` without a user; msgspec.ValidationError for a field out of bounds."""
    if request.user_id is None:
        raise Invalid((FieldFault("user_id", "MISSING", "is required"),))
    return msgspec.convert(msgspec.to_builtins(request), AttemptRequest)


def refuse_card_numbers(fields: Any) -> None:
    """Raise `Invalid` with the paths of fields that look like card numbers.

    The values are not repeated.
    """
    paths = payment_pan_fields(fields)
    if paths:
        raise Invalid(
            tuple(
                FieldFault(path, "LOOKS_LIKE_PAN", "looks like a card number; card numbers are not accepted")
                for path in paths
            )
        )


def attempt_from_request(
    request: PaymentRequest, idempotency_key: str, claims: ConsultClaims, operation: Operation
) -> Attempt:
    """Raises `Invalid` for an unknown payment method or a missing required field."""
    chosen = request.chosen
    kind = kind_of(chosen.method_id)
    _refuse_missing(request, operation.policy.catalog.methods[kind].required_fields)
    return Attempt(
        payment_id=payment_id(chosen.merchant_id, chosen.order_id, idempotency_key),
        fingerprint=fingerprint(chosen, request.means),
        chosen=chosen,
        means=_means_of_kind(request.means, kind),
        kind=kind,
        amount=claims.order_amount,
        order_expires_at=claims.order_expires_at,
        offered=claims.find_price(chosen.method_id, chosen.option_id),
        operation=operation,
        device=request.device or Device(),
    )


def attempt_from_token(claims: PaymentClaims, operation: Operation) -> Attempt:
    """The same attempt, without its device: no token carries that."""
    return Attempt(
        payment_id=claims.payment_id,
        fingerprint=claims.fingerprint,
        chosen=claims.chosen,
        means=claims.means,
        kind=claims.kind,
        amount=claims.order_amount,
        order_expires_at=claims.order_expires_at,
        offered=claims.offered,
        operation=operation,
    )


def payment_progress(claims: PaymentClaims, policy: PaymentPolicy) -> PaymentProgress:
    """What the token contributes to `resolve_status`."""
    # A token from before the submit knows when its challenge expires. If the challenge was passed
    # with another token, the payer may act for the kind's lifetime after that, so assume the latest
    # possible end.
    expires_at = claims.expires_at
    if claims.sent_at is None:
        expires_at += lifetime_s(claims.kind, policy.catalog)
        expires_at = min(expires_at, claims.order_expires_at or expires_at)
    return PaymentProgress(
        payment_id=claims.payment_id,
        kind=claims.kind,
        expires_at=expires_at,
        sent_at=claims.sent_at,
        arrival_s=arrival_s(policy.settings.submit_ms),
        challenge=claims.challenge,
        cancelled=claims.cancelled,
        last_status=claims.told,
        due=claims.chosen.expected_payable,
    )


def lifetime_s(kind: Kind, catalog: Catalog) -> int:
    return catalog.methods[kind].expires_in_s or DEFAULT_LIFE_S


def order_key(chosen: PaymentChoice | AttemptRequest) -> str:
    """Order ids are unique per merchant only."""
    return f"{chosen.merchant_id}/{chosen.order_id}"


def sent_since(payment: EnginePayment | None, now: datetime) -> datetime:
    """When the engine accepted the submit; now if it reports no credible time."""
    submitted_at = None if payment is None else payment.submitted_at
    if submitted_at is None or submitted_at <= now - timedelta(seconds=QUERYABLE_S):
        return now
    return min(submitted_at, now)


def kind_of(method_id: str) -> Kind:
    """Raises `Invalid`."""
    name = method_id.partition(":")[0]
    if name not in _KINDS:
        raise Invalid(
            (FieldFault("method_id", "UNKNOWN_VALUE", "names no payment method; take one from the consultation"),)
        )
    return Kind(name)


def _means_of_kind(means: PaymentMeans, kind: Kind) -> PaymentMeans:
    """Drop what this kind does not use.

    `payment_pan_fields` does not check an auth code, so it must go no further.
    """
    source = KINDS[kind].instrument_source
    return PaymentMeans(
        card_token=means.card_token if source is InstrumentSource.CARD_TOKEN else None,
        auth_code=means.auth_code if source is InstrumentSource.AUTH_CODE else None,
        return_url=means.return_url,
    )


def _refuse_missing(request: PaymentRequest, names: tuple[str, ...]) -> None:
    """An amount of zero needs no instrument, so it requires no fields."""
    missing = [name for name in names if getattr(request, name, None) is None] if request.expected_payable.value else []
    if missing:
        raise Invalid(
            tuple(
                FieldFault(name, "MISSING", f"is required to pay by {request.method_id.partition(':')[0]}")
                for name in missing
            )
        )
