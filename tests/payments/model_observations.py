"""Reports to the model's clients, checked against each other and against the ledger.

States independently of the code under test which status may be reported when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct, field

from cashier.consultation.answer import ConsultError
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL, NEXT, PaymentStatus
from cashier.payments.attempt_recovery import ReplacedPayment
from cashier.payments.errors import AcceptError, CheckUnavailable, ConsultChanged, OrderBusy
from cashier.sandbox import World
from cashier.tokens.jws import TokenRefused
from tests.payments.model_requests import Submit
from tests.payments.model_workers import CallTrace

_BUSY_AT_THE_START = "pay_o_1006"
# Refusals by the engine of a malformed submission, which a rechecked submit never is.
_NEVER_SENT = frozenset(
    {
        "AMOUNT_MISMATCH",
        "AMOUNT_NOT_CARRIABLE",
        "TERM_UNKNOWN",
        "PARTIES_MISMATCH",
        "PAYER_NOT_PROVEN",
        "TOO_MANY_CHANNELS",
        "PROMOTION_MISMATCH",
        "AUTH_CODE_REQUIRED",
    }
)
# Of these, those that a channel causes which changes between the recheck and the submit.
_CHANNEL_CHANGED = frozenset({"AMOUNT_MISMATCH", "AMOUNT_NOT_CARRIABLE", "TERM_UNKNOWN"})
# The longest status query.
_QUERY_S = 2.0
# The longest time from the start of a shared or hanging call to its end.
_SILENCE_S = 10.0
REFUSALS = (AcceptError, ConsultError, TokenRefused)
# Statuses that may follow the end of a payment that the engine never had. Only the newest token
# knows whether its challenge was spent or expired; an older one repeats its own status. None of
# them can move money.
_UNSENT = frozenset({PaymentStatus.FAILED, PaymentStatus.CLOSED, PaymentStatus.CHALLENGE, PaymentStatus.PROCESSING})
_MONEY_CAME = frozenset({PaymentStatus.SUCCEEDED, PaymentStatus.CLOSED_REFUNDING})


class Moment(NamedTuple):
    """`number` in the order of all events; `at_s` on the loop's clock."""

    number: int
    at_s: float


class ObservedPayment(Struct):
    """One payment: all tokens of it, and the last reported status.

    `reported_at`: in the order of all events. `final_at_s`: on the loop's clock.
    `never_sent`: the engine did not have the payment when its end was reported.
    `corrected_at_s`: when the bank found its money, on the loop's clock; None if it has not.
    `correction_known`: a report showed it, or had to: `final` is the status since then.
    """

    payment_id: str
    order_id: str
    status: PaymentStatus
    reported_at: int
    tokens: list[str] = field(default_factory=list)
    final: PaymentStatus | None = None
    final_at_s: float = 0.0
    never_sent: bool = False
    corrected_at_s: float | None = None
    correction_known: bool = False

    def lags(self, started: Moment, *, silence: bool) -> bool:
        """Whether a call that started then may report the status before the correction."""
        return self.corrected_at_s is not None and (silence or started.at_s <= self.corrected_at_s + _SILENCE_S)

    def may_report(self, status: PaymentStatus, started: Moment, *, silence: bool) -> bool:
        """Allow the final status again, and what cannot contradict it.

        A stateless service may fall back to PROCESSING during a silence.
        """
        return (
            status is self.final
            or self.lags(started, silence=silence)
            or (self.never_sent and status in _UNSENT)
            or (silence and status is PaymentStatus.PROCESSING)
        )


class LedgerTotals:
    """Sums of the ledger.

    `paid`: payment ids by order. `net_taken`, `net_money`: per payment, with and without
    promotions. `forgotten`: payments that the engine refused and did not keep.
    """

    def __init__(self, world: World) -> None:
        self.forgotten: set[str] = set()
        self.paid: dict[str, list[str]] = {}
        self.net_taken: Counter[str] = Counter()
        self.net_money: Counter[str] = Counter()
        for entry in world.ledger.entries:
            if entry.what == "ORDER_PAID":
                self.paid.setdefault(entry.order_id, []).append(entry.payment_id)
            if entry.what == "FORGOTTEN":
                self.forgotten.add(entry.payment_id)
            if entry.source is not None:
                self.net_taken[entry.payment_id] += entry.moved
                if not entry.source.startswith("PROMOTION"):
                    self.net_money[entry.payment_id] += entry.moved


class Observations:
    """Collects reports and refusals. `violations` must stay empty.

    `payments` by id. `last_fault_s`: the time of the last fault outside the service.
    `fingerprints`: those submitted per payment id. `with_device`: payment ids submitted with a
    device.
    """

    def __init__(self, world: World, clock: Callable[[], float]) -> None:
        self.last_fault_s = float("-inf")
        self.fingerprints: dict[str, set[str]] = {}
        self.with_device: set[str] = set()
        self.payments: dict[str, ObservedPayment] = {}
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._world = world
        self._events = 0

    def mark(self) -> Moment:
        """The current moment, taken at the start of a call."""
        self._events += 1
        return Moment(self._events, self._clock())

    def record_fault(self) -> None:
        self.last_fault_s = self._clock()

    def may_be_silent_since(self, started: Moment) -> bool:
        """Whether a fault may have silenced an upstream during the call."""
        return self.last_fault_s >= started.at_s - _SILENCE_S

    def observe(self, started: Moment, payment: Payment | ReplacedPayment, submit: Submit | None = None) -> None:
        now, status = self.mark().number, payment.status
        self.counts[status] += 1
        observed = self.payments.get(payment.payment_id)
        if observed is None:
            observed = self.payments[payment.payment_id] = ObservedPayment(
                payment.payment_id, payment.order_id, status, now
            )
        elif started.number > observed.reported_at:
            self._check_transition(observed, status)
        self._note_correction_known(observed, status, started)
        self.violations += [
            f"{payment.payment_id}: {violation}" for violation in self._violations(observed, payment, started, submit)
        ]
        if payment.payment_token is not None and payment.payment_token not in observed.tokens:
            observed.tokens.append(payment.payment_token)
        observed.status, observed.reported_at = status, now
        if status in FINAL and observed.final is None:
            observed.final, observed.final_at_s = status, self._clock()
            observed.never_sent = self._world.engine.attempt(observed.payment_id) is None

    def note_correction(self, payment_id: str) -> None:
        """The bank found the money of a payment that had failed."""
        self.counts["corrected"] += 1
        observed = self.payments.get(payment_id)
        if observed is not None:
            observed.corrected_at_s = self._clock()

    def _note_correction_known(self, observed: ObservedPayment, status: PaymentStatus, started: Moment) -> None:
        """The next final status is the one that counts from now on."""
        if observed.corrected_at_s is None or observed.correction_known:
            return
        lags = observed.lags(started, silence=self.may_be_silent_since(started))
        if status in _MONEY_CAME or not lags:
            self.counts[f"money after {observed.final}"] += 1
            observed.correction_known, observed.final = True, None

    def observe_refusal(self, error: BaseException, trace: CallTrace) -> None:
        self.counts[type(error).__name__] += 1
        if isinstance(error, TokenRefused):
            self.counts[error.code] += 1
        if not isinstance(error, REFUSALS):
            self.violations.append(f"a call raised {error!r}")
        if trace.accepted:
            self.violations.append(f"a call raised {error!r}, but the engine accepted {trace.accepted}")
        if (
            isinstance(error, OrderBusy)
            and error.payment_id not in self.fingerprints
            and error.payment_id != _BUSY_AT_THE_START
        ):
            self.violations.append(f"busy with {error.payment_id}, which was never submitted")
        if isinstance(error, ConsultChanged) and not error.changes:
            self.violations.append("ConsultChanged without a change")
        if isinstance(error, CheckUnavailable) and not error.silent:
            self.violations.append("CheckUnavailable without a silent source")

    def count_begun(self, submits: Mapping[str, Submit]) -> None:
        """What kinds of payments the engine has begun, at the end of a history."""
        for payment_id, submit in submits.items():
            attempt = self._world.engine.attempt(payment_id)
            if attempt is None or not attempt.began:
                continue
            channel, request = attempt.channel or {}, submit.request
            traits = {
                "walk-in": request.user_id is None,
                "chosen coupons": request.chosen_promotions is not None,
                "instalments": attempt.kind == "INSTALMENT",
                "free": attempt.kind == "FREE",
                "steps": channel.get("step", 1) > 1,
                "fee": channel.get("fee_bps", 0) > 0,
                "overpaid": attempt.returned > 0,
            }
            self.counts.update(f"began: {trait}" for trait, present in traits.items() if present)

    def ledger_violations(self) -> Iterator[str]:
        """Check every final report against the current ledger."""
        totals = LedgerTotals(self._world)
        for order_id, paid in totals.paid.items():
            if len(paid) > 1:
                yield f"{order_id} is paid by {paid}"
        for payment_id in {entry.payment_id for entry in self._world.ledger.entries if entry.what == "REFUSED"}:
            attempt = self._world.engine.attempt(payment_id)
            # For another device or body risk decides anew, which voids its earlier decision.
            same = len(self.fingerprints.get(payment_id, ())) <= 1 and payment_id not in self.with_device
            unexpected = _NEVER_SENT | {"RISK_NOT_CLEARED"} if same else _NEVER_SENT
            unexpected -= _CHANNEL_CHANGED if self._world.population.past_channels else frozenset()
            if attempt is not None and attempt.failure is not None and attempt.failure.code in unexpected:
                yield f"{payment_id} was sent, and refused with {attempt.failure.code}"
        for observed in self.payments.values():
            if observed.corrected_at_s is not None and not observed.correction_known:
                continue
            if observed.payment_id in totals.forgotten:
                continue  # a retry at another worker begins anew
            has_paid = observed.payment_id in totals.paid.get(observed.order_id, ())
            if observed.final is not None and (observed.final is PaymentStatus.SUCCEEDED) != has_paid:
                yield f"{observed.payment_id} was reported {observed.final}, and has paid its order: {has_paid}"
            if observed.final is not None and observed.payment_id in self._world.engine.live:
                yield f"{observed.payment_id} was reported {observed.final}, but is live"
            taken = totals.net_taken[observed.payment_id]
            if observed.final not in (None, PaymentStatus.SUCCEEDED) and taken:
                yield f"{observed.payment_id} was reported {observed.final}, but took {taken}"

    def _check_transition(self, observed: ObservedPayment, status: PaymentStatus) -> None:
        if observed.final is None and status is not observed.status and status not in NEXT[observed.status].values():
            self.violations.append(f"{observed.payment_id} was reported {observed.status}, then {status}")

    def _violations(
        self, observed: ObservedPayment, payment: Payment | ReplacedPayment, started: Moment, submit: Submit | None
    ) -> Iterator[str]:
        status = payment.status
        silence = self.may_be_silent_since(started)
        # A shared query may have begun before the end that another caller received.
        after_end = status in FINAL or started.at_s > observed.final_at_s + _QUERY_S
        settled = observed.final is not None and observed.payment_id not in LedgerTotals(self._world).forgotten
        if settled and after_end and not observed.may_report(status, started, silence=silence):
            yield f"reported {observed.final} as final, and now {status}"
        if (payment.challenge is not None) != (status is PaymentStatus.CHALLENGE):
            yield f"{status} with the challenge {payment.challenge}"
        if (payment.poll_after_ms is None) != (status in FINAL or status is PaymentStatus.CHALLENGE):
            yield f"{status} to be polled after {payment.poll_after_ms}"
        if submit is not None and (payment.payment_id, payment.amount) != (
            submit.payment_id,
            submit.request.expected_payable,
        ):
            yield f"the result of {submit} is {payment.payment_id} of {payment.amount}"
        attempt = self._world.engine.attempt(payment.payment_id)
        # A submit without an answer is PROCESSING, whichever body the engine turns out to have.
        unanswered = silence and status is PaymentStatus.PROCESSING
        other_body = submit is not None and attempt is not None and attempt.submission.fingerprint != submit.fingerprint
        if other_body and not unanswered:
            yield f"the result of {submit} is a payment with another body"
        # With several bodies under a key, a token of one that never arrived carries its own amount.
        if status is PaymentStatus.SUCCEEDED:
            net_money = LedgerTotals(self._world).net_money[payment.payment_id]
            if payment.amount is None or net_money != payment.amount.value:
                yield f"reported {payment.amount} as paid, but {net_money} was taken"
