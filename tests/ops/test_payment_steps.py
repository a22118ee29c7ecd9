"""The steps of a payment by its id: what the port keeps of them, and how operators see them."""

from __future__ import annotations

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cashier.ops.record_store import RecordStore
from cashier.ops.records_endpoint import records_routes
from cashier.ops.step_store import KEPT_S, MOST_STEPS, StepStore
from cashier.payments.step_feed import PaymentStep
from tests.ops.fixtures import AT, Port


def step(event: str = "engine answered", payment_id: str = "pay_1", at: float = AT, **more: object) -> PaymentStep:
    given = {"worker": 7, "order_id": "o_1", "kind": "WALLET", "step": "submit", "level": "info", "request_id": "r_1"}
    return msgspec.convert({"type": "payment_step", "at": at, "event": event, "payment_id": payment_id}
                           | given | more, PaymentStep)  # fmt: skip


class Rig:
    def __init__(self, most_bytes: int = 1 << 20) -> None:
        self.now_s = 1_000.0
        self.store = StepStore(lambda: self.now_s, most_bytes)

    def put(self, each: PaymentStep) -> None:
        self.store.put(each.payment_id, msgspec.json.encode(each))


def test_the_steps_of_a_payment_come_in_the_order_of_their_ends_whichever_worker_took_them() -> None:
    rig = Rig()
    first, second = step(at=AT, worker=7), step("payment ended", at=AT + 1, worker=8, fields={"status": "SUCCEEDED"})
    for each in (second, step(payment_id="pay_2"), first):
        rig.put(each)
    assert rig.store.steps("pay_1") == (first, second)
    assert rig.store.steps("pay_3") == ()


def test_all_steps_of_a_payment_are_kept_for_an_hour_after_the_last_one() -> None:
    rig = Rig()
    rig.put(step())
    rig.put(step(payment_id="pay_2"))
    rig.now_s += KEPT_S - 1
    rig.put(step("payment ended"))
    rig.now_s += 2
    assert rig.store.steps("pay_2") == ()
    assert len(rig.store.steps("pay_1")) == 2
    rig.now_s += KEPT_S
    assert rig.store.steps("pay_1") == ()
    assert rig.store.bytes_held == 0


def test_beyond_the_bound_the_payment_goes_whose_last_step_is_the_oldest() -> None:
    rig = Rig(most_bytes=20_000)
    for number in range(100):
        rig.put(step(payment_id=f"pay_{number}"))
        rig.put(step(payment_id="pay_busy"))
        assert rig.store.bytes_held <= 20_000
    kept = [number for number in range(100) if rig.store.steps(f"pay_{number}")]
    assert kept == list(range(100 - len(kept), 100))
    assert len(kept) > 2
    assert rig.store.steps("pay_busy")


def test_of_a_payment_that_is_submitted_again_and_again_the_last_steps_stay() -> None:
    rig = Rig()
    for number in range(MOST_STEPS + 20):
        rig.put(step(at=AT + number))
    assert [each.at - AT for each in rig.store.steps("pay_1")] == list(range(20, MOST_STEPS + 20))
    before = rig.store.bytes_held
    rig.put(step(at=AT + MOST_STEPS))
    assert rig.store.bytes_held == before


def test_the_port_answers_the_steps_of_a_payment_as_json() -> None:
    store = RecordStore()
    found = step(fields={"code": "STATUS_5XX", "elapsed_ms": 12.5, "flags": ["TO_REVERSE"]})
    store.steps.put("pay_1", msgspec.json.encode(found))
    client = TestClient(Starlette(routes=records_routes(store)))
    assert client.get("/api/payments/pay_1/steps").json() == {"steps": [msgspec.to_builtins(found)]}
    assert client.get("/api/payments/pay_2/steps").json() == {"steps": []}


@pytest.fixture
def port() -> Port:
    port = Port()
    for each in (
        step("no decision from risk", level="warning", step="risk", fields={"code": "TIMEOUT", "elapsed_ms": 700.0}),
        step("payment ended", at=AT + 2.5, fields={"status": "FAILED", "flags": ["REVERSED", "CORRECTED"]}),
    ):
        port.state.records.steps.put("pay_1", msgspec.json.encode(each))
    return port


def test_the_console_shows_the_steps_with_times_and_codes(port: Port) -> None:
    html = port.client().get("/payments/steps?payment_id=%20pay_1").text
    assert html.index("no decision from risk") < html.index("payment ended")
    for shown in ("code <b>TIMEOUT</b>", "700 ms", "2.5 s", "flags <b>REVERSED, CORRECTED</b>", "r_1", "o_1"):
        assert shown in html
    assert html.count("<caption") == html.count("<table")


def test_a_payment_without_steps_is_explained_and_its_id_is_not_markup(port: Port) -> None:
    answer = port.client().get("/payments/steps", params={"payment_id": '"><script>'})
    assert answer.status_code == 404
    assert "<script>" not in answer.text.replace('<script src="/assets/console.js" defer>', "")
    assert "kept for an hour" in answer.text
    assert port.client().get("/payments/steps").status_code == 404


def test_the_page_of_payments_asks_for_an_id() -> None:
    assert 'action="/payments/steps"' in Port().client().get("/payments").text
