"""The simulated payment engine: takes the money for an order exactly once.

Rules:
  * A known payment id gets the current state; with another fingerprint it gets 422 KEY_REUSED.
  * While another attempt on the order is live, 409 ORDER_BUSY names it. A refused attempt is FAILED
    and leaves the order unchanged.
  * Balance and promotions are taken when an attempt begins, the channel's amount when it succeeds.
    A failed attempt gives everything back.
  * Without a channel, and by QUICK_PAY and CARD, the money is taken at once; also where promotions
    pay for all, and where the order is 0 and no leg is needed. AGREEMENT is PROCESSING and succeeds
    at the second look-up.
  * A CARD with a token `tok_3ds…` goes through its bank's page; with `tok_declined…` it is FAILED
    with CHANNEL_DECLINED.
  * NET_BANKING, WALLET, INSTALMENT, VA, OTC, MERCHANT_QR and 3-D Secure are ACTION_REQUIRED until
    the payer acts (`settle`), at most for `ACTION_LIFETIMES` and until the submit's `expires_at`;
    then FAILED with EXPIRED.
  * CONSUMER_QR succeeds at once. A code that ends in 8 is USER_PAYING and succeeds at the third
    look-up; one that ends in 9 is USER_PAYING until settled or reversed.
  * A reverse ends a live attempt: FAILED with REVERSED, its code or page closed. The reason of the
    first one is reported as `reversal_reason`. Money already taken stays taken. A reverse of an
    unknown id is 404; from then on that id is FAILED with REVERSED, and refused if it arrives
    later.
  * VA and OTC accept any sum: too little goes back and the attempt stays live, an excess goes back.
    Money after expiry goes back in full and the attempt stays FAILED. `received` and `returned`
    report both sums.
  * Money for an order that has closed or was paid by another attempt: the attempt is SUCCEEDED and
    the acquirer returns everything (CLOSED_REFUNDING).
  * A bank may find money after a failure (`correct`): the attempt becomes SUCCEEDED.
Every movement is in the ledger.
"""

from __future__ import annotations

import heapq
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from cashier.sandbox.decline_rules import (
    PaymentFailure,
    RuleInputs,
    SubmitBody,
    SubmittedLeg,
    channel_leg,
    find_failure,
    holdings_failure,
    open_channel,
)
from cashier.sandbox.ledger import FundingSource, Ledger, PaymentParties
from cashier.sandbox.next_action import ACTION_LIFETIMES, next_action
from cashier.sandbox.records import Json, money
from cashier.sandbox.risk import Amount
from cashier.sandbox.upstream_answer import UpstreamAnswer, error_answer
from cashier.sandbox.weather import PaymentFault

LIVE = frozenset({"PROCESSING", "ACTION_REQUIRED", "USER_PAYING"})
REVERSED = PaymentFailure("REVERSED", "The payment was reversed. No money was taken.")
DECLINED = PaymentFailure("DECLINED", "The payer declined to pay.")
EXPIRED = PaymentFailure("EXPIRED", "The time to pay ran out.")
CHANNEL_DECLINED = PaymentFailure("CHANNEL_DECLINED", "The bank did not agree to this payment.")
# Banks and counters accept any sum for a number or code, at any time.
BY_TRANSFER = frozenset({"VA", "OTC"})


class SimulatedAttempt(Struct):
    """The current state of one payment.

    `currency`: the order's; there may be no leg that names it. `lookups_left`: look-ups until it
    succeeds; None if look-ups change nothing. `channel`: the one that takes the money.
    `expires_at`: the end of the payer's time to act. `fault`: the engine fault that it was
    submitted under. `reversal_reason`: of the first reversal. `received`, `returned`: by transfers,
    in minor units. `began`: it passed the rules.
    """

    submission: SubmitBody
    currency: str
    submitted_at: datetime
    status: str = "PROCESSING"
    failure: PaymentFailure | None = None
    next_action: Json | None = None
    lookups_left: int | None = None
    channel: Json | None = None
    expires_at: datetime | None = None
    fault: PaymentFault | None = None
    reversal_reason: str | None = None
    received: int = 0
    returned: int = 0
    began: bool = False

    @property
    def parties(self) -> PaymentParties:
        return PaymentParties(self.submission.payment_id, self.submission.order_id, self.submission.user_id)

    @property
    def kind(self) -> str:
        """The channel's kind. Without a channel BALANCE, or FREE if no balance pays either."""
        if self.channel:
            return str(self.channel["kind"])
        return "BALANCE" if any(leg.type == "BALANCE" for leg in self.submission.legs) else "FREE"

    @property
    def carried(self) -> Amount:
        """The channel's amount, fee included."""
        leg = channel_leg(self.submission)
        return leg.amount if leg else Amount(self.currency, 0)

    @property
    def paid(self) -> Amount:
        """The payer's own money: all legs but the promotions."""
        value = sum(leg.amount.value for leg in self.submission.legs if leg.type != "PROMOTION")
        return Amount(self.currency, value)

    @property
    def takes_transfers(self) -> bool:
        """Whether a transfer can still arrive: while the payment is live or after it expired."""
        return self.kind in BY_TRANSFER and (self.status in LIVE or self.failure == EXPIRED)


class SimulatedEngine:
    """Payments by id. `address`: `http://host:port` of the bank pages, None if no server runs."""

    def __init__(self, inputs: RuleInputs, ledger: Ledger) -> None:
        self.address: str | None = None
        self._inputs = inputs
        self._ledger = ledger
        self._attempts: dict[str, SimulatedAttempt] = {}
        self._live: dict[str, SimulatedAttempt] = {}
        self._due: list[tuple[datetime, str]] = []
        self._reversed_before_arrival: dict[str, str | None] = {}

    def __repr__(self) -> str:
        return f"SimulatedEngine(payments={len(self._attempts)}, live={len(self._live)})"

    @property
    def live(self) -> frozenset[str]:
        """Ids of the live payments."""
        return frozenset(self._live)

    def attempt(self, payment_id: str) -> SimulatedAttempt | None:
        """The state of a payment, not to be changed; None if it never arrived."""
        return self._attempts.get(payment_id)

    def submit(self, submission: SubmitBody, key: str, fault: PaymentFault | None = None) -> UpstreamAnswer:
        """Take the money, once per idempotency key. 200 with the payment, or 400, 409, 422."""
        if key != submission.payment_id:
            return error_answer(
                400, "MALFORMED", field="Idempotency-Key", detail="Idempotency-Key must be the payment_id"
            )
        self.expire()
        known = self._attempts.get(submission.payment_id)
        if known:
            return (
                _payment_answer(known)
                if known.submission.fingerprint == submission.fingerprint
                else error_answer(422, "KEY_REUSED")
            )
        order = self._inputs.acquirer.order(submission.order_id)
        if order is None:
            return error_answer(422, "ORDER_UNKNOWN")
        busy_with = self._inputs.acquirer.live_attempt(submission.order_id)
        if busy_with:
            return error_answer(409, "ORDER_BUSY", payment_id=busy_with)
        attempt = self._attempts[submission.payment_id] = SimulatedAttempt(
            submission, order["amount"]["currency"], self._inputs.clock(), fault=fault
        )
        self._begin(attempt)
        if fault is PaymentFault.FORGET and attempt.status == "FAILED":
            self._ledger.conclude(attempt.parties, "FORGOTTEN", attempt.paid)
            del self._attempts[submission.payment_id]
        return _payment_answer(attempt)

    def look_up(self, payment_id: str) -> UpstreamAnswer:
        """200 with the current payment, 404 if it never arrived."""
        self.expire()
        attempt = self._attempts.get(payment_id)
        if attempt is None:
            return (
                _reversed_answer(payment_id, self._reversed_before_arrival[payment_id])
                if payment_id in self._reversed_before_arrival
                else error_answer(404, "PAYMENT_UNKNOWN")
            )
        if attempt.status in LIVE and attempt.lookups_left is not None:
            attempt.lookups_left -= 1
            if not attempt.lookups_left:
                self._succeed(attempt)
        return _payment_answer(attempt)

    def reverse(self, payment_id: str, fault: PaymentFault | None = None, reason: str | None = None) -> UpstreamAnswer:
        """End a live payment. 200 with the resulting payment, 404 if it never arrived.

        The first reason is kept.
        """
        self.expire()
        attempt = self._attempts.get(payment_id)
        if attempt is None and fault is PaymentFault.NO_SEAL:
            return error_answer(404, "PAYMENT_UNKNOWN")
        if attempt is None:
            first = self._reversed_before_arrival.setdefault(payment_id, reason)
            return error_answer(404, "PAYMENT_UNKNOWN", **({"reversal_reason": first} if first else {}))
        if attempt.status in LIVE:
            attempt.reversal_reason = reason
            self._succeed(attempt) if fault is PaymentFault.PAY_FIRST else self._fail(attempt, REVERSED)
        return _payment_answer(attempt)

    def settle(
        self, payment_id: str, result: Literal["SUCCEEDED", "FAILED"], paid: int | None = None
    ) -> UpstreamAnswer:
        """Apply the payer's act at a bank, wallet or counter. A finished payment does not change.

        `paid`: the sum in minor units if it differs from the amount due; 422 AMOUNT_FIXED unless
        the payment is by transfer.
        """
        self.expire()
        attempt = self._attempts.get(payment_id)
        if attempt is None:
            return error_answer(404, "PAYMENT_UNKNOWN")
        if paid is not None and attempt.kind not in BY_TRANSFER:
            return error_answer(422, "AMOUNT_FIXED")
        if result == "SUCCEEDED" and attempt.takes_transfers:
            self._receive(attempt, attempt.carried.value if paid is None else paid)
        elif attempt.status in LIVE:
            self._succeed(attempt) if result == "SUCCEEDED" else self._fail(attempt, DECLINED)
        return _payment_answer(attempt)

    def correct(self, payment_id: str) -> UpstreamAnswer:
        """The bank finds that it took the money of a failed payment.

        409 NOT_CORRECTABLE for one that is not FAILED, was refused before anything was taken, or
        whose promotions or balance another payment has used since.
        """
        self.expire()
        attempt = self._attempts.get(payment_id)
        if attempt is None:
            return error_answer(404, "PAYMENT_UNKNOWN")
        if attempt.status != "FAILED" or not attempt.began or holdings_failure(self._inputs, attempt.submission):
            return error_answer(409, "NOT_CORRECTABLE")
        self._ledger.conclude(attempt.parties, "CORRECTED", attempt.paid)
        attempt.failure = attempt.reversal_reason = None
        self._live[payment_id] = attempt
        self._take_holdings(attempt)
        self._succeed(attempt)
        return _payment_answer(attempt)

    def expire(self) -> None:
        """Fail the attempts whose time to pay is over."""
        while self._due and self._due[0][0] <= self._inputs.clock():
            attempt = self._live.get(heapq.heappop(self._due)[1])
            if attempt:
                self._fail(attempt, EXPIRED)

    def _begin(self, attempt: SimulatedAttempt) -> None:
        submission = attempt.submission
        attempt.channel = open_channel(self._inputs.population, submission)
        failure = (
            REVERSED
            if submission.payment_id in self._reversed_before_arrival
            else find_failure(self._inputs, submission)
        )
        if failure:
            attempt.status, attempt.failure = "FAILED", failure
            attempt.reversal_reason = self._reversed_before_arrival.get(submission.payment_id)
            self._ledger.conclude(attempt.parties, "REFUSED", attempt.paid)
            return
        attempt.began = True
        self._live[submission.payment_id] = attempt
        self._inputs.acquirer.begin(submission.order_id, submission.payment_id)
        self._take_holdings(attempt)
        if attempt.kind == "CONSUMER_QR":
            self._inputs.used_codes.add(submission.auth_code or "")
        self._take(attempt)

    def _take_holdings(self, attempt: SimulatedAttempt) -> None:
        """Take promotions and balance."""
        for leg in (leg for leg in attempt.submission.legs if leg.type != "CHANNEL" and leg.amount.value):
            self._ledger.move(attempt.parties, "TAKEN", FundingSource(f"{leg.type}:{leg.id}"), leg.amount)

    def _take(self, attempt: SimulatedAttempt) -> None:
        leg = channel_leg(attempt.submission)
        if attempt.channel and (attempt.fault is PaymentFault.DECLINE or _token(leg).startswith("tok_declined")):
            self._fail(attempt, CHANNEL_DECLINED)
            return
        match attempt.kind:
            case "AGREEMENT":
                attempt.lookups_left = None if attempt.fault is PaymentFault.STALL else 2
            case "CONSUMER_QR":
                self._take_by_code(attempt)
            case "CARD" if _token(leg).startswith("tok_3ds"):
                self._ask_payer(attempt)
            case "BALANCE" | "FREE" | "QUICK_PAY" | "CARD":
                self._take_at_once(attempt)
            case _:
                self._ask_payer(attempt)

    def _take_at_once(self, attempt: SimulatedAttempt) -> None:
        """Succeed, unless a stall keeps the payment PROCESSING."""
        if attempt.fault is not PaymentFault.STALL:
            self._succeed(attempt)

    def _take_by_code(self, attempt: SimulatedAttempt) -> None:
        last_digit = "9" if attempt.fault is PaymentFault.STALL else (attempt.submission.auth_code or "")[-1:]
        match last_digit:
            case "8":
                attempt.status, attempt.lookups_left = "USER_PAYING", 3
            case "9":
                attempt.status = "USER_PAYING"
            case _:
                self._succeed(attempt)

    def _ask_payer(self, attempt: SimulatedAttempt) -> None:
        payment_id = attempt.submission.payment_id
        amount = money(attempt.carried.currency, attempt.carried.value)
        attempt.status = "ACTION_REQUIRED"
        until = self._inputs.clock() + ACTION_LIFETIMES[attempt.kind]
        until = min(until, attempt.submission.expires_at or until)
        attempt.expires_at = until
        heapq.heappush(self._due, (until, payment_id))
        page = f"{self.address}/bank/{payment_id}" if self.address else None
        attempt.next_action = next_action(attempt.channel or {}, payment_id, amount, until, page)

    def _receive(self, attempt: SimulatedAttempt, paid: int) -> None:
        """Receive a transfer. Too little or too late goes back in full, an excess in part."""
        due = attempt.carried
        pays = attempt.status in LIVE and paid >= due.value
        back = Amount(due.currency, paid - due.value if pays else paid)
        attempt.received += paid
        attempt.returned += back.value
        if back.value:
            source = self._channel_source(attempt)
            self._ledger.move(attempt.parties, "TAKEN", source, back)
            self._ledger.move(attempt.parties, "REFUNDED", source, back)
        if pays:
            self._succeed(attempt)

    def _channel_source(self, attempt: SimulatedAttempt) -> FundingSource:
        leg = channel_leg(attempt.submission)
        return FundingSource(
            f"CHANNEL:{(attempt.channel or {})['channel_id']}", (leg.term_id or leg.instrument_id) if leg else None
        )

    def _succeed(self, attempt: SimulatedAttempt) -> None:
        self._end(attempt, "SUCCEEDED")
        if attempt.carried.value:
            self._ledger.move(attempt.parties, "TAKEN", self._channel_source(attempt), attempt.carried)
        self._ledger.conclude(attempt.parties, "SUCCEEDED", attempt.paid)
        if attempt.fault is PaymentFault.CLOSE_FIRST:
            self._inputs.acquirer.close(attempt.submission.order_id)
        self._inputs.acquirer.collect(attempt.parties, attempt.paid)

    def _fail(self, attempt: SimulatedAttempt, failure: PaymentFailure) -> None:
        self._end(attempt, "FAILED")
        attempt.failure = failure
        self._ledger.give_back(attempt.parties, "RETURNED")
        self._ledger.conclude(attempt.parties, "FAILED", attempt.paid)
        self._inputs.acquirer.release(attempt.submission.order_id, attempt.submission.payment_id)

    def _end(self, attempt: SimulatedAttempt, status: str) -> None:
        attempt.status, attempt.next_action = status, None
        del self._live[attempt.submission.payment_id]


def _token(leg: SubmittedLeg | None) -> str:
    return (leg.instrument_id or "") if leg else ""


def _timestamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def _reversed_answer(payment_id: str, reason: str | None) -> UpstreamAnswer:
    payment: Json = {"payment_id": payment_id, "status": "FAILED", "failure": REVERSED.as_json()}
    return UpstreamAnswer(200, payment | ({"reversal_reason": reason} if reason else {}))


def _payment_answer(attempt: SimulatedAttempt) -> UpstreamAnswer:
    submission, payer_amount = attempt.submission, attempt.paid
    payment: Json = {
        "payment_id": submission.payment_id,
        "order_id": submission.order_id,
        "fingerprint": submission.fingerprint,
        "submitted_at": _timestamp(attempt.submitted_at),
        "status": attempt.status,
        "merchant_id": submission.merchant_id,
        "amount": money(payer_amount.currency, payer_amount.value),
    }
    optional = {
        "user_id": submission.user_id,
        "method_id": submission.method_id,
        "option_id": submission.option_id,
        "expires_at": _timestamp(attempt.expires_at) if attempt.expires_at else None,
    }
    payment |= {name: value for name, value in optional.items() if value}
    if attempt.failure:
        payment["failure"] = attempt.failure.as_json()
    if attempt.reversal_reason:
        payment["reversal_reason"] = attempt.reversal_reason
    if attempt.received:
        payment["received"] = money(attempt.carried.currency, attempt.received)
    if attempt.returned:
        payment["returned"] = money(attempt.carried.currency, attempt.returned)
    if attempt.next_action:
        payment["next_action"] = attempt.next_action
    return UpstreamAnswer(200, payment)
