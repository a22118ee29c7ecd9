"""Acceptance of one attempt: from its first look-up by way of recheck and risk to the one submit.

submit   look up → token → recheck → risk → (challenge →) route, legs → engine → status
answer   look up → verify → recheck → route, legs → engine → status
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import partial
from typing import Any

from msgspec.structs import replace

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
from cashier.domain.order import epoch_s
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_resource import Payment
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
from cashier.logs.code_word import code_word
from cashier.payments.attempt import (
    Attempt,
    attempt_from_token,
    order_key,
    sent_since,
)
from cashier.payments.attempt_guard import AttemptGuard
from cashier.payments.attempt_recovery import AttemptRecovery
from cashier.payments.challenge_counts import ChallengeCounts
from cashier.payments.errors import (
    CheckUnavailable,
    ConsultChanged,
    EngineUnavailable,
    KeyReused,
    OrderBusy,
    RiskRejected,
)
from cashier.payments.learning import Learning
from cashier.payments.payment_metrics import PaymentMetrics
from cashier.payments.policy import Operation
from cashier.payments.ports import PaymentPorts
from cashier.payments.recheck import AlreadySubmitted, Recheck, RecheckedOffer, ended_order
from cashier.payments.status_follower import StatusFollower
from cashier.payments.status_query import StatusQuery
from cashier.payments.step_log import elapsed_ms, log_step
from cashier.payments.submitter import Submitter
from cashier.source_errors import Unanswered
from cashier.tokens.consult_token import ConsultClaims
from cashier.tokens.payment_state_token import PaymentClaims

# Refusals that say that this payment was not sent.
_NOTHING_SENT = (ConsultChanged, RiskRejected, CheckUnavailable)
_CHALLENGE_OPEN = ResolvedStatus(PaymentStatus.CHALLENGE, PaymentEvent.CHALLENGE_OPEN, MessageCode.CHALLENGE)
_WRONG_ANSWER = ResolvedStatus(PaymentStatus.CHALLENGE, PaymentEvent.CHALLENGE_OPEN, MessageCode.CHALLENGE_WRONG)


class Acceptance:
    """`now` is the wall clock."""

    def __init__(
        self,
        ports: PaymentPorts,
        submitter: Submitter,
        status_query: StatusQuery,
        status_follower: StatusFollower,
        attempt_guard: AttemptGuard,
        attempt_recovery: AttemptRecovery,
        challenge_counts: ChallengeCounts,
        learning: Learning,
        counts: PaymentMetrics,
        now: Callable[[], datetime],
    ) -> None:
        self._ports = ports
        self._recheck = Recheck(ports.acquirer)
        self._submitter = submitter
        self._status_query = status_query
        self._status_follower = status_follower
        self._attempt_guard = attempt_guard
        self._attempt_recovery = attempt_recovery
        self._challenge_counts = challenge_counts
        self._learning = learning
        self._counts = counts
        self._now = now

    async def submit(self, attempt: Attempt, claims: ConsultClaims) -> Payment:
        existing = await self.existing(attempt)
        if existing is not None:
            return existing
        self._attempt_guard.require_same_body(attempt)
        claims.require_unexpired(self._now().timestamp())
        return await self._recheck_exclusively(attempt, self._decide)

    async def answer(self, claims: PaymentClaims, value: str, operation: Operation) -> Payment:
        attempt, challenge = attempt_from_token(claims, operation), claims.challenge
        existing = await self.existing(attempt, claims)
        if existing is not None:
            return existing
        if claims.told in FINAL or claims.cancelled or challenge is None or not self._is_open(challenge):
            return await self._status_follower.current(claims, operation)
        started_s = time.monotonic()
        verification = await self._ports.risk.verify(
            challenge.challenge_id,
            claims.payment_id,
            value,
            operation.call_headers,
            operation.policy.settings.decide_ms,
        )
        outcome = type(verification).__name__
        log_step("challenge answered", claims, operation, "answer", outcome=outcome, elapsed_ms=elapsed_ms(started_s))
        match verification:
            case Unanswered(error):
                log_step(
                    "no answer from risk to a verification",
                    claims,
                    operation,
                    "answer",
                    level="warning",
                    code=error.reason.value,
                    why=error.detail,
                )
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
        async with self._attempt_guard.submit_turn(attempt, partial(self.existing, attempt)) as existing:
            if existing is not None:
                return existing
            is_over = partial(self._status_follower.is_over, operation=attempt.operation)
            async with self._attempt_guard.order_claim(attempt, is_over) as paid_by:
                try:
                    started_s = time.monotonic()
                    rechecked = await self._recheck.check(attempt)
                    log_step(
                        "offer rechecked",
                        attempt,
                        attempt.operation,
                        "recheck",
                        flags=["DEGRADED"] if rechecked.consultation.degraded else [],
                        elapsed_ms=elapsed_ms(started_s),
                    )
                    if paid_by is not None:
                        raise OrderBusy(paid_by)  # the order lags behind its own result
                    ends_s = epoch_s(rechecked.consultation.order.expires_at)
                    return await proceed(replace(attempt, order_expires_at=ends_s), rechecked)
                except AlreadySubmitted:
                    return await self._already_submitted(attempt)
                except _NOTHING_SENT:
                    # Another worker may have sent this very payment since the look-up: its spent
                    # coupon, its balance and its order in progress are no change to its payer, and
                    # a risk that refuses its second question refuses nothing.
                    sent_elsewhere = await self.existing(attempt)
                    if sent_elsewhere is None:
                        raise
                    return sent_elsewhere

    async def _decide(
        self, attempt: Attempt, rechecked: RecheckedOffer, previous: ChallengeProgress | None = None
    ) -> Payment:
        """Ask risk: on to the engine, or first a challenge.

        `previous`: the challenge that risk no longer knows.
        """
        operation = attempt.operation
        await self._challenge_counts.require_fewer(attempt)
        started_s = time.monotonic()
        decision = await self._ports.risk.decide(
            _inquiry(attempt, rechecked), operation.call_headers, operation.policy.settings.decide_ms
        )
        if isinstance(decision, Challenged):
            await self._challenge_counts.add(attempt, decision.challenge.challenge_id)
        match decision:
            case Unanswered(error):
                log_step(
                    "no decision from risk",
                    attempt,
                    operation,
                    "risk",
                    level="warning",
                    code=error.reason.value,
                    why=error.detail,
                    elapsed_ms=elapsed_ms(started_s),
                )
                raise CheckUnavailable(("risk",), rechecked.consultation.sources)
            case Rejected(code=code):
                log_step(
                    "payment rejected by risk",
                    attempt,
                    operation,
                    "risk",
                    code=code and code_word(code),
                    elapsed_ms=elapsed_ms(started_s),
                )
                raise RiskRejected(code)
            case _ if attempt.order_ended(self._now_s()):
                raise ended_order(attempt, rechecked)
            case Accepted(decision_id):
                log_step("accepted by risk", attempt, operation, "risk", elapsed_ms=elapsed_ms(started_s))
                return await self._send(attempt, rechecked, decision_id)
            case Challenged(decision_id, asked):
                challenge = self._next_challenge(attempt, asked, decision_id, previous)
                log_step(
                    "challenge required by risk",
                    attempt,
                    operation,
                    "challenge",
                    type=code_word(challenge.type),
                    attempts_left=challenge.attempts_left,
                    elapsed_ms=elapsed_ms(started_s),
                )
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
            expires_at=attempt.within_order(epoch_s(asked.expires_at)),
            resend_after_s=asked.resend_after_s,
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
        route = prepared.route
        if route is not None:
            log_step("route chosen", attempt, operation, "route", rule=route.rule, channel_id=route.channel_id)
            self._counts.count_route(route.rule, route.channel_id)
        started_s = time.monotonic()
        with self._attempt_guard.sending(claims):
            engine = await self._submitter.submit(attempt, prepared)
        log_step(
            "engine answered",
            attempt,
            operation,
            "submit",
            engine=engine.status.value,
            code=engine.failure_code and code_word(engine.failure_code),
            elapsed_ms=elapsed_ms(started_s),
        )
        self._learning.from_submit(attempt)
        if engine.status is EngineReportStatus.SILENT:
            seconds = poll_schedule.arrival_s(operation.policy.settings.submit_ms)
            await self._attempt_guard.mark_arriving(attempt.payment_id, seconds)
        else:
            await self._attempt_guard.unbind_key(attempt, sent=True)
        upstream = await self._status_query.with_acquirer(engine, attempt.chosen.order_id, operation)
        return await self._status_follower.after_submit(claims, operation, upstream)

    async def existing(self, attempt: Attempt, claims: PaymentClaims | None = None) -> Payment | None:
        """Look the payment up by its id. None if the engine does not have it.

        `claims`: of the caller's token. Raises `EngineUnavailable` if the engine does not say;
        `KeyReused`.
        """
        chosen, operation, started_s = attempt.chosen, attempt.operation, time.monotonic()
        looked_up = await self._ports.engine.look_up(
            attempt.payment_id, chosen.order_id, operation.call_headers, operation.policy.settings.look_ms
        )
        log_step(
            "payment looked up",
            attempt,
            operation,
            "look_up",
            # Most payments are new, and the steps after this one show it.
            level="info" if isinstance(looked_up, EngineAnswered) else "debug",
            engine=engine_report(looked_up).status.value,
            elapsed_ms=elapsed_ms(started_s),
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
        existing = await self.existing(attempt)
        return existing or await self._status_follower.current(self._sent_claims(attempt, None), attempt.operation)

    def _sent_claims(self, attempt: Attempt, payment: EnginePayment | None) -> PaymentClaims:
        """Claims of a payment that another run sent, dated by the engine if it says when."""
        since = sent_since(payment, self._now())
        deadline_s = attempt.payer_deadline_s(since)
        if payment is not None and payment.expires_at is not None:
            # Never before the submit, whatever the engine says.
            deadline_s = max(int(since.timestamp()), min(deadline_s, int(payment.expires_at.timestamp())))
        return attempt.claims(self._now_s(), deadline_s, sent_at=int(since.timestamp()))

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
