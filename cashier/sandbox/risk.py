"""The simulated risk service: accepts, challenges or rejects a payment by fixed rules.

Rules, first match wins:
  1. A listed user is rejected (USER_LISTED).
  2. An amount above the currency's ceiling is rejected (AMOUNT_TOO_HIGH).
  3. QUICK_PAY, CARD and BALANCE are challenged from the currency's threshold: quick pay by SMS_OTP,
     card by THREE_DS, balance by PASSWORD, from five times the threshold by BIOMETRIC. The answer
     to all is 246810. Other kinds authenticate the payer elsewhere, or have no payer present.
  4. Everything else is accepted.
A challenge allows three attempts and lives five minutes; a payment gets three challenges. An
SMS_OTP can be sent again after each minute, with the same answer. A repeated request for the same
payment gets the same decision: ACCEPT once its challenge is passed, REJECT (CHALLENGE_FAILED) once
one was failed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from msgspec import Meta, Struct

from cashier.sandbox.records import Json
from cashier.sandbox.world_clock import Clock

CHALLENGE_ANSWER = "246810"
ATTEMPTS_PER_CHALLENGE = 3
CHALLENGES_PER_PAYMENT = 3
CHALLENGE_LIFE = timedelta(minutes=5)
RESEND_AFTER_S = 60
REJECTED_USERS = frozenset({"u_7"})

# By currency, in minor units: challenge from, reject above.
THRESHOLDS = {
    "CNY": (10_000, 5_000_000),
    "IDR": (50_000_000, 2_000_000_000),
    "JPY": (10_000, 1_000_000),
    "KWD": (20_000, 2_000_000),
}
OTHER_CURRENCY = (10_000, 1_000_000)
CHALLENGE_TYPES = {"QUICK_PAY": "SMS_OTP", "CARD": "THREE_DS", "BALANCE": "PASSWORD"}
RENDER_VALUES = {
    "SMS_OTP": "138****1234",
    "THREE_DS": "Your bank's page",
    "PASSWORD": "Payment password",
    "BIOMETRIC": "Fingerprint or face",
}
# From this multiple of the threshold on, a balance takes more than a password.
BIOMETRIC_FACTOR = 5

Kind = Literal[
    "QUICK_PAY",
    "AGREEMENT",
    "CARD",
    "NET_BANKING",
    "VA",
    "OTC",
    "WALLET",
    "BALANCE",
    "MERCHANT_QR",
    "CONSUMER_QR",
    "INSTALMENT",
    "FREE",
]
Identity = Annotated[str, Meta(min_length=1, max_length=64)]


class Amount(Struct, frozen=True):
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")]
    value: Annotated[int, Meta(ge=0)]


class DecisionBody(Struct, frozen=True, kw_only=True):
    """The body of `POST /risk/decisions`. Without `user_id`: a walk-in pays."""

    payment_id: Identity
    order_id: Identity
    user_id: Identity | None = None
    merchant_id: Identity
    amount: Amount
    kind: Kind
    instrument_id: str | None = None
    device: dict[str, object] | None = None


class VerifyBody(Struct, frozen=True):
    """The body of `POST /risk/challenges/{challenge_id}/verify`."""

    payment_id: Identity
    value: str


class ResendBody(Struct, frozen=True):
    """The body of `POST /risk/challenges/{challenge_id}/resend`."""

    payment_id: Identity


class IssuedChallenge(Struct):
    """`sent`: the number of its text messages."""

    challenge_id: str
    type: str
    sent_at: datetime
    expires_at: datetime
    sent: int = 1
    attempts_left: int = ATTEMPTS_PER_CHALLENGE
    passed: bool = False

    def to_json(self, now: datetime) -> Json:
        issued = {
            "challenge_id": self.challenge_id,
            "type": self.type,
            "render_value": RENDER_VALUES[self.type],
            "attempts_left": self.attempts_left,
            "expires_at": self.expires_at.isoformat(timespec="seconds"),
        }
        return issued | ({"resend_after_s": self.resend_after_s(now)} if self.type == "SMS_OTP" else {})

    def resend_after_s(self, now: datetime) -> int:
        return max(0, RESEND_AFTER_S - int((now - self.sent_at).total_seconds()))


class RiskRecord(Struct):
    """The decision about one payment and its challenges, of which the last counts."""

    inquiry: DecisionBody
    decision_id: str
    decision: str
    code: str | None
    challenges: list[IssuedChallenge]


class SimulatedRisk:
    """Decisions by payment and challenges by id."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[str, RiskRecord] = {}
        self._decided = 0

    def __repr__(self) -> str:
        return f"SimulatedRisk(payments={len(self._records)}, decided={self._decided})"

    def decide(self, inquiry: DecisionBody) -> Json:
        """The decision in the contract's shape. A changed inquiry for a payment is decided anew."""
        record = self._records.get(inquiry.payment_id)
        if record is None or record.inquiry != inquiry:
            record = self._records[inquiry.payment_id] = self._open(inquiry)
        if record.decision == "CHALLENGE":
            self._advance(record)
        return _decision_json(record, self._clock())

    def verify(self, challenge_id: str, verification: VerifyBody) -> Json | None:
        """Check an answer: `status`, `attempts_left`. None if the payment has no such challenge."""
        challenge = self._challenge(challenge_id, verification.payment_id)
        if challenge is None:
            return None
        if not challenge.passed and self._clock() >= challenge.expires_at:
            return {"status": "EXPIRED", "attempts_left": 0}
        if not challenge.passed and challenge.attempts_left:
            challenge.passed = verification.value == CHALLENGE_ANSWER
            challenge.attempts_left -= 0 if challenge.passed else 1
        return {"status": "PASSED" if challenge.passed else "FAILED", "attempts_left": challenge.attempts_left}

    def resend(self, challenge_id: str, resend: ResendBody) -> Json | None:
        """Send the text message again: `resend_after_s`, `sent`. None: there is none to send."""
        challenge = self._challenge(challenge_id, resend.payment_id)
        if challenge is None or challenge.type != "SMS_OTP" or challenge.passed or not challenge.attempts_left:
            return None
        now = self._clock()
        if now >= challenge.expires_at:
            return None
        wait_s = challenge.resend_after_s(now)
        if wait_s:
            return {"resend_after_s": wait_s, "sent": False}
        challenge.sent_at, challenge.sent = now, challenge.sent + 1
        return {"resend_after_s": RESEND_AFTER_S, "sent": True}

    def cleared(self, decision_id: str, payment_id: str) -> bool:
        """Whether the engine may take money under this decision."""
        record = self._records.get(payment_id)
        if record is None or record.decision_id != decision_id:
            return False
        return record.decision == "ACCEPT" or (bool(record.challenges) and record.challenges[-1].passed)

    def _open(self, inquiry: DecisionBody) -> RiskRecord:
        self._decided += 1
        decision, code = apply_rules(inquiry)
        return RiskRecord(
            inquiry=inquiry, decision_id=f"d_{self._decided}", decision=decision, code=code, challenges=[]
        )

    def _advance(self, record: RiskRecord) -> None:
        """Accept, reject, or issue a challenge if there is none or the last has expired."""
        last = record.challenges[-1] if record.challenges else None
        if last and last.passed:
            record.decision = "ACCEPT"
        elif last and not last.attempts_left:
            record.decision, record.code = "REJECT", "CHALLENGE_FAILED"
        elif last is None or self._clock() >= last.expires_at:
            self._issue_challenge(record)

    def _issue_challenge(self, record: RiskRecord) -> None:
        if len(record.challenges) == CHALLENGES_PER_PAYMENT:
            record.decision, record.code = "REJECT", "TOO_MANY_CHALLENGES"
            return
        challenge_id = f"ch{len(record.challenges) + 1}_{record.decision_id}"
        now = self._clock().astimezone(UTC)
        record.challenges.append(
            IssuedChallenge(challenge_id, challenge_type(record.inquiry), now, now + CHALLENGE_LIFE)
        )

    def _challenge(self, challenge_id: str, payment_id: str) -> IssuedChallenge | None:
        record = self._records.get(payment_id)
        return (
            next((issued for issued in record.challenges if issued.challenge_id == challenge_id), None)
            if record
            else None
        )


def apply_rules(inquiry: DecisionBody) -> tuple[str, str | None]:
    """Apply the rules of the module docstring: the decision, and the code of a rejection."""
    challenge_from, reject_above = THRESHOLDS.get(inquiry.amount.currency, OTHER_CURRENCY)
    if inquiry.user_id in REJECTED_USERS:
        return "REJECT", "USER_LISTED"
    if inquiry.amount.value > reject_above:
        return "REJECT", "AMOUNT_TOO_HIGH"
    if inquiry.amount.value >= challenge_from and inquiry.kind in CHALLENGE_TYPES:
        return "CHALLENGE", None
    return "ACCEPT", None


def challenge_type(inquiry: DecisionBody) -> str:
    """The type of challenge for this payment."""
    challenge_from, _ = THRESHOLDS.get(inquiry.amount.currency, OTHER_CURRENCY)
    if inquiry.kind == "BALANCE" and inquiry.amount.value >= challenge_from * BIOMETRIC_FACTOR:
        return "BIOMETRIC"
    return CHALLENGE_TYPES[inquiry.kind]


def _decision_json(record: RiskRecord, now: datetime) -> Json:
    decision: Json = {"decision": record.decision, "decision_id": record.decision_id}
    if record.code:
        decision["code"] = record.code
    if record.decision == "CHALLENGE":
        decision["challenge"] = record.challenges[-1].to_json(now)
    return decision
