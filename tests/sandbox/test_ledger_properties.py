"""The audit finds no violation in any order of payments, retries, faults and time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cashier.sandbox.decline_rules import SubmitBody
from cashier.sandbox.execution_faults import Work, perform
from cashier.sandbox.records import Json
from cashier.sandbox.risk import Amount, DecisionBody, VerifyBody
from cashier.sandbox.source_table import SOURCES
from cashier.sandbox.upstream_answer import UpstreamAnswer
from cashier.sandbox.weather import CallConditions, PaymentFault
from cashier.sandbox.world import World
from tests.sandbox.hand_clock import HandClock
from tests.sandbox.paying import balance, channel, promotion

ORDERS: dict[str, Json] = {
    "o_1001": {"user_id": "u_1", "merchant_id": "m_1"},
    "o_1002": {"user_id": "u_1", "merchant_id": "m_1"},
    "o_1011": {"user_id": "u_1", "merchant_id": "m_1"},
    "o_1014": {"user_id": "u_1", "merchant_id": "m_2"},
    "o_1017": {"user_id": "u_1", "merchant_id": "m_1"},
    "o_6201": {"user_id": "u_62", "merchant_id": "m_62"},
    "o_8101": {"user_id": "u_81", "merchant_id": "m_81"},
}
PAYMENT_CHOICES: list[tuple[str, tuple[Json, ...]]] = [
    ("o_1001", (channel("ch_quick_cmb", "c_2"),)),
    ("o_1001", (promotion(1_000), channel("ch_quick_cmb", "c_2", 11_800))),
    (
        "o_1001",
        (promotion(1_000), promotion(288, "p_3"), balance("acc_1", 10_000), channel("ch_quick_cmb", "c_2", 1_512)),
    ),
    ("o_1001", (balance("acc_1", 5_000), channel("ch_wallet_alipay", value=7_800))),
    ("o_1001", (channel("ch_card_adyen", "tok_1", 12_928),)),
    ("o_1001", (promotion(1_000), channel("ch_card_adyen", "tok_3ds_1", 11_918))),
    ("o_1001", (channel("ch_card_adyen", "tok_declined_1", 12_928),)),
    ("o_1001", (channel("ch_agreement_unionpay", "ag_1"),)),
    ("o_1001", (balance("acc_1", 9_000), channel("ch_quick_cmb", "c_2", 3_800))),
    ("o_1001", (channel("ch_quick_cmb", "c_2", 1),)),
    ("o_1001", (channel("ch_quick_cmb", "c_2", 12_900),)),
    ("o_1002", (balance("acc_1", 3_500),)),
    ("o_1002", (promotion(288, "p_3"), balance("acc_1", 3_212))),
    ("o_1002", (balance("acc_1", 3_000), channel("ch_net_icbc", value=500))),
    ("o_1011", (promotion(288, "p_3"),)),
    ("o_1011", (balance("acc_1", 288),)),
    ("o_1014", (channel("ch_cqr_wechat", value=2_800),)),
    ("o_1014", (channel("ch_mqr_alipay", value=2_800),)),
    ("o_1017", (balance("acc_1", 4_500),)),
    ("o_1017", (promotion(288, "p_3"), balance("acc_1", 4_000), channel("ch_wallet_wechat", value=212))),
    ("o_6201", (channel("ch_va_bca", value=25_000_000, currency="IDR"),)),
    ("o_6201", (channel("ch_otc_alfamart", value=25_250_000, currency="IDR"),)),
    ("o_8101", (channel("ch_otc_lawson", value=4_980, currency="JPY"),)),
]
FINAL = {"SUCCEEDED", "FAILED"}
PAYMENTS = 12
NUMBERS = st.integers(1, PAYMENTS)
# Half of the calls have no fault.
FAULTS = st.none() | st.sampled_from(SOURCES["engine"].possible_faults)


class LedgerMachine(RuleBasedStateMachine):
    """Payers, retries, faults, the shop and time against one world."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.world = World(seed=7, clock=self.clock)
        self.final_statuses: dict[str, str] = {}
        self.reversed_early: set[str] = set()

    @rule(
        number=NUMBERS,
        choice=st.sampled_from(PAYMENT_CHOICES),
        fault=FAULTS,
        code=st.sampled_from(["1", "8", "9", "18"]),
        cleared=st.sampled_from([True] * 9 + [False]),
    )
    def submit(self, number: int, choice: tuple[str, tuple[Json, ...]], fault: Any, code: str, cleared: bool) -> None:
        order_id, legs = choice
        payment_id = f"pay_{number}"
        body = {
            "payment_id": payment_id,
            "order_id": order_id,
            "legs": legs,
            "fingerprint": str(choice),
            "auth_code": f"13{code}",
        }
        body |= ORDERS[order_id] | {"decision_id": self.cleared(payment_id, order_id) if cleared else "d_none"}
        submission = msgspec.convert(body, SubmitBody)
        known = self.world.engine.attempt(payment_id)
        answer = self.send(fault, lambda drawn: self.world.engine.submit(submission, payment_id, drawn))
        if answer and known:
            same = known.submission.fingerprint == submission.fingerprint
            assert answer.status == (200 if same else 422), "a known key never starts a new payment"

    @rule(number=NUMBERS, fault=FAULTS)
    def look_up(self, number: int, fault: Any) -> None:
        payment_id = self.choose_payment(number)
        self.send(fault, lambda _: self.world.engine.look_up(payment_id))

    @rule(number=NUMBERS, fault=FAULTS)
    def reverse(self, number: int, fault: Any) -> None:
        payment_id = self.choose_payment(number)
        answer = self.send(fault, lambda drawn: self.world.engine.reverse(payment_id, drawn))
        if answer and answer.status == 404 and fault is not PaymentFault.NO_SEAL:
            self.reversed_early.add(payment_id)

    @rule(number=NUMBERS, result=st.sampled_from(["SUCCEEDED", "SUCCEEDED", "FAILED"]))
    def the_payer_acts_elsewhere(self, number: int, result: Any) -> None:
        self.world.engine.settle(self.choose_payment(number), result)

    @rule(number=NUMBERS, paid=st.integers(0, 30_000_000))
    def the_payer_transfers_another_sum(self, number: int, paid: int) -> None:
        self.world.engine.settle(self.choose_payment(number), "SUCCEEDED", paid)

    @rule(order_id=st.sampled_from(list(ORDERS)), really=st.sampled_from([True, False, False]))
    def the_shop_closes(self, order_id: str, really: bool) -> None:
        if really:
            self.world.acquirer.close(order_id)

    @rule(minutes=st.sampled_from([0.1, 0.1, 0.1, 1, 14, 60, 600]))
    def time_passes(self, minutes: float) -> None:
        self.world.clock.advance(timedelta(minutes=minutes))

    @invariant()
    def the_audit_finds_nothing(self) -> None:
        assert self.world.audit() == []

    @invariant()
    def a_final_status_never_changes(self) -> None:
        for number in range(1, PAYMENTS + 1):
            attempt = self.world.engine.attempt(f"pay_{number}")
            if attempt and attempt.status in FINAL:
                assert self.final_statuses.setdefault(f"pay_{number}", attempt.status) == attempt.status

    @invariant()
    def a_payment_reversed_before_it_arrives_takes_nothing(self) -> None:
        assert not any(entry.source for entry in self.world.ledger.entries if entry.payment_id in self.reversed_early)

    @invariant()
    def the_acquirer_agrees_with_the_ledger(self) -> None:
        paid = {entry.order_id: entry for entry in self.world.ledger.entries if entry.what == "ORDER_PAID"}
        for order_id in ORDERS:
            result = self.world.acquirer.result(order_id) or {}
            assert (result["status"] == "PAID") == (order_id in paid)
            if order_id in paid:
                assert result["payment_id"] == paid[order_id].payment_id
                assert result["paid"]["value"] == paid[order_id].amount.value

    @invariant()
    def an_order_has_one_live_attempt_unless_it_is_closed(self) -> None:
        attempts = [self.world.engine.attempt(payment_id) for payment_id in self.world.engine.live]
        orders = [attempt.submission.order_id for attempt in attempts if attempt]
        assert len(set(orders)) == len(orders)

    @invariant()
    def the_balance_agrees_with_the_ledger(self) -> None:
        (account, *_) = self.world.holdings.accounts("u_1") or [{}]
        left = sum(entry.moved for entry in self.world.ledger.entries if entry.source == "BALANCE:acc_1")
        assert account["available"]["value"] == 10_000 - left

    def teardown(self) -> None:
        """Time ends the payments that wait for a payer; the other live ones can be reversed."""
        self.world.clock.advance(timedelta(minutes=1))
        self.world.catch_up()
        self.world.clock.advance(timedelta(days=3))
        self.world.catch_up()
        left = [attempt for payment_id in self.world.engine.live if (attempt := self.world.engine.attempt(payment_id))]
        assert not any(attempt.status == "ACTION_REQUIRED" for attempt in left)
        for attempt in left:
            self.world.engine.reverse(attempt.submission.payment_id)
        assert not self.world.engine.live
        assert self.world.audit() == []

    def choose_payment(self, number: int) -> str:
        """An even number gives any payment, an odd one a live payment, if there is one."""
        live = sorted(self.world.engine.live)
        return live[number % len(live)] if live and number % 2 else f"pay_{number}"

    def send(self, fault: Any, work: Work) -> UpstreamAnswer | None:
        return perform(self.world, CallConditions(0, fault), work)

    def cleared(self, payment_id: str, order_id: str) -> str:
        parties = {"payment_id": payment_id, "order_id": order_id, **ORDERS[order_id]}
        decided = self.world.risk.decide(DecisionBody(**parties, amount=Amount("CNY", 20_000), kind="QUICK_PAY"))
        if "challenge" in decided:
            self.world.risk.verify(decided["challenge"]["challenge_id"], VerifyBody(payment_id, "246810"))
        decision_id: str = decided["decision_id"]
        return decision_id


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(stateful_step_count=40)
