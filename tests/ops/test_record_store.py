"""What the operations port keeps of records and payments, and for how long."""

from __future__ import annotations

from itertools import accumulate

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cashier.ops.record_store import KEPT_S, PaymentFate, RecordStore
from cashier.telemetry.records import ConsultationRecord, Verdict
from cashier.telemetry.worker_state import PaymentsState
from tests.telemetry.sample_records import payment, record, state

LIVE, ENDED, LEFT = PaymentFate
# Of a sample record beside its text, as the store counts it: more than it is.
ENTRY_BYTES = 1_000


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


PUTS = st.lists(st.tuples(st.booleans(), st.integers(1, 3_000)), max_size=150)


@given(PUTS)
def test_records_of_good_consultations_take_no_more_than_half_from_those_of_bad_ones(
    puts: list[tuple[bool, int]],
) -> None:
    most_bytes = 20_000
    rig = Rig(most_bytes)
    for number, (bad, size) in enumerate(puts):
        verdicts = (Verdict.DEGRADED, Verdict.SAMPLED) if bad else (Verdict.SAMPLED,)
        rig.put(record(request_id=f"r_{number}", product="x" * size, verdicts=verdicts))
        assert rig.store.bytes_held <= most_bytes
    kept = [each.request_id for each in rig.store.records()]
    assert kept == sorted(kept, key=lambda name: -int(name[2:])), "the latest first"
    bad_sizes = [size for bad, size in puts if bad]
    of_bad = [each.request_id for each in rig.store.records(bad=True)]
    of_good = [each.request_id for each in rig.store.records(bad=False)]
    assert sorted(of_bad + of_good) == sorted(kept)
    assert of_bad == [f"r_{number}" for number, (bad, _) in enumerate(puts) if bad][::-1][: len(of_bad)]
    # Of the last bad ones, as many as half of the memory has room for.
    entries = accumulate(size + ENTRY_BYTES for size in reversed(bad_sizes))
    assert len(of_bad) >= sum(total <= most_bytes // 2 for total in entries)


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
