"""Attempt recovery: an order's payer finds, resumes or replaces an attempt whose token is lost.

Everything comes from the engine's look, after the proof that the attempt is the caller's own: the
same user, order and merchant. A foreign attempt gets the same answer as none at all. What the
engine reports makes a token that can look, follow and cancel. It has no card token and no code, and
needs none: a payment that the engine knows is never sent again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from cashier.consultation.answer import Consultation, ConsultationWithCase, ConsultError, RequiredSourceUnavailable
from cashier.domain.engine_contract import EngineAnswered, EnginePayment, LookUpOutcome, ReversalReason
from cashier.domain.money import Money
from cashier.domain.next_action import ending_by, expiry
from cashier.domain.order import ConsultRequest, Instant, epoch_s
from cashier.domain.order_checks import OWNERSHIP_BLOCKS
from cashier.domain.order_result import AcquirerResult, OrderResult
from cashier.domain.pay_method import Kind
from cashier.domain.payment_id import PAYMENT_ID
from cashier.domain.payment_message import Message
from cashier.domain.payment_request import AttemptRequest, PaymentChoice, PaymentMeans
from cashier.domain.payment_resource import FoundPayment, Payment, RouteTaken, message
from cashier.domain.payment_state import PaymentStatus
from cashier.domain.status_resolution import PaymentProgress, resolve_status
from cashier.domain.upstream_report import AcquirerReport, AcquirerReportStatus, EngineReportStatus
from cashier.payments.attempt import (
    QUERYABLE_S,
    Attempt,
    kind_of,
    lifetime_s,
    order_key,
    payment_progress,
    sent_since,
)
from cashier.payments.attempt_guard import LIVE_STATUSES, AttemptGuard
from cashier.payments.coalescing import SingleFlight
from cashier.payments.errors import (
    AcceptError,
    Invalid,
    NoSuchAttempt,
    NotResumable,
    OrderBusy,
    StatusUnavailable,
)
from cashier.payments.policy import Operation
from cashier.payments.ports import PaymentPorts
from cashier.payments.status_follower import StatusFollower
from cashier.payments.status_query import StatusQuery, UpstreamStatus, upstream_status
from cashier.source_errors import Unanswered, WrongIdentity
from cashier.tokens.payment_state_token import PaymentClaims

_log = structlog.get_logger("cashier.payments")
_PAYMENT_ID = re.compile(PAYMENT_ID)
# The order can be paid again after these, as far as the attempt is concerned.
_UNPAID = frozenset({PaymentStatus.FAILED, PaymentStatus.CLOSED})


class ReplacedPayment(Struct, frozen=True, kw_only=True):
    """The old attempt, which is over, in the fields of a `Payment`.

    `consultation`: a fresh one to choose from; None if the order is paid, if its money goes back,
    or if a source did not answer. An attempt that was never sent has no amount, token or deadline.
    """

    payment_id: str
    order_id: str
    status: PaymentStatus
    amount: Money | None
    challenge: None = None
    next_action: None = None
    route: RouteTaken | None = None
    message: Message
    poll_after_ms: None = None
    payment_token: str | None
    expires_at: Instant | None
    consultation: Consultation | None


class AttemptRecovery:
    """`now` is the wall clock."""

    def __init__(
        self,
        ports: PaymentPorts,
        status_query: StatusQuery,
        status_follower: StatusFollower,
        attempt_guard: AttemptGuard,
        most_under_way: int,
        now: Callable[[], datetime],
    ) -> None:
        self._ports = ports
        self._status_query = status_query
        self._status_follower = status_follower
        self._attempt_guard = attempt_guard
        self._now = now
        self._looks: SingleFlight[UpstreamStatus] = SingleFlight(most_under_way, expected=(AcceptError,))
        self._noted_missing_user = False

    def __repr__(self) -> str:
        return f"<AttemptRecovery {self._looks!r}>"

    async def drain(self) -> None:
        """Wait until no look is under way."""
        await self._looks.drain()

    async def find(self, request: AttemptRequest, operation: Operation) -> FoundPayment:
        """The attempt that the acquirer names for the order: the live one, or the last.

        Raises `NoSuchAttempt`, also for another payer's; `NotResumable`, `StatusUnavailable`,
        `OrderUnknown`, `TooManyPayments`.
        """
        order = order_key(request)
        upstream = await self._looks.run(order, lambda: self._look_at_order(order, request.order_id, operation))
        if upstream.payment is None:
            raise NoSuchAttempt
        if upstream.payment.user_id is None:
            self._note_missing_user()
            raise NoSuchAttempt
        claims = await self._claims(upstream.payment, upstream.acquirer, request, operation)
        resolution = self._status_query.resolution(payment_progress(claims, operation.policy), upstream)
        payment = self._status_follower.present(claims, operation.policy, resolution)
        return FoundPayment(
            payment_id=payment.payment_id,
            order_id=payment.order_id,
            status=payment.status,
            method_id=claims.chosen.method_id,
            option_id=claims.chosen.option_id,
            kind=claims.kind,
            amount=payment.amount,
            next_action=payment.next_action,
            message=payment.message,
            poll_after_ms=payment.poll_after_ms,
            expires_at=payment.expires_at,
            can_resume=not resolution.final,
        )

    async def resume(self, payment_id: str, request: AttemptRequest, operation: Operation) -> Payment:
        """The payment with a new token, which works from any device. Raises what `find` does."""
        upstream = await self._look(payment_id, request.order_id, operation)
        if upstream.payment is None:
            raise NotResumable
        claims = await self._claims(upstream.payment, upstream.acquirer, request, operation)
        return await self._status_follower.current(claims, operation, upstream)

    async def replace(self, payment_id: str, request: AttemptRequest, operation: Operation) -> ReplacedPayment:
        """End the attempt for good, so that the payer may choose again.

        Raises `OrderBusy` unless engine and acquirer confirm that it is over; else as `find`.
        """
        upstream = await self._look(payment_id, request.order_id, operation)
        if _has_no_payer(upstream):
            return await self._replace_unsent(payment_id, request, operation)
        assert upstream.payment is not None  # noqa: S101  such an attempt has no payer
        return await self._replace_sent(upstream.payment, upstream, request, operation)

    async def for_its_payer(self, busy: OrderBusy, attempt: Attempt) -> OrderBusy:
        """`busy` with the action and deadline of the live attempt, if it is of the same payer."""
        chosen, operation = attempt.chosen, attempt.operation
        if chosen.user_id is None or not _PAYMENT_ID.fullmatch(busy.payment_id):
            return busy
        looked_up = await self._ports.engine.look_up(
            busy.payment_id, chosen.order_id, operation.call_headers, operation.policy.settings.look_ms
        )
        if not isinstance(looked_up, EngineAnswered):
            return busy
        live = looked_up.payment
        same_payer = live.user_id == chosen.user_id and live.merchant_id in (None, chosen.merchant_id)
        if not same_payer or live.status not in LIVE_STATUSES:
            return busy
        ends_at = live.expires_at or expiry(live.next_action)
        action = live.next_action
        if attempt.order_expires_at is not None:
            latest = datetime.fromtimestamp(attempt.order_expires_at, UTC)
            ends_at = min(ends_at or latest, latest)
            action = action and ending_by(action, latest)
        return OrderBusy(busy.payment_id, action, ends_at)

    async def _replace_sent(
        self, payment: EnginePayment, upstream: UpstreamStatus, request: AttemptRequest, operation: Operation
    ) -> ReplacedPayment:
        claims = replace(await self._claims(payment, upstream.acquirer, request, operation), cancelled=True)
        resolved = await self._status_follower.resolve(claims, operation, upstream)
        if not resolved.resolution.final or _holds_order(resolved.upstream.acquirer, payment.payment_id):
            deadline = datetime.fromtimestamp(claims.expires_at, UTC)
            action = payment.next_action and ending_by(payment.next_action, deadline)
            raise OrderBusy(payment.payment_id, action, deadline)
        over = self._status_follower.present(claims, operation.policy, resolved.resolution)
        return ReplacedPayment(
            payment_id=over.payment_id,
            order_id=over.order_id,
            status=over.status,
            amount=over.amount,
            message=over.message,
            payment_token=over.payment_token,
            expires_at=over.expires_at,
            consultation=await self._fresh_offer(request, operation) if over.status in _UNPAID else None,
        )

    async def _replace_unsent(self, payment_id: str, request: AttemptRequest, operation: Operation) -> ReplacedPayment:
        """Of an attempt that never reached the engine, such as a challenge.

        It may be on its way, so the engine has to refuse it first. Whose it is the worker knows
        that took it. Any other has to take the order for proof, unless that names no user.
        """
        order, own = await self._own_order(request, operation), (order_key(request), request.user_id)
        taken_for = self._attempt_guard.taken_for(payment_id) or (own if order.names_user else None)
        if taken_for != own:
            raise NoSuchAttempt
        upstream = await self._status_query.reverse(payment_id, request.order_id, ReversalReason.CANCELLED, operation)
        if upstream.payment is not None and not _has_no_payer(upstream):
            # It arrived meanwhile.
            return await self._replace_sent(upstream.payment, upstream, request, operation)
        unsent = _unsent(payment_id, self._now())
        resolution = resolve_status(unsent, upstream.engine, upstream.acquirer, self._now())
        if not resolution.final or _holds_order(upstream.acquirer, payment_id):
            raise OrderBusy(payment_id)
        await self._attempt_guard.mark_ended(order_key(request), payment_id)
        return ReplacedPayment(
            payment_id=payment_id,
            order_id=request.order_id,
            status=resolution.status,
            amount=None,
            message=message(resolution.message, unsent.kind, operation.policy.catalog.wording(request.locale)),
            payment_token=None,
            expires_at=None,
            consultation=order.consultation if resolution.status in _UNPAID else None,
        )

    async def _look_at_order(self, order: str, order_id: str, operation: Operation) -> UpstreamStatus:
        """The attempt that the acquirer names, at the engine. Two calls.

        If it names none, the one that this worker or the shared store knows, unless it failed.
        """
        look_ms = operation.policy.settings.look_ms
        result = await self._ports.acquirer.result(order_id, operation.call_headers, look_ms)
        if isinstance(result, Unanswered):
            raise StatusUnavailable(("acquirer",))
        named = result.payment_id if isinstance(result, OrderResult) else None
        payment_id = named or await self._attempt_guard.live_or_paid(order)
        # An id of another system is no attempt of ours, and does not go into a request.
        if payment_id is None or not _PAYMENT_ID.fullmatch(payment_id):
            raise NoSuchAttempt
        looked_up = await self._ports.engine.look_up(payment_id, order_id, operation.call_headers, look_ms)
        upstream = _answered(looked_up, result)
        if named is None and upstream.engine.status is EngineReportStatus.FAILED:
            raise NoSuchAttempt
        return upstream

    async def _look(self, payment_id: str, order_id: str, operation: Operation) -> UpstreamStatus:
        """Engine and acquirer about one payment. Raises `NoSuchAttempt`, `StatusUnavailable`.

        What has not the form of our ids is no attempt of ours, and does not go into a request.
        """
        if not _PAYMENT_ID.fullmatch(payment_id):
            raise NoSuchAttempt
        return await self._looks.run(f"{payment_id} {order_id}", lambda: self._look_at(payment_id, order_id, operation))

    async def _look_at(self, payment_id: str, order_id: str, operation: Operation) -> UpstreamStatus:
        look_ms = operation.policy.settings.look_ms
        looked_up, result = await asyncio.gather(
            self._ports.engine.look_up(payment_id, order_id, operation.call_headers, look_ms),
            self._ports.acquirer.result(order_id, operation.call_headers, look_ms),
        )
        return _answered(looked_up, result)

    async def _claims(
        self, payment: EnginePayment, acquirer: AcquirerReport, request: AttemptRequest, operation: Operation
    ) -> PaymentClaims:
        """The claims of a new token, after the proof that the payment is the caller's own.

        Raises `NoSuchAttempt` if it is not; `NotResumable` if the engine reports too little.
        """
        if payment.user_id is None:
            raise NotResumable("user_id")
        if payment.user_id != request.user_id or payment.merchant_id not in (None, request.merchant_id):
            raise NoSuchAttempt
        if payment.order_id is None:
            _require_named(payment.payment_id, acquirer)
        order_amount, order_expires_at = payment.amount, None
        if payment.merchant_id is None or order_amount is None:
            order = (await self._own_order(request, operation)).consultation.order
            order_amount, order_expires_at = order.amount, epoch_s(order.expires_at)
        choice = _choice(payment, request, payment.amount or order_amount)
        try:
            kind = kind_of(choice.method_id)
        except Invalid:
            raise NotResumable("method_id") from None
        since, now_s = sent_since(payment, self._now()), int(self._now().timestamp())
        # The engine was given an end within the kind's lifetime and the order's, whatever it
        # promises now.
        deadline = since + timedelta(seconds=lifetime_s(kind, operation.policy.catalog))
        deadline = max(since, min(deadline, payment.expires_at or expiry(payment.next_action) or deadline))
        expires_at = min(int(deadline.timestamp()), order_expires_at or int(deadline.timestamp()))
        return PaymentClaims(
            iat=now_s,
            exp=max(expires_at, now_s) + QUERYABLE_S,
            payment_id=payment.payment_id,
            kind=kind,
            chosen=choice,
            expires_at=expires_at,
            order_expires_at=order_expires_at,
            order_amount=order_amount,
            sent_at=int(since.timestamp()),
            means=PaymentMeans(),
            # Without one, a later look that has one ends the token, but not the payment.
            fingerprint=payment.fingerprint or "",
        )

    async def _own_order(self, request: AttemptRequest, operation: Operation) -> ConsultationWithCase:
        """A fresh consultation. Raises `NoSuchAttempt` if the order is not the caller's."""
        try:
            fresh = await operation.policy.consult_uncached(_consult_request(request), operation.call_headers)
        except RequiredSourceUnavailable as unavailable:
            raise StatusUnavailable(unavailable.failed) from None
        blocked = fresh.consultation.blocked
        if blocked is not None and blocked.code in OWNERSHIP_BLOCKS:
            raise NoSuchAttempt
        return fresh

    def _note_missing_user(self) -> None:
        """Once: it holds for the engine, or for walk-in payers."""
        if not self._noted_missing_user:
            self._noted_missing_user = True
            _log.info("an attempt without user_id in the engine's answer: no payer can find such attempts")

    async def _fresh_offer(self, request: AttemptRequest, operation: Operation) -> Consultation | None:
        """None if there is none now: the old attempt is over all the same."""
        try:
            return (await self._own_order(request, operation)).consultation
        except (AcceptError, ConsultError):
            return None


def _answered(outcome: LookUpOutcome, result: AcquirerResult) -> UpstreamStatus:
    """Raises `NoSuchAttempt` for an answer about another order; `StatusUnavailable` for none."""
    if isinstance(outcome, Unanswered):
        if isinstance(outcome.error, WrongIdentity):
            raise NoSuchAttempt
        raise StatusUnavailable(("engine",))
    return upstream_status(outcome, result)


def _unsent(payment_id: str, now: datetime) -> PaymentProgress:
    """What is known of an attempt that the engine refuses. Its end does not depend on its kind."""
    now_s = int(now.timestamp())
    return PaymentProgress(payment_id=payment_id, kind=Kind.BALANCE, expires_at=now_s, sent_at=now_s, cancelled=True)


def _require_named(payment_id: str, acquirer: AcquirerReport) -> None:
    """The acquirer's proof that a payment is the order's, if the engine does not name its order."""
    if acquirer.status is AcquirerReportStatus.SILENT:
        raise StatusUnavailable(("acquirer",))
    if acquirer.payment_id != payment_id:
        raise NotResumable("order_id")


def _has_no_payer(upstream: UpstreamStatus) -> bool:
    """Whether it never reached the engine, or was refused by it before it could."""
    payment = upstream.payment
    return payment is None or (payment.user_id is None and upstream.engine.status is EngineReportStatus.FAILED)


def _holds_order(acquirer: AcquirerReport, payment_id: str) -> bool:
    """Whether the acquirer does not agree yet that the attempt is over."""
    return acquirer.status is AcquirerReportStatus.PAYING and acquirer.payment_id in (None, payment_id)


def _choice(payment: EnginePayment, request: AttemptRequest, amount: Money) -> PaymentChoice:
    """Raises `NotResumable`."""
    try:
        return msgspec.convert(
            {
                **msgspec.to_builtins(request),
                "method_id": payment.method_id,
                "option_id": payment.option_id,
                "expected_payable": msgspec.to_builtins(amount),
            },
            PaymentChoice,
        )
    except msgspec.ValidationError:
        raise NotResumable("method_id") from None


def _consult_request(request: AttemptRequest) -> ConsultRequest:
    return msgspec.convert(msgspec.to_builtins(request), ConsultRequest)
