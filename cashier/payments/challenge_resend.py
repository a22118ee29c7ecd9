"""Sends the code of an open challenge again, a bounded number of times per payment."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from cashier.domain.challenge_progress import MAX_RESENDS, ChallengeProgress, ChallengeState, challenge_state
from cashier.domain.payment_resource import ChallengeSent
from cashier.domain.payment_state import FINAL
from cashier.domain.risk_contract import NoResend, Resent
from cashier.payments.challenge_counts import ChallengeCounts
from cashier.payments.errors import NotResendable, ResendUnconfirmed
from cashier.payments.policy import Operation
from cashier.payments.ports import RiskPort
from cashier.payments.step_log import elapsed_ms, log_step
from cashier.source_errors import Unanswered
from cashier.tokens.payment_state_token import PaymentClaims


class ChallengeResender:
    """`now` is the wall clock."""

    def __init__(self, risk: RiskPort, challenge_counts: ChallengeCounts, now: Callable[[], datetime]) -> None:
        self._risk = risk
        self._challenge_counts = challenge_counts
        self._now = now

    async def resend(self, claims: PaymentClaims, operation: Operation) -> ChallengeSent:
        """Raises `NotResendable`, and `ResendUnconfirmed`, which counts as sent."""
        challenge = self._open_challenge(claims)
        used = await self._challenge_counts.resends(claims.payment_id)
        if used >= MAX_RESENDS:
            raise NotResendable("it was sent too many times")
        started_s = time.monotonic()
        outcome = await self._risk.resend(
            challenge.challenge_id, claims.payment_id, operation.call_headers, operation.policy.settings.decide_ms
        )
        match outcome:
            case NoResend():
                raise NotResendable("the risk service does not offer it for this challenge")
            case Resent(resend_after_s, sent=False):
                return ChallengeSent(resend_after_s=resend_after_s, sent=False)
        await self._challenge_counts.add_resend(claims.payment_id)
        log_step("challenge sent again", claims, operation, "resend", elapsed_ms=elapsed_ms(started_s))
        if isinstance(outcome, Unanswered):
            raise ResendUnconfirmed
        is_last = used + 1 >= MAX_RESENDS
        return ChallengeSent(resend_after_s=None if is_last else outcome.resend_after_s, sent=True)

    def _open_challenge(self, claims: PaymentClaims) -> ChallengeProgress:
        challenge = claims.challenge
        if challenge is None or claims.cancelled or claims.told in FINAL:
            raise NotResendable("the payment has no open challenge")
        if challenge_state(challenge, self._now().timestamp()) is not ChallengeState.OPEN:
            raise NotResendable("the challenge is over")
        return challenge
