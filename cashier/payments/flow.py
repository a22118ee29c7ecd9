"""The acceptance flow: submit, answer a challenge, cancel, look, follow. Each begins by looking what there is already.

submit   look up → tokens → fresh checks → risk → (challenge →) route → legs → engine → where it stands
answer   look up → verify → fresh checks → route → legs → engine → where it stands
cancel, look, follow   engine and acquirer → (reverse →) where it stands
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from msgspec.structs import replace

from cashier.consultation.flow import ConsultError
from cashier.domain.catalog import Catalog
from cashier.domain.challenge_progress import ChallengeProgress, RiskChallengeTerms, ChallengeState, answered, carried, challenge_state
from cashier.domain.engine_contract import EngineAnswered, EnginePayment
from cashier.domain.pay_method import Kind
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_request import PaymentRequest
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentEvent, PaymentStatus
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
from cashier.domain.status_resolution import EngineReportStatus, ResolvedStatus
from cashier.payments.attempt import (
    LOOKING_S,
    Attempt,
    acts_until,
    bounded,
    order_key,
    refuse_card_numbers,
    resumed,
    submitted,
)
from cashier.payments.attempt_guard import AttemptGuard
from cashier.payments.channel_health import ChannelHealth
from cashier.payments.coalescing import FingerprintMismatch, RunCancelled, SingleFlight, TooManyRuns
from cashier.payments.errors import (
    AcceptError,
    CheckUnavailable,
    EngineUnavailable,
    InFlight,
    KeyReused,
    RiskRejected,
    TooManyPayments,
)
from cashier.payments.live_attempts import LiveAttempts
from cashier.payments.ports import ConsultUncached, PaymentPorts
from cashier.payments.recheck import AlreadySubmitted, Recheck, RecheckedOffer
from cashier.payments.settings import AcceptSettings
from cashier.payments.status_presenter import StatusPresenter
from cashier.payments.status_query import StatusQuery
from cashier.payments.submitter import Submitter
from cashier.source_errors import Unanswered
from cashier.tokens.consult_token import ConsultClaims
from cashier.tokens.jws import TokenRefused
from cashier.tokens.payment_token import PaymentClaims
from cashier.tokens.token_service import TokenService

_log = structlog.get_logger("cashier.payments")
_WAS_WRONG = ResolvedStatus(PaymentStatus.CHALLENGE, PaymentEvent.CHALLENGE_OPEN, MessageCode.CHALLENGE_WRONG)
_WAITS_FOR_PAYER = ResolvedStatus(PaymentStatus.CHALLENGE, PaymentEvent.CHALLENGE_OPEN, MessageCode.CHALLENGE)


class PaymentFlow:
    """Takes payments through. It holds what is under way in this worker, and no payment. `now` is the wall clock."""

    def __init__(
        self,
        upstreams: PaymentPorts,
        recheck: ConsultUncached,
        catalog: Catalog,
        signer: TokenService,
        routes: ChannelHealth,
        live: LiveAttempts,
        settings: AcceptSettings,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        call_headers: Callable[[str | None, str | None], Any],
    ) -> None:
        self._upstreams = upstreams
        self._signer = signer
        self._routes = routes
        self._now = now
        self._monotonic = monotonic
        self._call_headers = call_headers
        self._submits: SingleFlight[Payment] = SingleFlight(
            settings.most_under_way, (AcceptError, ConsultError, TokenRefused)
        )
        self._looking = StatusQuery(upstreams, settings, now)
        self._alone = AttemptGuard(live, upstreams.engine, settings)
        self._telling = StatusPresenter(
            self._looking, self._alone, routes, signer.payment_token, catalog, settings, now, monotonic
        )
        self.reconfigure(recheck, catalog, settings)

    def __repr__(self) -> str:
        return f"<Acceptance under_way={len(self._submits)} {self._telling!r} {self._alone!r}>"

    def reconfigure(self, recheck: ConsultUncached, catalog: Catalog, settings: AcceptSettings) -> None:
        """Other words, terms and times from now on. Nothing under way is lost."""
        self._catalog = self._telling.catalog = catalog
        self._settings = self._looking.settings = self._alone.settings = self._telling.settings = settings
        self._checking = Recheck(recheck, self._upstreams.acquirer, settings)
        self._sending = Submitter(self._upstreams.engine, self._routes, settings, self._monotonic)

    def stop_waiting(self) -> None:
        """From now on nobody waits: long polls come back with what is known, and whoever follows is told no more."""
        self._telling.stop_waiting()

    async def drain(self) -> None:
        """When nothing is under way any more. For a stop, which bounds it."""
        await self._submits.drain()
        await self._telling.drain()

    async def submit(
        self,
        request: PaymentRequest,
        idempotency_key: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """Accept a payment, or say how the one that was accepted under this key stands.

        It goes on though its caller goes away. Raises `TokenRefused`, `AcceptError` and `OrderUnknown`: then this call has sent nothing,
        but for `InFlight`, which says so. msgspec.ValidationError for a request that breaks its types' bounds.
        """
        request = bounded(request, idempotency_key)
        # What is no token of ours, or of something else, gets no further. That it has expired counts only where there is no payment yet.
        claims = self._signer.read_consult_token(request.consult_token)
        claims.must_be_of(order_id=request.order_id, user_id=request.user_id, merchant_id=request.merchant_id)
        attempt = submitted(request, idempotency_key, claims, self._catalog, self._call_headers(request_id, traceparent))
        try:
            return await self._run(attempt.payment_id, attempt.fingerprint, lambda: self._submit(attempt, claims))
        except FingerprintMismatch:
            # Another body is under way here, which need not be the one that the key belongs to: another worker may have sent this one.
            found = await self._found(attempt)
            if found is None:
                raise KeyReused from None
            return found

    async def answer(
        self,
        payment_id: str,
        payment_token: str,
        value: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """The payer's answer to the challenge; the same payment goes on where it is right. Raises what `submit` does."""
        refuse_card_numbers({"value": value})
        claims = self._read(payment_id, payment_token)
        call_headers = self._call_headers(request_id, traceparent)
        # Two tabs with the same answer are one; another answer is another, and is counted.
        number = claims.challenge.challenge_id if claims.challenge is not None else ""
        key = f"{payment_id} {hashlib.sha256(f'{claims.fingerprint} {number} {value}'.encode()).hexdigest()}"
        return await self._run(key, "", lambda: self._answer(claims, value, call_headers))

    async def cancel(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> Payment:
        """The caller wants no more of it. What has been paid stays paid; what cannot be ended yet is ended by who looks with the new token.

        Raises `TokenRefused`, `KeyReused` and `TooManyPayments`.
        """
        claims = replace(self._read(payment_id, payment_token), cancelled=True)
        return await self._telling.stood(claims, self._call_headers(request_id, traceparent))

    async def look(
        self,
        payment_id: str,
        payment_token: str,
        *,
        wait_ms: int = 0,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """Where it stands now. With `wait_ms` it comes back when that changes, when it is over, or after so long."""
        claims = self._read(payment_id, payment_token)
        return await self._telling.look(claims, payment_token, self._call_headers(request_id, traceparent), wait_ms)

    async def follow(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Payment, None]:
        """Where it stands, at once and whenever that changes. Ends after a final status, or after `follow_s`. Raises before the first only;
        to be closed by who does not take all."""
        claims = self._read(payment_id, payment_token)
        async with aclosing(
            self._telling.follow(claims, payment_token, self._call_headers(request_id, traceparent))
        ) as payments:
            async for payment in payments:
                yield payment

    async def _submit(self, attempt: Attempt, claims: ConsultClaims) -> Payment:
        found = await self._found(attempt)
        if found is not None:
            return found
        self._alone.must_be_same(attempt)
        claims.must_hold(self._now().timestamp())
        return await self._checked_alone(attempt, partial(self._decide, attempt))

    async def _answer(self, claims: PaymentClaims, value: str, call_headers: Any) -> Payment:
        attempt, challenge = resumed(claims, call_headers), claims.challenge
        found = await self._found(attempt, claims)
        if found is not None:
            return found
        if claims.cancelled or challenge is None or challenge_state(challenge, self._now().timestamp()) is not ChallengeState.OPEN:
            return await self._telling.stood(claims, call_headers)
        verified = await self._upstreams.risk.verify(
            challenge.challenge_id, claims.payment_id, value, call_headers, self._settings.decide_ms
        )
        match verified:
            case Unanswered(error):
                _log.warning(
                    "the risk service did not say whether an answer passed",
                    payment_id=claims.payment_id,
                    why=error.detail,
                )
                raise CheckUnavailable(("risk",))
            case WrongAnswer(attempts_left):
                return await self._challenged(claims, answered(challenge, attempts_left), call_headers)
            case Expired():
                over = replace(challenge, expires_at=min(challenge.expires_at, int(self._now().timestamp())))
                return await self._challenged(claims, over, call_headers)
            case Passed() | NoChallenge():
                return await self._resume(attempt, challenge, passed=isinstance(verified, Passed))

    async def _resume(self, attempt: Attempt, challenge: ChallengeProgress, *, passed: bool) -> Payment:
        """After a challenge: the same decision, but everything else is checked again. One that risk does not know is decided anew."""
        if passed:
            return await self._checked_alone(
                attempt, lambda checked: self._send(attempt, checked, challenge.decision_id)
            )
        return await self._checked_alone(attempt, lambda checked: self._decide(attempt, checked, challenge))

    async def _checked_alone(
        self, attempt: Attempt, go_on: Callable[[RecheckedOffer], Coroutine[Any, Any, Payment]]
    ) -> Payment:
        """Check everything and `go_on`, as the only one at this submit and at this order; or what another has brought it to meanwhile."""
        async with self._alone.at_submit(attempt, partial(self._found, attempt)) as brought:
            if brought is not None:
                return brought
            async with self._alone.at_order(attempt):
                try:
                    checked = await self._checking.checked(attempt)
                except AlreadySubmitted:
                    return await self._ours(attempt)
                return await go_on(checked)

    async def _decide(
        self, attempt: Attempt, checked: RecheckedOffer, before: ChallengeProgress | None = None
    ) -> Payment:
        """What risk says: on to the engine, or first to the payer."""
        decided = await self._upstreams.risk.decide(_inquiry(attempt, checked), attempt.call_headers, self._settings.decide_ms)
        match decided:
            case Unanswered(error):
                _log.warning("the risk service did not decide", payment_id=attempt.payment_id, why=error.detail)
                raise CheckUnavailable(("risk",), checked.consultation.sources)
            case Rejected(code=code):
                _log.info(
                    "risk rejects a payment",
                    payment_id=attempt.payment_id,
                    code=code if code is None or code.isidentifier() else "strange",
                )
                raise RiskRejected(code)
            case Accepted(decision_id):
                return await self._send(attempt, checked, decision_id)
            case Challenged(decision_id, asked):
                challenge = self._carried(attempt, asked, decision_id, before)
                await self._alone.bind(attempt, challenge.expires_at - self._now_s())
                claims = attempt.claims(self._now_s(), challenge.expires_at, challenge=challenge)
                await self._alone.ended(
                    order_key(attempt.chosen), attempt.payment_id
                )  # a payer who walks away keeps no other out
                return self._telling.told(claims, _WAITS_FOR_PAYER)

    def _carried(
        self, attempt: Attempt, asked: RiskChallenge, decision_id: str, before: ChallengeProgress | None
    ) -> ChallengeProgress:
        """Raises `RiskRejected` where nobody is there to answer, or too many were asked already."""
        if attempt.kind is Kind.AGREEMENT:
            raise RiskRejected("CHALLENGE_WITHOUT_PAYER")
        told = RiskChallengeTerms(
            asked.challenge_id, asked.type, asked.render_value, asked.attempts_left, int(asked.expires_at.timestamp())
        )
        challenge = carried(told, decision_id, self._now_s(), before)
        if challenge is None or challenge_state(challenge, self._now().timestamp()) is not ChallengeState.OPEN:
            raise RiskRejected("CHALLENGES_SPENT")
        return challenge

    async def _challenged(self, claims: PaymentClaims, challenge: ChallengeProgress, call_headers: Any) -> Payment:
        """After an answer that did not pass: again, or it is over."""
        claims = replace(claims, challenge=challenge)
        if challenge_state(challenge, self._now().timestamp()) is ChallengeState.OPEN:
            return self._telling.told(claims, _WAS_WRONG)
        return await self._telling.stood(claims, call_headers)

    async def _send(self, attempt: Attempt, checked: RecheckedOffer, decision_id: str) -> Payment:
        prepared = self._sending.prepared(attempt, checked, decision_id)
        expires_at = acts_until(attempt.kind, self._catalog, self._now(), checked.consultation.order.expires_at)
        claims = attempt.claims(self._now_s(), expires_at, sent_at=self._now_s(), route=prepared.route)
        engine = await self._sending.sent(attempt, prepared)
        if engine.word is not EngineReportStatus.SILENT:
            await self._alone.unbind(attempt, sent=True)
        return await self._telling.stood(
            claims, attempt.call_headers, await self._looking.confirmed(engine, attempt.chosen.order_id, attempt.call_headers)
        )

    async def _found(self, attempt: Attempt, claims: PaymentClaims | None = None) -> Payment | None:
        """The payment of this id, where the engine has it. Raises `EngineUnavailable` where that cannot be said, and `KeyReused`.

        `claims`: of the token that it came in, which knows why a payment was never sent.
        """
        chosen = attempt.chosen
        looked = await self._upstreams.engine.look_up(
            attempt.payment_id, chosen.order_id, attempt.call_headers, self._settings.look_ms
        )
        if isinstance(looked, Unanswered):
            raise EngineUnavailable
        if not isinstance(looked, EngineAnswered):
            return None
        if looked.payment.fingerprint is None:
            self._alone.must_be_same(attempt)
        elif looked.payment.fingerprint != attempt.fingerprint:
            raise KeyReused
        heard = await self._looking.confirmed(engine_report(looked), chosen.order_id, attempt.call_headers)
        if claims is None or (claims.sent_at is None and heard.engine.word is not EngineReportStatus.FAILED):
            claims = self._sent_claims(attempt, looked.payment)
        return await self._telling.stood(claims, attempt.call_headers, heard)

    async def _ours(self, attempt: Attempt) -> Payment:
        """Of an attempt that the acquirer has heard of. Raises what `_found` does."""
        return await self._found(attempt) or await self._telling.stood(self._sent_claims(attempt, None), attempt.call_headers)

    def _sent_claims(self, attempt: Attempt, payment: EnginePayment | None) -> PaymentClaims:
        """Of a payment that the engine has, and of which nothing else is known any more: since when it has it, as far as it says."""
        since = now = self._now()
        if (
            payment is not None
            and payment.submitted_at is not None
            and payment.submitted_at > now - timedelta(seconds=LOOKING_S)
        ):
            since = min(payment.submitted_at, now)
        return attempt.claims(
            self._now_s(), acts_until(attempt.kind, self._catalog, since), sent_at=int(since.timestamp())
        )

    def _read(self, payment_id: str, payment_token: str) -> PaymentClaims:
        return self._signer.read_payment_token(payment_token, payment_id, self._now().timestamp())

    def _now_s(self) -> int:
        return int(self._now().timestamp())

    async def _run(self, key: str, fingerprint: str, work: Callable[[], Coroutine[Any, Any, Payment]]) -> Payment:
        try:
            return await self._submits.run(key, fingerprint, work)
        except TooManyRuns:
            raise TooManyPayments from None
        except RunCancelled:
            # It may have been sent. Whoever asks again with the same key is told.
            raise InFlight from None


def _inquiry(attempt: Attempt, checked: RecheckedOffer) -> Inquiry:
    instrument, kind = checked.method.instrument, attempt.kind
    return Inquiry(
        payment_id=attempt.payment_id,
        order_id=attempt.chosen.order_id,
        user_id=attempt.chosen.user_id,
        merchant_id=attempt.chosen.merchant_id,
        amount=attempt.chosen.expected_payable,
        kind=kind,
        instrument_id=attempt.means.card_token if kind is Kind.CARD or instrument is None else instrument.id,
        device=attempt.device,
    )
