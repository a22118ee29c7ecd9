"""The payment engine: takes money for an order, once, whatever arrives how often.

The rules:
  * A payment id that is known answers as it stands; with another fingerprint it is 422 KEY_REUSED.
  * While another attempt on the order lives, 409 ORDER_BUSY names it. A refused attempt is FAILED and leaves the order as it was.
  * Without a channel, and by QUICK_PAY and CARD, the money is taken at once. AGREEMENT is PROCESSING and done at the second look.
  * NET_BANKING, WALLET, VA, OTC and MERCHANT_QR are ACTION_REQUIRED until the payer acts elsewhere (`settle`).
  * CONSUMER_QR is done at once; with a code that ends in 8 the user is paying and done at the third look, in 9 until settled or reversed.
  * A reverse ends an attempt that lives: FAILED with REVERSED. Money that was taken stays taken. An id that is reversed before it
    arrives is 404, and refused should it arrive later.
Balances and promotions are looked at, not yet written down: there is no ledger here.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from cashier.sandbox.acquirer import Acquirer, Clock
from cashier.sandbox.actions import next_action
from cashier.sandbox.answers import Answer, refusal
from cashier.sandbox.cast import Cast
from cashier.sandbox.refusals import Desk, Failure, Submission, channel_leg, open_channel, refuse
from cashier.sandbox.risk import Risk
from cashier.sandbox.shapes import Json, money

LIVE = frozenset({"PROCESSING", "ACTION_REQUIRED", "USER_PAYING"})
REVERSED = Failure("REVERSED", "The payment was reversed. No money was taken.")
DECLINED = Failure("DECLINED", "The payer did not pay.")


class Attempt(Struct):
    """One payment as it stands. `looks_left`: after so many look-ups it is done; None where looking changes nothing."""

    submission: Submission
    status: str = "PROCESSING"
    failure: Failure | None = None
    next_action: Json | None = None
    looks_left: int | None = None


class Engine:
    """Payments by id."""

    def __init__(self, cast: Cast, acquirer: Acquirer, risk: Risk, clock: Clock) -> None:
        self._desk = Desk(cast, acquirer, risk, clock, used_codes=set())
        self._attempts: dict[str, Attempt] = {}
        self._reversed_unseen: set[str] = set()

    def __repr__(self) -> str:
        live = sum(attempt.status in LIVE for attempt in self._attempts.values())
        return f"Engine(payments={len(self._attempts)}, live={live})"

    def submit(self, submission: Submission, key: str) -> Answer:
        """Take the money of a submission that came under an idempotency key. 200 with the payment, or 400, 409, 422."""
        if key != submission.payment_id:
            return refusal(400, "MALFORMED", field="Idempotency-Key", detail="Idempotency-Key must be the payment_id")
        known = self._attempts.get(submission.payment_id)
        if known:
            return _told(known) if known.submission.fingerprint == submission.fingerprint else refusal(422, "KEY_REUSED")
        if self._desk.acquirer.order(submission.order_id) is None:
            return refusal(422, "ORDER_UNKNOWN")
        busy_with = self._desk.acquirer.live_attempt(submission.order_id)
        if busy_with:
            return refusal(409, "ORDER_BUSY", payment_id=busy_with)
        attempt = self._attempts[submission.payment_id] = Attempt(submission)
        self._begin(attempt)
        return _told(attempt)

    def look_up(self, payment_id: str) -> Answer:
        """200 with the payment as it stands, 404 where it never arrived."""
        attempt = self._attempts.get(payment_id)
        if attempt is None:
            return refusal(404, "PAYMENT_UNKNOWN")
        if attempt.status in LIVE and attempt.looks_left is not None:
            attempt.looks_left -= 1
            if not attempt.looks_left:
                self._succeed(attempt)
        return _told(attempt)

    def reverse(self, payment_id: str) -> Answer:
        """End what is under way. 200 with the payment as it stands then, 404 where it never arrived."""
        attempt = self._attempts.get(payment_id)
        if attempt is None:
            self._reversed_unseen.add(payment_id)
            return refusal(404, "PAYMENT_UNKNOWN")
        if attempt.status in LIVE:
            self._fail(attempt, REVERSED)
        return _told(attempt)

    def settle(self, payment_id: str, result: Literal["SUCCEEDED", "FAILED"]) -> Answer:
        """What the payer does elsewhere, at a bank, in a wallet, at a counter. A payment that is over stays so."""
        attempt = self._attempts.get(payment_id)
        if attempt is None:
            return refusal(404, "PAYMENT_UNKNOWN")
        if attempt.status in LIVE:
            self._succeed(attempt) if result == "SUCCEEDED" else self._fail(attempt, DECLINED)
        return _told(attempt)

    def _begin(self, attempt: Attempt) -> None:
        submission = attempt.submission
        failure = REVERSED if submission.payment_id in self._reversed_unseen else refuse(self._desk, submission)
        if failure:
            attempt.status, attempt.failure = "FAILED", failure
            return
        self._desk.acquirer.begin(submission.order_id, submission.payment_id)
        self._take(attempt, open_channel(self._desk.cast, submission))

    def _take(self, attempt: Attempt, channel: Json | None) -> None:
        match channel["kind"] if channel else None:
            case "AGREEMENT":
                attempt.looks_left = 2
            case "CONSUMER_QR":
                self._take_by_code(attempt, attempt.submission.auth_code or "")
            case None | "QUICK_PAY" | "CARD":
                self._succeed(attempt)
            case _:
                self._ask_payer(attempt, channel or {})

    def _take_by_code(self, attempt: Attempt, auth_code: str) -> None:
        self._desk.used_codes.add(auth_code)
        match auth_code[-1:]:
            case "8":
                attempt.status, attempt.looks_left = "USER_PAYING", 3
            case "9":
                attempt.status = "USER_PAYING"
            case _:
                self._succeed(attempt)

    def _ask_payer(self, attempt: Attempt, channel: Json) -> None:
        leg = channel_leg(attempt.submission)
        assert leg is not None, "a channel was found for a submission without a channel leg"  # noqa: S101  our bug, loud
        amount = money(leg.amount.currency, leg.amount.value)
        attempt.status = "ACTION_REQUIRED"
        attempt.next_action = next_action(channel, attempt.submission.payment_id, amount, self._desk.clock())

    def _succeed(self, attempt: Attempt) -> None:
        attempt.status, attempt.next_action = "SUCCEEDED", None
        submission = attempt.submission
        self._desk.acquirer.collect(submission.order_id, submission.payment_id, _paid(submission))

    def _fail(self, attempt: Attempt, failure: Failure) -> None:
        attempt.status, attempt.next_action, attempt.failure = "FAILED", None, failure
        self._desk.acquirer.release(attempt.submission.order_id)


def _paid(submission: Submission) -> Json:
    """What the payer gave: everything but the promotions."""
    value = sum(leg.amount.value for leg in submission.legs if leg.type != "PROMOTION")
    return money(submission.legs[0].amount.currency, value)


def _told(attempt: Attempt) -> Answer:
    told: Json = {"payment_id": attempt.submission.payment_id, "status": attempt.status}
    if attempt.failure:
        told["failure"] = attempt.failure._asdict()
    if attempt.next_action:
        told["next_action"] = attempt.next_action
    return Answer(200, told)
