"""Acceptance flow: submit, answer a challenge, cancel, look, follow.

Each starts from what engine and token already know.

submit                look up → token → recheck → risk → (challenge →) route, legs → engine → status
answer                look up → verify → recheck → route, legs → engine → status
cancel, look, follow  engine and acquirer → (reverse →) status
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from msgspec.structs import replace

from cashier.consultation.flow import ConsultError
from cashier.domain import poll_schedule
from cashier.domain.challenge_progress import (
    ChallengeProgress,
    ChallengeState,
    RiskChallengeTerms,
    after_wrong_answer,
    challenge_state,
    next_challenge,
)
from cashier.domain.engine_contract import EngineAnswered, EnginePayment
from cashier.domain.kinds import KINDS, InstrumentSource
from cashier.domain.order import Product, Terminal
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_request import AttemptRequest, PaymentChoice, PaymentRequest
from cashier.domain.payment_resource import FoundPayment, Payment, StreamTicket
from cashier.domain.payment_state import FINAL, PaymentEvent, PaymentStatus
from cashier.domain.risk_contract import (
    Accepted,
    Challenged,
    Expired,
    Inquiry,
    NoChallenge,
    Passed,
    Rejected,
    RiskChallenge,
    WrongAnswer,
)
from cashier.domain.status_mapping import engine_report
from cashier.domain.status_resolution import ResolvedStatus
from cashier.domain.upstream_report import EngineReportStatus
from cashier.payments.attempt import (
    Attempt,
    attempt_from_request,
    attempt_from_token,
    checked,
    order_key,
    refuse_card_numbers,
    sent_since,
    validated,
)
from cashier.payments.attempt_guard import AttemptGuard
from cashier.payments.attempt_leases import AttemptLeases
from cashier.payments.attempt_recovery import AttemptRecovery, ReplacedPayment
from cashier.payments.challenge_counts import ChallengeCounts
from cashier.payments.channel_health import ChannelHealth
from cashier.payments.coalescing import FingerprintMismatch, SingleFlight
from cashier.payments.errors import (
    AcceptError,
    CheckUnavailable,
    ConsultChanged,
    EngineUnavailable,
    KeyReused,
    OrderBusy,
    RiskRejected,
)
from cashier.payments.learning import ForgetFacts, Learning
from cashier.payments.policy import Operation, PaymentPolicy
from cashier.payments.ports import PaymentPorts
from cashier.payments.recheck import AlreadySubmitted, Recheck, RecheckedOffer, ended_order
from cashier.payments.remembering_engine import RememberingEngine
from cashier.payments.status_follower import StatusFollower
from cashier.payments.status_query import StatusQuery
from cashier.payments.submitter import Submitter
from cashier.source_errors import Unanswered
from cashier.tokens.consult_token import ConsultClaims
from cashier.tokens.jws import TokenRefused
from cashier.tokens.payment_state_token import PaymentClaims
from cashier.tokens.token_service import TokenService

_log = structlog.get_logger("cashier.payments")
# A payment whose time is up may still have to be confirmed.
_LEAST_TICKET_S = 60
_CHALLENGE_OPEN = ResolvedStatus(PaymentStatus.CHALLENGE, PaymentEvent.CHALLENGE_OPEN, MessageCode.CHALLENGE)
_WRONG_ANSWER = ResolvedStatus(PaymentStatus.CHALLENGE, PaymentEvent.CHALLENGE_OPEN, MessageCode.CHALLENGE_WRONG)


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
    ) -> None:
        self.policy = policy
        engine = RememberingEngine(ports.engine)
        self._ports = ports = replace(ports, engine=engine)
        self._tokens = tokens
        self._now = now
        self._call_headers = call_headers
        self._runs: SingleFlight[Payment] = SingleFlight(
            policy.settings.most_under_way, join_running=True, expected=(AcceptError, ConsultError, TokenRefused)
        )
        self._recheck = Recheck(ports.acquirer)
        self._submitter = Submitter(ports.engine, channel_health, monotonic)
        self._status_query = StatusQuery(ports, policy.settings.most_under_way, now)
        self._attempt_guard = AttemptGuard(attempt_leases, ports.engine)
        self._challenge_counts = ChallengeCounts(attempt_leases)
        self._learning = Learning(forget)
        self._status_follower = StatusFollower(
            status_query=self._status_query,
            attempt_guard=self._attempt_guard,
            channel_health=channel_health,
            learning=self._learning,
            sign=tokens.sign_payment_token,
            now=now,
            monotonic=monotonic,
        )
        self._attempt_recovery = AttemptRecovery(
            ports, self._status_query, self._status_follower, self._attempt_guard, policy.settings.most_under_way, now
        )

    def __repr__(self) -> str:
        parts = (self._status_follower, self._attempt_guard, self._challenge_counts, self._learning)
        return f"<PaymentFlow under_way={len(self._runs)} {' '.join(map(repr, parts))}>"

    def stop_waiting(self) -> None:
        """End all waiting for good: long polls return what is known, streams end."""
        self._status_follower.stop_waiting()

    async def drain(self) -> None:
        """Wait until nothing is under way. The caller bounds the time."""
        await self._runs.drain()
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
        # yet: see `_submit`.
        claims = self._tokens.read_consult_token(request.consult_token)
        claims.require_order(order_id=request.order_id, user_id=request.user_id, merchant_id=request.merchant_id)
        attempt = attempt_from_request(request, idempotency_key, claims, self._operation(request_id, traceparent))
        try:
            return await self._runs.run(
                attempt.payment_id, lambda: self._submit(attempt, claims), fingerprint=attempt.fingerprint
            )
        except FingerprintMismatch:
            # Another body is under way here, but another worker may have sent this one first.
            existing = await self._existing(attempt)
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

    async def cancel(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> Payment:
        """Cancel the payment if it is not paid.

        If it cannot end yet, later calls with the new token end it.

        Raises `TokenRefused`, `KeyReused` and `TooManyPayments`.
        """
        claims = replace(self._read_token(payment_id, payment_token), cancelled=True)
        return await self._status_follower.current(claims, self._operation(request_id, traceparent))

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

    async def _submit(self, attempt: Attempt, claims: ConsultClaims) -> Payment:
        existing = await self._existing(attempt)
        if existing is not None:
            return existing
        self._attempt_guard.require_same_body(attempt)
        claims.require_unexpired(self._now().timestamp())
        return await self._recheck_exclusively(attempt, self._decide)

    async def _answer(self, claims: PaymentClaims, value: str, operation: Operation) -> Payment:
        attempt, challenge = attempt_from_token(claims, operation), claims.challenge
        existing = await self._existing(attempt, claims)
        if existing is not None:
            return existing
        if claims.told in FINAL or claims.cancelled or challenge is None or not self._is_open(challenge):
            return await self._status_follower.current(claims, operation)
        verification = await self._ports.risk.verify(
            challenge.challenge_id,
            claims.payment_id,
            value,
            operation.call_headers,
            operation.policy.settings.decide_ms,
        )
        match verification:
            case Unanswered(error):
                _log.warning("no answer from risk to a verification", payment_id=claims.payment_id, why=error.detail)
                raise CheckUnavailable(("risk",))
            case WrongAnswer(attempts_left):
                return await self._not_passed(claims, after_wrong_answer(challenge, attempts_left), operation)
            case Expired():
                expired = replace(challenge, expires_at=min(challenge.expires_at, self._now_s()))
                return await self._not_passed(claims, expired, operation)
            case Passed():
                return await self._recheck_exclusively(attempt, partial(self._send, decision_id=challenge.decision_id))
            case NoChallenge():
                return await self._recheck_exclusively(attempt, partial(self._decide, previous=challenge))

    async def _recheck_exclusively(
        self, attempt: Attempt, proceed: Callable[[Attempt, RecheckedOffer], Coroutine[Any, Any, Payment]]
    ) -> Payment:
        """Recheck and `proceed` as the only run of this submit and of this order.

        The attempt then has the order's present end. Returns the existing payment if another worker
        has sent it meanwhile.
        """
        try:
            return await self._recheck_in_turn(attempt, proceed)
        except OrderBusy as busy:
            raise await self._attempt_recovery.for_its_payer(busy, attempt) from None
        except ConsultChanged as changed:
            self._learning.from_refusal(attempt, changed)
            raise

    async def _recheck_in_turn(
        self, attempt: Attempt, proceed: Callable[[Attempt, RecheckedOffer], Coroutine[Any, Any, Payment]]
    ) -> Payment:
        async with self._attempt_guard.submit_turn(attempt, partial(self._existing, attempt)) as existing:
            if existing is not None:
                return existing
            is_over = partial(self._status_follower.is_over, operation=attempt.operation)
            async with self._attempt_guard.order_claim(attempt, is_over):
                try:
                    rechecked = await self._recheck.check(attempt)
                except AlreadySubmitted:
                    return await self._already_submitted(attempt)
                except ConsultChanged:
                    # Another worker may have sent this very payment since the look-up: its spent
                    # coupon, its balance and its order in progress are no change to its payer.
                    sent_elsewhere = await self._existing(attempt)
                    if sent_elsewhere is None:
                        raise
                    return sent_elsewhere
                ends_s = int(rechecked.consultation.order.expires_at.timestamp())
                return await proceed(replace(attempt, order_expires_at=ends_s), rechecked)

    async def _decide(
        self, attempt: Attempt, rechecked: RecheckedOffer, previous: ChallengeProgress | None = None
    ) -> Payment:
        """Ask risk: on to the engine, or first a challenge.

        `previous`: the challenge that risk no longer knows.
        """
        operation = attempt.operation
        await self._challenge_counts.require_fewer(attempt)
        decision = await self._ports.risk.decide(
            _inquiry(attempt, rechecked), operation.call_headers, operation.policy.settings.decide_ms
        )
        if isinstance(decision, Challenged):
            await self._challenge_counts.add(attempt, decision.challenge.challenge_id)
        match decision:
            case Unanswered(error):
                _log.warning("no decision from risk", payment_id=attempt.payment_id, why=error.detail)
                raise CheckUnavailable(("risk",), rechecked.consultation.sources)
            case Rejected(code=code):
                _log.info(
                    "payment rejected by risk",
                    payment_id=attempt.payment_id,
                    code=code if code is None or code.isidentifier() else "malformed",
                )
                raise RiskRejected(code)
            case _ if attempt.order_ended(self._now_s()):
                raise ended_order(attempt, rechecked)
            case Accepted(decision_id):
                return await self._send(attempt, rechecked, decision_id)
            case Challenged(decision_id, asked):
                challenge = self._next_challenge(attempt, asked, decision_id, previous)
                await self._attempt_guard.bind_key(attempt, challenge.expires_at - self._now_s())
                claims = attempt.claims(
                    self._now_s(),
                    challenge.expires_at,
                    challenge=challenge,
                    promotion_titles=rechecked.promotion_titles,
                )
                await self._attempt_guard.mark_challenged(order_key(attempt.chosen), attempt.payment_id)
                return self._status_follower.present(claims, operation.policy, _CHALLENGE_OPEN)

    def _next_challenge(
        self, attempt: Attempt, asked: RiskChallenge, decision_id: str, previous: ChallengeProgress | None
    ) -> ChallengeProgress:
        """Raises `RiskRejected` if no payer is present to answer, or after too many challenges."""
        if not KINDS[attempt.kind].payer_present:
            raise RiskRejected("CHALLENGE_WITHOUT_PAYER")
        terms = RiskChallengeTerms(
            challenge_id=asked.challenge_id,
            type=asked.type,
            render_value=asked.render_value,
            attempts_left=asked.attempts_left,
            expires_at=attempt.within_order(int(asked.expires_at.timestamp())),
        )
        challenge = next_challenge(terms, decision_id, self._now_s(), previous)
        if challenge is None or not self._is_open(challenge):
            raise RiskRejected("CHALLENGES_SPENT")
        return challenge

    async def _not_passed(self, claims: PaymentClaims, challenge: ChallengeProgress, operation: Operation) -> Payment:
        """After an answer that did not pass: the payer may try again, or the challenge is over."""
        claims = replace(claims, challenge=challenge)
        if self._is_open(challenge):
            return self._status_follower.present(claims, operation.policy, _WRONG_ANSWER)
        return await self._status_follower.current(claims, operation)

    def _is_open(self, challenge: ChallengeProgress) -> bool:
        return challenge_state(challenge, self._now().timestamp()) is ChallengeState.OPEN

    async def _send(self, attempt: Attempt, rechecked: RecheckedOffer, decision_id: str) -> Payment:
        operation, expires_at = attempt.operation, attempt.payer_deadline_s(self._now())
        prepared = self._submitter.prepare(attempt, rechecked, decision_id, expires_at)
        claims = attempt.claims(
            self._now_s(),
            expires_at,
            sent_at=self._now_s(),
            route=prepared.route,
            promotion_titles=rechecked.promotion_titles,
        )
        with self._attempt_guard.sending(claims):
            engine = await self._submitter.submit(attempt, prepared)
        self._learning.from_submit(attempt)
        if engine.status is EngineReportStatus.SILENT:
            seconds = poll_schedule.arrival_s(operation.policy.settings.submit_ms)
            await self._attempt_guard.mark_arriving(attempt.payment_id, seconds)
        else:
            await self._attempt_guard.unbind_key(attempt, sent=True)
        upstream = await self._status_query.with_acquirer(engine, attempt.chosen.order_id, operation)
        return await self._status_follower.after_submit(claims, operation, upstream)

    async def _existing(self, attempt: Attempt, claims: PaymentClaims | None = None) -> Payment | None:
        """Look the payment up by its id. None if the engine does not have it.

        `claims`: of the caller's token. Raises `EngineUnavailable` if the engine does not say;
        `KeyReused`.
        """
        chosen, operation = attempt.chosen, attempt.operation
        looked_up = await self._ports.engine.look_up(
            attempt.payment_id, chosen.order_id, operation.call_headers, operation.policy.settings.look_ms
        )
        if isinstance(looked_up, Unanswered):
            raise EngineUnavailable
        if not isinstance(looked_up, EngineAnswered):
            return None
        if looked_up.payment.fingerprint is None:
            self._attempt_guard.require_same_body(attempt)
        elif looked_up.payment.fingerprint != attempt.fingerprint:
            raise KeyReused
        upstream = await self._status_query.with_acquirer(engine_report(looked_up), chosen.order_id, operation)
        if claims is None or claims.sent_at is None:
            claims = self._sent_claims(attempt, looked_up.payment)
        return await self._status_follower.current(claims, operation, upstream)

    async def _already_submitted(self, attempt: Attempt) -> Payment:
        """The payment that the acquirer already knows. Raises what `_existing` does."""
        existing = await self._existing(attempt)
        return existing or await self._status_follower.current(self._sent_claims(attempt, None), attempt.operation)

    def _sent_claims(self, attempt: Attempt, payment: EnginePayment | None) -> PaymentClaims:
        """Claims of a payment that another run sent, dated by the engine if it says when."""
        since = sent_since(payment, self._now())
        deadline_s = attempt.payer_deadline_s(since)
        if payment is not None and payment.expires_at is not None:
            # Never before the submit, whatever the engine says.
            deadline_s = max(int(since.timestamp()), min(deadline_s, int(payment.expires_at.timestamp())))
        return attempt.claims(self._now_s(), deadline_s, sent_at=int(since.timestamp()))

    def _read_token(self, payment_id: str, payment_token: str) -> PaymentClaims:
        return self._tokens.read_payment_token(payment_token, payment_id, self._now().timestamp())

    def _operation(self, request_id: str | None, traceparent: str | None) -> Operation:
        return Operation(self.policy, self._call_headers(request_id, traceparent))

    def _now_s(self) -> int:
        return int(self._now().timestamp())


def _inquiry(attempt: Attempt, rechecked: RecheckedOffer) -> Inquiry:
    instrument, source = rechecked.method.instrument, KINDS[attempt.kind].instrument_source
    return Inquiry(
        payment_id=attempt.payment_id,
        order_id=attempt.chosen.order_id,
        user_id=attempt.chosen.user_id,
        merchant_id=attempt.chosen.merchant_id,
        amount=attempt.chosen.expected_payable,
        kind=attempt.kind,
        instrument_id=(
            attempt.means.card_token if source is InstrumentSource.CARD_TOKEN or instrument is None else instrument.id
        ),
        device=attempt.device,
    )
