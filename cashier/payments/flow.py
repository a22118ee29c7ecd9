"""Acceptance flow: submit, challenge, cancel, look, follow; find, resume, replace.

Constructs the parts, reads tokens, and shares concurrent runs. `acceptance` sends payments,
`status_follower` reports them, `attempt_recovery` serves payers without a token.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from cashier.consultation.answer import ConsultError
from cashier.domain.order import Product, Terminal
from cashier.domain.payment_request import AttemptRequest, PaymentChoice, PaymentRequest
from cashier.domain.payment_resource import ChallengeSent, FoundPayment, Payment, StreamTicket
from cashier.metrics.store import Store
from cashier.payments.acceptance import Acceptance
from cashier.payments.attempt import (
    Attempt,
    attempt_from_request,
    checked,
    refuse_card_numbers,
    validated,
)
from cashier.payments.attempt_guard import AttemptGuard
from cashier.payments.attempt_leases import AttemptLeases
from cashier.payments.attempt_recovery import AttemptRecovery, ReplacedPayment
from cashier.payments.background_queries import WatchedPayment
from cashier.payments.challenge_counts import ChallengeCounts
from cashier.payments.challenge_resend import ChallengeResender
from cashier.payments.channel_health import ChannelHealth
from cashier.payments.coalescing import FingerprintMismatch, SingleFlight
from cashier.payments.errors import (
    AcceptError,
    KeyReused,
)
from cashier.payments.learning import ForgetFacts, Learning
from cashier.payments.payment_metrics import PaymentMetrics
from cashier.payments.policy import Operation, PaymentPolicy
from cashier.payments.ports import PaymentPorts
from cashier.payments.remembering_engine import RememberingEngine
from cashier.payments.status_follower import StatusFollower
from cashier.payments.status_query import StatusQuery
from cashier.payments.step_feed import StepFeed
from cashier.payments.step_log import log_step, refusals_logged
from cashier.payments.submitter import Submitter
from cashier.tokens.consult_token import ConsultClaims
from cashier.tokens.jws import TokenRefused
from cashier.tokens.payment_state_token import PaymentClaims
from cashier.tokens.token_service import TokenService

_REFUSALS = (AcceptError, ConsultError, TokenRefused)
# A payment whose time is up may still have to be confirmed.
_LEAST_TICKET_S = 60


class PaymentFlow:
    """Takes payments through.

    Holds the runs under way in this worker, but no payments. `now` is the wall clock.
    `policy`: replaced by a reload. Each operation reads it once, at its start.
    """

    def __init__(
        self,
        ports: PaymentPorts,
        policy: PaymentPolicy,
        tokens: TokenService,
        channel_health: ChannelHealth,
        attempt_leases: AttemptLeases,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        call_headers: Callable[[str | None, str | None], Any],
        forget: ForgetFacts,
        metrics: Store | None = None,
        steps: StepFeed | None = None,
    ) -> None:
        counts = PaymentMetrics(metrics)
        self.policy = policy
        self.channel_health = channel_health
        engine = RememberingEngine(ports.engine, counts)
        self._ports = ports = replace(ports, engine=engine)
        self._tokens = tokens
        self._now = now
        self._call_headers = call_headers
        self._steps = steps
        self._runs: SingleFlight[Payment] = SingleFlight(
            policy.settings.most_under_way, join_running=True, expected=_REFUSALS
        )
        self._resends: SingleFlight[ChallengeSent] = SingleFlight(
            policy.settings.most_under_way, join_running=True, expected=_REFUSALS
        )
        self._status_query = StatusQuery(ports, policy.settings.most_under_way, now, counts)
        self._attempt_guard = AttemptGuard(attempt_leases, ports.engine)
        self._challenge_counts = ChallengeCounts(attempt_leases, counts)
        self._challenge_resender = ChallengeResender(ports.risk, self._challenge_counts, now)
        self._learning = Learning(forget, counts)
        self._status_follower = StatusFollower(
            status_query=self._status_query,
            attempt_guard=self._attempt_guard,
            channel_health=channel_health,
            learning=self._learning,
            counts=counts,
            sign=tokens.sign_payment_token,
            now=now,
            monotonic=monotonic,
        )
        self._attempt_recovery = AttemptRecovery(
            ports, self._status_query, self._status_follower, self._attempt_guard, policy.settings.most_under_way, now
        )
        self._acceptance = Acceptance(
            ports=ports,
            submitter=Submitter(ports.engine, channel_health, monotonic),
            status_query=self._status_query,
            status_follower=self._status_follower,
            attempt_guard=self._attempt_guard,
            attempt_recovery=self._attempt_recovery,
            challenge_counts=self._challenge_counts,
            learning=self._learning,
            counts=counts,
            now=now,
        )

    def __repr__(self) -> str:
        parts = (
            self._ports.engine,
            self._status_follower,
            self._attempt_guard,
            self._challenge_counts,
            self._learning,
        )
        return f"<PaymentFlow under_way={len(self._runs)} {' '.join(map(repr, parts))}>"

    def watched(self) -> Iterator[WatchedPayment]:
        """The payments that this worker sent and that have not ended."""
        return self._status_follower.watched()

    def stop_waiting(self) -> None:
        """End all waiting for good: long polls return what is known, streams end."""
        self._status_follower.stop_waiting()

    async def drain(self) -> None:
        """Wait until nothing is under way. The caller bounds the time."""
        await self._runs.drain()
        await self._resends.drain()
        await self._attempt_recovery.drain()
        await self._status_follower.drain()

    async def submit(
        self,
        request: PaymentRequest,
        idempotency_key: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """Accept a payment, or return the status of the payment that was accepted under this key.

        Continues if the caller is cancelled. Raises `TokenRefused`, `AcceptError` or
        `OrderUnknown`: then this call sent nothing, except for `InFlight`. Raises
        msgspec.ValidationError for a request out of bounds.
        """
        request = validated(request, idempotency_key)
        # Refuse a wrong token at once. An expired one matters only if the payment does not exist
        # yet: see `Acceptance.submit`.
        claims = self._tokens.read_consult_token(request.consult_token)
        claims.require_order(order_id=request.order_id, user_id=request.user_id, merchant_id=request.merchant_id)
        attempt = attempt_from_request(request, idempotency_key, claims, self._operation(request_id, traceparent))
        try:
            return await self._runs.run(
                attempt.payment_id, lambda: self._submit(attempt, claims), fingerprint=attempt.fingerprint
            )
        except FingerprintMismatch:
            # Another body is under way here, but another worker may have sent this one first.
            existing = await self._acceptance.existing(attempt)
            if existing is None:
                raise KeyReused from None
            return existing

    async def answer(
        self,
        payment_id: str,
        payment_token: str,
        value: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """Answer the challenge with `value`.

        If it is right, the same payment continues. Raises what `submit` does.
        """
        refuse_card_numbers({"value": value})
        claims = self._read_token(payment_id, payment_token)
        operation = self._operation(request_id, traceparent)
        # Two tabs with the same answer share a run. A different answer is a new run, and risk
        # counts it.
        challenge_id = claims.challenge.challenge_id if claims.challenge is not None else ""
        key = f"{payment_id} {hashlib.sha256(f'{claims.fingerprint} {challenge_id} {value}'.encode()).hexdigest()}"
        return await self._runs.run(key, lambda: self._answer(claims, value, operation))

    async def resend(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> ChallengeSent:
        """Send the code of the payment's open challenge again.

        Concurrent calls send it once. Raises `TokenRefused`, `NotResendable`, `ResendUnconfirmed`
        and `TooManyPayments`.
        """
        claims = self._read_token(payment_id, payment_token)
        operation = self._operation(request_id, traceparent)
        return await self._resends.run(payment_id, lambda: self._resend(claims, operation))

    async def cancel(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> Payment:
        """Cancel the payment if it is not paid.

        If it cannot end yet, later calls with the new token end it.

        Raises `TokenRefused`, `KeyReused` and `TooManyPayments`.
        """
        claims = replace(self._read_token(payment_id, payment_token), cancelled=True)
        operation = self._operation(request_id, traceparent)
        log_step("cancellation asked for", claims, operation, "cancel")
        with refusals_logged(claims, operation, "cancel", *_REFUSALS):
            return await self._status_follower.current(claims, operation)

    async def look(
        self,
        payment_id: str,
        payment_token: str,
        *,
        wait_ms: int = 0,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """Return the current status.

        With `wait_ms`: after a change, a final status, or that time.
        """
        claims = self._read_token(payment_id, payment_token)
        return await self._status_follower.look(
            claims, payment_token, self._operation(request_id, traceparent), wait_ms
        )

    async def follow(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Payment, None]:
        """Yield the status now and after each change, until a final one or `follow_s`.

        Raises what `look` does, before the first status only. Close the generator
        (`contextlib.aclosing`) if you stop early.
        """
        claims = self._read_token(payment_id, payment_token)
        async with aclosing(
            self._status_follower.follow(claims, payment_token, self._operation(request_id, traceparent))
        ) as payments:
            async for payment in payments:
                yield payment

    async def find(
        self,
        order_id: str,
        *,
        merchant_id: str,
        user_id: str,
        locale: str | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> FoundPayment:
        """The live or last attempt of the order, for its own payer.

        The caller vouches for `user_id`. Raises `NoSuchAttempt`, also for another payer's;
        `NotResumable`, `StatusUnavailable`, `OrderUnknown` and `TooManyPayments`;
        msgspec.ValidationError for a value out of bounds.
        """
        # Product and terminal do not matter to an attempt that exists.
        request = AttemptRequest(
            order_id=order_id,
            merchant_id=merchant_id,
            user_id=user_id,
            product=Product.STANDARD_CASHIER,
            terminal=Terminal.APP,
            locale=locale,
        )
        return await self._attempt_recovery.find(checked(request), self._operation(request_id, traceparent))

    async def resume(
        self,
        payment_id: str,
        request: AttemptRequest,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """The payment with a new token, for its own payer on any device.

        The caller vouches for `request.user_id`. Raises what `find` does, and `Invalid` without a
        user.
        """
        return await self._attempt_recovery.resume(
            payment_id, checked(request), self._operation(request_id, traceparent)
        )

    async def replace(
        self,
        payment_id: str,
        request: AttemptRequest,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> ReplacedPayment:
        """End the attempt for its own payer, and return a fresh consultation to choose from.

        Raises what `resume` does, and `OrderBusy` unless engine and acquirer confirm the end.
        """
        return await self._attempt_recovery.replace(
            payment_id, checked(request), self._operation(request_id, traceparent)
        )

    async def _submit(self, attempt: Attempt, claims: ConsultClaims) -> Payment:
        with refusals_logged(attempt, attempt.operation, "submit", *_REFUSALS):
            return await self._acceptance.submit(attempt, claims)

    async def _answer(self, claims: PaymentClaims, value: str, operation: Operation) -> Payment:
        with refusals_logged(claims, operation, "answer", *_REFUSALS):
            return await self._acceptance.answer(claims, value, operation)

    async def _resend(self, claims: PaymentClaims, operation: Operation) -> ChallengeSent:
        with refusals_logged(claims, operation, "resend", *_REFUSALS):
            return await self._challenge_resender.resend(claims, operation)

    def choice_of(self, payment_id: str, payment_token: str) -> PaymentChoice:
        """The payer's choice: it names order, user and merchant. Raises `TokenRefused`."""
        return self._tokens.read_payment_choice(payment_token, payment_id, self._now().timestamp())

    def issue_stream_ticket(self, payment_id: str, payment_token: str) -> StreamTicket:
        """A ticket for `read_stream_ticket`, until the payment expires or for a minute, if longer.

        Raises `TokenRefused`.
        """
        claims = self._read_token(payment_id, payment_token)
        expires_at = max(claims.expires_at, self._now_s() + _LEAST_TICKET_S)
        ticket = self._tokens.sign_stream_ticket(claims, expires_at)
        return StreamTicket(ticket=ticket, expires_at=datetime.fromtimestamp(expires_at, UTC))

    def read_stream_ticket(self, payment_id: str, ticket: str) -> PaymentClaims:
        """The state of the payment when the ticket was issued. Raises `TokenRefused`."""
        return self._tokens.read_stream_ticket(ticket, payment_id, self._now().timestamp())

    def follow_claims(
        self, claims: PaymentClaims, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Payment, None]:
        """As `follow`, for the claims of a ticket.

        The holder of a ticket must not get the payment tokens of what this yields.
        """
        return self._status_follower.follow(claims, "", self._operation(request_id, traceparent))

    def _read_token(self, payment_id: str, payment_token: str) -> PaymentClaims:
        return self._tokens.read_payment_token(payment_token, payment_id, self._now().timestamp())

    def _operation(self, request_id: str | None, traceparent: str | None) -> Operation:
        return Operation(self.policy, self._call_headers(request_id, traceparent), self._steps)

    def _now_s(self) -> int:
        return int(self._now().timestamp())
