"""What the operations port keeps of records and payments, and for how long."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from cashier.ops.record_store import KEPT_S, PaymentFate, RecordStore
from cashier.telemetry.records import ConsultationRecord
from cashier.telemetry.worker_state import PaymentsState
from tests.telemetry.sample_records import payment, record, state

LIVE, ENDED, LEFT = PaymentFate


class Rig:
    def __init__(self, most_bytes: int = 1 << 20) -> None:
        self.now_s = 1_000.0
        self.store = RecordStore(lambda: self.now_s, most_bytes)

    def put(self, each: ConsultationRecord) -> None:
        self.store.put_record(each, msgspec.json.encode(each))


def test_records_are_found_by_order_and_by_request_the_latest_first() -> None:
    rig = Rig()
    for number in range(6):
        rig.put(record(order_id=f"o_{number % 2}", request_id=f"r_{number}"))
    assert [each.request_id for each in rig.store.records()] == ["r_5", "r_4", "r_3", "r_2", "r_1", "r_0"]
    assert [each.request_id for each in rig.store.records(order_id="o_1")] == ["r_5", "r_3", "r_1"]
    assert list(rig.store.records(request_id="r_2")) == [record(order_id="o_0", request_id="r_2")]


def test_records_are_kept_for_an_hour() -> None:
    rig = Rig()
    rig.put(record(request_id="r_1"))
    rig.now_s += KEPT_S / 2
    rig.put(record(request_id="r_2"))
    rig.now_s += KEPT_S / 2 + 1
    assert [each.request_id for each in rig.store.records()] == ["r_2"]
    rig.now_s += KEPT_S
    assert list(rig.store.records()) == []
    assert rig.store.bytes_held == 0


def test_beyond_the_bound_the_oldest_go() -> None:
    rig = Rig(most_bytes=20_000)
    for number in range(100):
        rig.put(record(request_id=f"r_{number}"))
        assert rig.store.bytes_held <= 20_000
    kept = [each.request_id for each in rig.store.records()]
    assert kept == [f"r_{99 - index}" for index in range(len(kept))]
    assert 10 < len(kept) < 100


def test_unsettled_payments_stay_when_they_end_or_their_worker_does() -> None:
    rig = Rig()
    rig.store.put_state(state(1, payment("p_1"), payment("p_2")))
    rig.store.put_state(state(2, payment("p_3"), at=5.0))
    assert [(each.payment.payment_id, each.worker, each.fate) for each in rig.store.payments()] == [
        ("p_3", 2, LIVE), ("p_2", 1, LIVE), ("p_1", 1, LIVE),
    ]  # fmt: skip
    rig.store.put_state(state(1, payment("p_1", status="ACTION_REQUIRED")))
    rig.store.worker_left(2)
    assert {each.payment.payment_id: (each.payment.status, each.fate) for each in rig.store.payments()} == {
        "p_1": ("ACTION_REQUIRED", LIVE), "p_2": ("PROCESSING", ENDED), "p_3": ("PROCESSING", LEFT),
    }  # fmt: skip
    assert list(rig.store.states) == [1]


def test_payments_are_kept_for_an_hour_after_they_were_seen_last() -> None:
    rig = Rig()
    rig.store.put_state(state(1, payment("p_1"), payment("p_2")))
    rig.now_s += KEPT_S - 1
    rig.store.put_state(state(1, payment("p_2")))
    rig.now_s += 2
    assert [each.payment.payment_id for each in rig.store.payments()] == ["p_2"]


def test_a_payment_that_a_worker_has_no_room_to_name_has_not_ended() -> None:
    rig = Rig()
    rig.store.put_state(state(1, payment("p_1")))
    crowded = state(1, payment("p_2"))
    rig.store.put_state(replace(crowded, payments=PaymentsState(2, 0, (payment("p_2"),))))
    assert {each.payment.payment_id: each.fate for each in rig.store.payments()} == {"p_1": LIVE, "p_2": LIVE}
