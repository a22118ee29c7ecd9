"""Random histories of a payment: a model of engine, acquirer, clock and payer with free choices.

Queries may meet silence, and events happen between the two calls of one query.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.challenge_progress import ChallengeProgress
from cashier.domain.engine_contract import ReversalReason
from cashier.domain.next_action import Redirect
from cashier.domain.pay_method import Kind
from cashier.domain.payment_state import PaymentStatus
from cashier.domain.status_resolution import PaymentProgress, ResolvedStatus, resolve_status
from cashier.domain.upstream_report import AcquirerReport, AcquirerReportStatus, EngineReport, EngineReportStatus

START_S = 1_800_000_000
STARTED_AT = datetime.fromtimestamp(START_S, UTC)
PAGE = Redirect(method="GET", url="https://bank.example/pay")
MINE, OTHER = "pay_mine", "pay_other"


def sent(kind: Kind = Kind.WALLET, **changes: Any) -> PaymentProgress:
    return structs.replace(
        PaymentProgress(payment_id=MINE, kind=kind, expires_at=START_S + 840, sent_at=START_S), **changes
    )


def challenge_progress(attempts: int = 0) -> ChallengeProgress:
    return ChallengeProgress(
        challenge_id="ch_1",
        type="SMS_OTP",
        render_value="138****1234",
        decision_id="d_1",
        started_at=START_S,
        expires_at=START_S + 300,
        attempts=attempts,
        of=3,
    )


def challenged(attempts: int = 0, **changes: Any) -> PaymentProgress:
    return structs.replace(sent(Kind.QUICK_PAY, challenge=challenge_progress(attempts)), sent_at=None, **changes)


def at(after_s: float) -> datetime:
    return STARTED_AT + timedelta(seconds=after_s)


def engine(status: str, code: str | None = None) -> EngineReport:
    return EngineReport(EngineReportStatus(status), code, PAGE if status == "ACTION_REQUIRED" else None)


def acquirer(status: str, owner: str | None = None, closed_reason: str | None = None) -> AcquirerReport:
    return AcquirerReport(AcquirerReportStatus(status), owner, closed_reason)


class History:
    """The true course of events. `seals`: the engine refuses what it does not have when asked to.

    Engine and acquirer keep their promises: a final result stays, and a sealed payment is refused.
    """

    def __init__(self, payment: PaymentProgress, *, seals: bool = True) -> None:
        self.payment = payment
        self.seals = seals
        self.now_s: float = START_S
        self.on_its_way = payment.sent_at is not None
        self.engine = EngineReportStatus.NEVER_ARRIVED
        self.code: str | None = None
        self.sealed = False
        self.reason: ReversalReason | None = None
        self.order = AcquirerReportStatus.PENDING
        self.owner: str | None = None
        self.closed_reason: str | None = None

    @property
    def live(self) -> bool:
        return self.engine in (
            EngineReportStatus.PROCESSING,
            EngineReportStatus.ACTION_REQUIRED,
            EngineReportStatus.USER_PAYING,
        )

    @property
    def open(self) -> bool:
        return self.order in (AcquirerReportStatus.PENDING, AcquirerReportStatus.PAYING)

    def apply(self, event: str, dice: int) -> None:
        getattr(self, event)(dice)

    def passed_in_another_tab(self, dice: int) -> None:
        """Pass the challenge in another tab, which then submits.

        Risk counts answers over all tabs.
        """
        unspent = self.payment.challenge is None or self.payment.challenge.attempts_left > 0
        self.on_its_way = self.on_its_way or (unspent and self.engine is EngineReportStatus.NEVER_ARRIVED)

    def arrives(self, dice: int) -> None:
        if not self.on_its_way or self.engine is not EngineReportStatus.NEVER_ARRIVED:
            return
        self.on_its_way = False
        if self.sealed or not self.open:
            self._fails(
                "REVERSED"
                if self.sealed
                else "ORDER_PAID"
                if self.order is AcquirerReportStatus.PAID
                else "ORDER_CLOSED"
            )
            return
        self.order, self.owner = AcquirerReportStatus.PAYING, MINE
        self.goes_on(dice)

    def goes_on(self, dice: int) -> None:
        if self.engine is EngineReportStatus.NEVER_ARRIVED and self.on_its_way:
            return
        if self.live or (self.owner == MINE and self.engine is EngineReportStatus.NEVER_ARRIVED):
            self.engine = (
                EngineReportStatus.PROCESSING,
                EngineReportStatus.ACTION_REQUIRED,
                EngineReportStatus.USER_PAYING,
            )[dice % 3]

    def succeeds(self, dice: int) -> None:
        if self.live:
            self.engine = EngineReportStatus.SUCCEEDED

    def fails(self, dice: int) -> None:
        if self.live:
            self._fails(("DECLINED", "BALANCE_INSUFFICIENT")[dice % 2])

    def _fails(self, code: str) -> None:
        self.engine, self.code = EngineReportStatus.FAILED, code
        if self.order is AcquirerReportStatus.PAYING and self.owner == MINE:
            self.order, self.owner = AcquirerReportStatus.PENDING, None

    def acquirer_learns(self, dice: int) -> None:
        if self.engine is EngineReportStatus.SUCCEEDED and self.open:
            self.order, self.owner = AcquirerReportStatus.PAID, MINE
        elif self.engine is EngineReportStatus.SUCCEEDED and self.order is AcquirerReportStatus.CLOSED:
            self.order, self.owner = AcquirerReportStatus.CLOSED_REFUNDING, MINE

    def order_closes(self, dice: int) -> None:
        if self.open:
            self.order, self.owner, self.closed_reason = AcquirerReportStatus.CLOSED, None, "CLOSED_BY_MERCHANT"

    def another_pays(self, dice: int) -> None:
        if self.open:
            self.order, self.owner = AcquirerReportStatus.PAID, OTHER

    def refund(self, dice: int) -> None:
        if self.order in (AcquirerReportStatus.PAID, AcquirerReportStatus.CLOSED_REFUNDING):
            self.order = AcquirerReportStatus.REFUNDED

    def time_passes(self, dice: int) -> None:
        self.now_s += (1, 31, 46, 301, 900)[dice % 5]

    def cancel(self, dice: int) -> None:
        self.payment = structs.replace(self.payment, cancelled=True)

    def reverse(self, dice: int, reason: ReversalReason | None) -> EngineReport:
        """Reverse if possible. The answer may be silence, also after a successful reversal."""
        if self.engine is EngineReportStatus.NEVER_ARRIVED:
            self.sealed, self.reason = self.seals, self.reason or reason
        elif self.live and dice & 8:
            self.reason = self.reason or reason
            self._fails("REVERSED")
        return self.report_engine(silent=dice % 6 == 0, reversing=True)

    def report_engine(self, *, silent: bool, reversing: bool = False) -> EngineReport:
        status = self.engine
        if reversing and status is EngineReportStatus.NEVER_ARRIVED:
            status = EngineReportStatus.SEALED if self.seals else EngineReportStatus.UNSEALED
        return engine("SILENT") if silent else structs.replace(engine(status, self.code), reversal_reason=self.reason)

    def report_acquirer(self, *, silent: bool) -> AcquirerReport:
        return acquirer("SILENT") if silent else AcquirerReport(self.order, self.owner, self.closed_reason)

    def query(self, dice: int, between: str, last_status: PaymentStatus | None) -> ResolvedStatus:
        """One query: both reports and an event in between, perhaps a reversal and both again."""
        silent_engine, silent_acquirer = dice % 4 == 0, dice % 5 == 0
        if dice & 4:
            acquirer_report = self.report_acquirer(silent=silent_acquirer)
            self.apply(between, dice)
            engine_report = self.report_engine(silent=silent_engine)
        else:
            engine_report = self.report_engine(silent=silent_engine)
            self.apply(between, dice)
            acquirer_report = self.report_acquirer(silent=silent_acquirer)
        resolved = self.resolve(engine_report, acquirer_report, last_status)
        if resolved.to_reverse:
            engine_report = self.reverse(dice, resolved.reversal_reason)
            self.apply(between, dice >> 1)
            resolved = self.resolve(engine_report, self.report_acquirer(silent=dice % 7 == 0), last_status)
        return resolved

    def resolve(
        self, engine_report: EngineReport, acquirer_report: AcquirerReport, last_status: PaymentStatus | None
    ) -> ResolvedStatus:
        payment = structs.replace(self.payment, last_status=last_status)
        return resolve_status(payment, engine_report, acquirer_report, datetime.fromtimestamp(self.now_s, UTC))

    def finish(self, dice: int) -> ResolvedStatus:
        """Let every service answer until the payment is final, and query it."""
        self.now_s += 10**5
        for event in ("arrives", ("succeeds", "fails")[dice % 2], "acquirer_learns"):
            self.apply(event, dice)
        return self.query(RELIABLE_DICE, "acquirer_learns", None)


MODEL_EVENTS = (
    "arrives", "arrives", "succeeds", "succeeds", "acquirer_learns", "acquirer_learns", "passed_in_another_tab",
    "goes_on", "fails", "refund", "order_closes", "another_pays", "time_passes", "cancel",
)  # fmt: skip
DICE = 840
# Dice without silence and with effective reversals.
RELIABLE_DICE = 11 | 8
EVENT_NAMES = ("query",) * 6 + MODEL_EVENTS


def decode_event(number: int) -> tuple[str, int, str]:
    """Decode an event, its dice and the event in between.

    Hypothesis draws one number per event; three would take three times as long.
    """
    rest, event = divmod(number, len(EVENT_NAMES))
    between, dice = divmod(rest, DICE)
    return EVENT_NAMES[event], dice, MODEL_EVENTS[between]


POSSIBLE = (sent(), sent(Kind.CONSUMER_QR), sent(Kind.AGREEMENT), sent(Kind.VA), challenged(), challenged(3))
PAYMENTS = st.sampled_from(POSSIBLE)
EVENT_CODES = len(EVENT_NAMES) * DICE * len(MODEL_EVENTS)
EVENTS = st.lists(st.integers(0, EVENT_CODES - 1).map(decode_event), min_size=6, max_size=24)


def run_history(
    payment: PaymentProgress, events: list[tuple[str, int, str]], *, remembers: bool, seals: bool = True
) -> tuple[History, list[ResolvedStatus]]:
    """Run a history; return it and the status of each query. `remembers`: queries know the last."""
    history, resolved = History(payment, seals=seals), list[ResolvedStatus]()
    for event, dice, between in events:
        if event == "query":
            resolved.append(history.query(dice, between, resolved[-1].status if remembers and resolved else None))
        else:
            history.apply(event, dice)
    return history, resolved
