"""Histories of a payment: a small truth of its own, an engine, an acquirer, a clock and a payer who do as they like.

Looks are made through silence, with things happening between one question and the next.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.challenge_progress import ChallengeProgress
from cashier.domain.next_action import Redirect
from cashier.domain.pay_method import Kind
from cashier.domain.payment_state import PaymentStatus
from cashier.domain.status_resolution import (
    AcquirerReport,
    AcquirerReportStatus,
    EngineReport,
    EngineReportStatus,
    PaymentProgress,
    ResolvedStatus,
    resolve_status,
)

START_S = 1_800_000_000
BEGAN = datetime.fromtimestamp(START_S, UTC)
PAGE = Redirect(method="GET", url="https://bank.example/pay")
MINE, OTHER = "pay_mine", "pay_other"


def sent(kind: Kind = Kind.WALLET, **changes: Any) -> PaymentProgress:
    return structs.replace(
        PaymentProgress(payment_id=MINE, kind=kind, expires_at=START_S + 840, sent_at=START_S), **changes
    )


def carried(attempts: int = 0) -> ChallengeProgress:
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
    return structs.replace(sent(Kind.QUICK_PAY, challenge=carried(attempts)), sent_at=None, **changes)


def at(after_s: float) -> datetime:
    return BEGAN + timedelta(seconds=after_s)


def engine(word: str, code: str | None = None) -> EngineReport:
    return EngineReport(EngineReportStatus(word), code, PAGE if word == "ACTION_REQUIRED" else None)


def acquirer(word: str, of: str | None = None, closed_reason: str | None = None) -> AcquirerReport:
    return AcquirerReport(AcquirerReportStatus(word), of, closed_reason)


class History:
    """What truly happens. Its engine and its acquirer keep their promises: what is final stays, what was sealed is refused."""

    def __init__(self, payment: PaymentProgress) -> None:
        self.payment = payment
        self.now_s: float = START_S
        self.on_its_way = payment.sent_at is not None
        self.engine = EngineReportStatus.NEVER_ARRIVED
        self.code: str | None = None
        self.sealed = False
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

    def happens(self, what: str, dice: int) -> None:
        getattr(self, what)(dice)

    def passed_elsewhere(self, dice: int) -> None:
        """The challenge, in another tab, whose submit is then under way. One that is spent here is spent there: risk counts them all."""
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

    def acquirer_hears(self, dice: int) -> None:
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

    def reverse(self, dice: int) -> EngineReport:
        """Unheard, or too late, or done. Also what is not heard may have been done."""
        if self.engine is EngineReportStatus.NEVER_ARRIVED:
            self.sealed = True
        elif self.live and dice & 8:
            self._fails("REVERSED")
        return self.engine_heard(silent=dice % 6 == 0, reversing=True)

    def engine_heard(self, *, silent: bool, reversing: bool = False) -> EngineReport:
        word = (
            EngineReportStatus.SEALED if reversing and self.engine is EngineReportStatus.NEVER_ARRIVED else self.engine
        )
        return engine("SILENT") if silent else engine(word, self.code)

    def acquirer_heard(self, *, silent: bool) -> AcquirerReport:
        return acquirer("SILENT") if silent else AcquirerReport(self.order, self.owner, self.closed_reason)

    def look(self, dice: int, between: str, last_told: PaymentStatus | None) -> ResolvedStatus:
        """As it is looked at: the one, something happens, the other; then perhaps a reverse, something happens, and both once more."""
        silent_engine, silent_acquirer = dice % 4 == 0, dice % 5 == 0
        if dice & 4:
            order = self.acquirer_heard(silent=silent_acquirer)
            self.happens(between, dice)
            money = self.engine_heard(silent=silent_engine)
        else:
            money = self.engine_heard(silent=silent_engine)
            self.happens(between, dice)
            order = self.acquirer_heard(silent=silent_acquirer)
        found = self.derived(money, order, last_told)
        if found.to_reverse:
            money = self.reverse(dice)
            self.happens(between, dice >> 1)
            found = self.derived(money, self.acquirer_heard(silent=dice % 7 == 0), last_told)
        return found

    def derived(self, money: EngineReport, order: AcquirerReport, last_told: PaymentStatus | None) -> ResolvedStatus:
        payment = structs.replace(self.payment, last_status=last_told)
        return resolve_status(payment, money, order, datetime.fromtimestamp(self.now_s, UTC))

    def ends(self, dice: int) -> ResolvedStatus:
        """Everybody answers, does what is asked, and comes to an end."""
        self.now_s += 10**5
        for what in ("arrives", ("succeeds", "fails")[dice % 2], "acquirer_hears"):
            self.happens(what, dice)
        return self.look(CLEAR, "acquirer_hears", None)


HAPPENINGS = (
    "arrives", "arrives", "succeeds", "succeeds", "acquirer_hears", "acquirer_hears", "passed_elsewhere", "goes_on", "fails", "refund",
    "order_closes", "another_pays", "time_passes", "cancel",
)  # fmt: skip
DICE = 840
# Nobody is silent, and a reverse is obeyed.
CLEAR = 11 | 8
WHATS = ("look",) * 6 + HAPPENINGS


def read(number: int) -> tuple[str, int, str]:
    """One number an event, because drawing three takes three times as long: what happens, its dice, and what happens in between."""
    rest, what = divmod(number, len(WHATS))
    between, dice = divmod(rest, DICE)
    return WHATS[what], dice, HAPPENINGS[between]


POSSIBLE = (sent(), sent(Kind.CONSUMER_QR), sent(Kind.AGREEMENT), sent(Kind.VA), challenged(), challenged(3))
PAYMENTS = st.sampled_from(POSSIBLE)
MOST = len(WHATS) * DICE * len(HAPPENINGS)
EVENTS = st.lists(st.integers(0, MOST - 1).map(read), min_size=6, max_size=24)


def lived(
    payment: PaymentProgress, events: list[tuple[str, int, str]], *, remembers: bool
) -> tuple[History, list[ResolvedStatus]]:
    """A history, and what was told of it, look by look. `remembers`: whoever looks knows what was told last."""
    history, found = History(payment), list[ResolvedStatus]()
    for what, dice, between in events:
        if what == "look":
            found.append(history.look(dice, between, found[-1].status if remembers and found else None))
        else:
            history.happens(what, dice)
    return history, found
