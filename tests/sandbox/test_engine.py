"""The engine takes money once, and the acquirer's order follows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from cashier.sandbox.records import Json
from cashier.sandbox.weather import PaymentFault
from cashier.sandbox.world import World

from . import contract
from .hand_clock import NOON, HandClock
from .paying import BY_CARD, CNY, balance, channel, payment, promotion, result, submission, submit


def test_a_quick_payment_pays_the_order(world: World) -> None:
    assert (
        submit(world, submission(world, legs=(promotion(1_000), channel("ch_quick_cmb", "c_2", 11_800)))).status
        == "SUCCEEDED"
    )
    order_result = result(world)
    assert (order_result.status, order_result.payment_id, order_result.paid) == (
        "PAID",
        "pay_1",
        contract.Money(currency=CNY, value=11_800),
    )
    order = msgspec.convert(world.acquirer.order("o_1001"), contract.Order)
    assert order.status == "PAID"


def test_a_repeated_submission_is_the_same_payment(world: World) -> None:
    body = submission(world, legs=(channel("ch_wallet_alipay"),))
    first = submit(world, body)
    assert first.status == "ACTION_REQUIRED"
    assert submit(world, body) == first
    world.engine.settle("pay_1", "SUCCEEDED")
    assert submit(world, body).status == "SUCCEEDED"
    assert result(world).paid == contract.Money(currency=CNY, value=12_800)


def test_every_answer_has_the_order_fingerprint_and_time_of_the_submit(world: World, clock: HandClock) -> None:
    first = submit(world, submission(world, fingerprint="f_9", legs=(channel("ch_wallet_alipay"),)))
    assert (first.order_id, first.fingerprint, first.submitted_at) == ("o_1001", "f_9", NOON)
    clock.advance(timedelta(minutes=3))
    for answer in (
        world.engine.look_up("pay_1"),
        world.engine.settle("pay_1", "FAILED"),
        world.engine.reverse("pay_1"),
    ):
        later = payment(answer)
        assert (later.order_id, later.fingerprint, later.submitted_at) == ("o_1001", "f_9", NOON)


def test_a_key_with_another_fingerprint_is_refused(world: World) -> None:
    submit(world, submission(world))
    answer = world.engine.submit(submission(world, fingerprint="f_2"), "pay_1")
    assert (answer.status, answer.body["code"]) == (422, "KEY_REUSED")


@pytest.mark.parametrize("key", ["", "pay_2"])
def test_the_idempotency_key_must_be_the_payment_id(world: World, key: str) -> None:
    answer = world.engine.submit(submission(world), key)
    assert (answer.status, answer.body["field"]) == (400, "Idempotency-Key")
    assert world.engine.look_up("pay_1").status == 404


def test_a_second_attempt_on_an_order_gets_the_id_of_the_live_one(world: World) -> None:
    submit(world, submission(world, "pay_1", legs=(channel("ch_wallet_alipay"),)))
    answer = world.engine.submit(submission(world, "pay_2"), "pay_2")
    assert (answer.status, answer.body) == (409, {"code": "ORDER_BUSY", "payment_id": "pay_1"})


def test_an_order_in_progress_elsewhere_is_busy(world: World) -> None:
    answer = world.engine.submit(submission(world, order_id="o_1006"), "pay_1")
    assert (answer.status, answer.body["payment_id"]) == (409, "pay_o_1006")


def test_an_order_can_be_paid_again_after_a_failed_attempt(world: World) -> None:
    submit(world, submission(world, "pay_1", legs=(channel("ch_wallet_alipay"),)))
    world.engine.settle("pay_1", "FAILED")
    assert result(world).status == "PENDING"
    assert submit(world, submission(world, "pay_2")).status == "SUCCEEDED"


def test_money_that_is_found_for_an_order_that_another_payment_paid_goes_back(world: World) -> None:
    submit(world, submission(world, "pay_1", legs=(channel("ch_wallet_alipay"),)))
    world.engine.settle("pay_1", "FAILED")
    submit(world, submission(world, "pay_2"))
    assert payment(world.engine.correct("pay_1")).status == "SUCCEEDED"
    assert (result(world).status, result(world).payment_id, world.audit()) == ("PAID", "pay_2", [])


def test_money_that_is_found_for_a_closed_order_goes_back(world: World) -> None:
    submit(world, submission(world, legs=(channel("ch_wallet_alipay"),)))
    world.engine.reverse("pay_1")
    world.acquirer.close("o_1001")
    assert payment(world.engine.correct("pay_1")).status == "SUCCEEDED"
    assert (result(world).status, world.audit()) == ("CLOSED_REFUNDING", [])


def test_a_payment_whose_coupon_is_used_up_is_not_corrected(world: World) -> None:
    legs = (promotion(1_000), channel("ch_wallet_alipay", value=11_800))
    submit(world, submission(world, "pay_1", legs=legs))
    world.engine.settle("pay_1", "FAILED")
    submit(world, submission(world, "pay_2", legs=(promotion(1_000), channel("ch_quick_cmb", "c_2", 11_800))))
    assert world.engine.correct("pay_1").body == {"code": "NOT_CORRECTABLE"}
    assert world.audit() == []


def test_a_paid_order_is_not_paid_again(world: World) -> None:
    submit(world, submission(world, "pay_1"))
    again = submit(world, submission(world, "pay_2"))
    assert again.failure == contract.Failure(code="ORDER_PAID", text="The order cannot be paid any more.")
    assert result(world).payment_id == "pay_1"


def test_an_order_that_does_not_exist_is_refused(world: World) -> None:
    answer = world.engine.submit(submission(world, order_id="o_404"), "pay_1")
    assert (answer.status, answer.body["code"]) == (422, "ORDER_UNKNOWN")


AT_A_TILL = {"order_id": "o_1014", "merchant_id": "m_2"}
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("ORDER_PAID", {"order_id": "o_1003"}),
    ("ORDER_CLOSED", {"order_id": "o_1004"}),
    ("ORDER_EXPIRED", {"order_id": "o_1005"}),
    ("PARTIES_MISMATCH", {"merchant_id": "m_2"}),
    ("PARTIES_MISMATCH", {"user_id": "u_2"}),
    ("AMOUNT_MISMATCH", {"legs": (channel("ch_quick_cmb", "c_2", 12_799),)}),
    ("AMOUNT_MISMATCH", {"legs": (channel("ch_quick_cmb", "c_2", currency="JPY"),)}),
    ("AMOUNT_MISMATCH", {"legs": (channel("ch_quick_cmb", "c_2", 12_801),)}),
    ("AMOUNT_MISMATCH", {"legs": (channel("ch_card_adyen", "tok_1", 12_800),)}),
    ("AMOUNT_MISMATCH", {"legs": (channel("ch_card_adyen", "tok_1", 12_929),)}),
    ("CHANNEL_UNAVAILABLE", {"legs": (channel("ch_net_boc"),), "alternatives": ("ch_card_adyen",)}),
    ("PROMOTION_GONE", {"legs": (promotion(500), promotion(500), channel("ch_quick_cmb", "c_2", 11_800))}),
    ("PROMOTION_GONE", {"legs": (promotion(2_000, "p_5"), channel("ch_quick_cmb", "c_2", 10_800))}),
    ("PROMOTION_GONE", {"legs": (promotion(1_000, "p_of_another"), channel("ch_quick_cmb", "c_2", 11_800))}),
    ("PROMOTION_MISMATCH", {"legs": (promotion(1_001), channel("ch_quick_cmb", "c_2", 11_799))}),
    ("PROMOTION_MISMATCH", {"legs": (promotion(641, "p_2"), channel("ch_quick_cmb", "c_2", 12_159))}),
    ("PROMOTION_MISMATCH", {"legs": (promotion(640, "p_2"), channel("ch_wallet_alipay", value=12_160))}),
    ("PROMOTION_MISMATCH", {"order_id": "o_1002", "legs": (promotion(1_000), channel("ch_quick_cmb", "c_2", 2_500))}),
    ("BALANCE_INSUFFICIENT", {"legs": (balance("acc_1", 6_400), balance("acc_1", 6_400))}),
    ("TOO_MANY_CHANNELS", {"legs": (BY_CARD, BY_CARD)}),
    ("RISK_NOT_CLEARED", {"decision_id": "d_none"}),
    ("BALANCE_INSUFFICIENT", {"legs": (balance("acc_1", 12_800),)}),
    ("BALANCE_INSUFFICIENT", {"legs": (balance("acc_3", 12_800),)}),
    ("BALANCE_INSUFFICIENT", {"legs": (balance("acc_none", 12_800),)}),
    ("CHANNEL_UNAVAILABLE", {"legs": (channel("ch_quick_boc", "c_5"),)}),
    ("CHANNEL_UNAVAILABLE", {"legs": (channel("ch_none", "c_2"),), "alternatives": ("ch_net_boc",)}),
    ("INSTRUMENT_DECLINED", {"legs": (channel("ch_quick_ccb", "c_3"),)}),
    ("INSTRUMENT_DECLINED", {"legs": (channel("ch_quick_abc", "c_4"),)}),
    ("INSTRUMENT_DECLINED", {"legs": (channel("ch_quick_cmb"),)}),
    ("INSTRUMENT_DECLINED", {"legs": (channel("ch_agreement_unionpay", "ag_2"),)}),
    (
        "INSTRUMENT_DECLINED",
        {"order_id": "o_1009", "merchant_id": "m_3", "legs": (channel("ch_agreement_unionpay", "ag_1", 7_700),)},
    ),
    ("PAYER_NOT_PROVEN", AT_A_TILL | {"legs": (balance("acc_1", 2_800),)}),
    ("PAYER_NOT_PROVEN", AT_A_TILL | {"legs": (channel("ch_quick_cmb", "c_2", 2_800),)}),
    ("PAYER_NOT_PROVEN", AT_A_TILL | {"legs": (channel("ch_agreement_unionpay", "ag_1", 2_800),)}),
    ("PAYER_NOT_PROVEN", AT_A_TILL | {"legs": (channel("ch_card_adyen", "tok_1", 2_828),)}),
    ("PAYER_NOT_PROVEN", {"order_id": "o_1017", "user_id": None, "legs": (channel("ch_wallet_alipay", None, 4_500),)}),
    ("PARTIES_MISMATCH", {"user_id": None}),
    ("AUTH_CODE_REQUIRED", {"legs": (channel("ch_cqr_alipay"),)}),
]


@pytest.mark.parametrize(("code", "fields"), REFUSED)
def test_a_refused_payment_fails_with_its_code_and_leaves_the_order_unchanged(
    world: World, code: str, fields: dict[str, Any]
) -> None:
    body = submission(world, **fields)
    before = world.acquirer.result(body.order_id)
    attempt = submit(world, body)
    assert attempt.status == "FAILED"
    assert attempt.failure is not None
    assert attempt.failure.code == code
    assert world.acquirer.result(body.order_id) == before


def test_balance_and_a_card_share_an_order(world: World) -> None:
    assert (
        submit(world, submission(world, legs=(balance("acc_1", 10_000), channel("ch_quick_cmb", "c_2", 2_800)))).status
        == "SUCCEEDED"
    )


def test_promotions_alone_can_pay_an_order(world: World) -> None:
    assert submit(world, submission(world, order_id="o_1011", legs=(promotion(288, "p_3"),))).status == "SUCCEEDED"
    assert result(world, "o_1011").paid == contract.Money(currency=CNY, value=0)


def test_an_alternative_channel_replaces_one_that_is_not_open(world: World) -> None:
    attempt = submit(
        world, submission(world, legs=(channel("ch_net_boc"),), alternatives=("ch_quick_boc", "ch_wallet_jd"))
    )
    assert isinstance(attempt.next_action, contract.Redirect)
    assert attempt.next_action.applink is not None
    assert "jd-pay" in attempt.next_action.applink


ACTIONS = [
    ("o_1001", "u_1", "m_1", channel("ch_net_icbc"), contract.Redirect),
    ("o_1001", "u_1", "m_1", channel("ch_wallet_wechat"), contract.Redirect),
    ("o_1014", "u_1", "m_2", channel("ch_mqr_alipay", value=2_800), contract.DisplayQr),
    ("o_6201", "u_62", "m_62", channel("ch_va_bca", value=25_000_000, currency="IDR"), contract.DisplayVa),
    ("o_8101", "u_81", "m_81", channel("ch_otc_lawson", value=4_980, currency="JPY"), contract.DisplayCode),
]


@pytest.mark.parametrize(("order_id", "user_id", "merchant_id", "leg", "action"), ACTIONS)
def test_a_kind_that_is_completed_elsewhere_waits_for_the_payer(
    world: World, order_id: str, user_id: str, merchant_id: str, leg: Json, action: type[contract.Strict]
) -> None:
    attempt = submit(world, submission(world, order_id=order_id, user_id=user_id, merchant_id=merchant_id, legs=(leg,)))
    assert attempt.status == "ACTION_REQUIRED"
    assert isinstance(attempt.next_action, action)
    assert result(world, order_id).status == "PAYING"
    assert payment(world.engine.look_up("pay_1")) == attempt, "a look-up changes nothing"
    assert payment(world.engine.settle("pay_1", "SUCCEEDED")).next_action is None
    assert result(world, order_id).status == "PAID"


def test_a_direct_debit_succeeds_at_the_second_look_up(world: World) -> None:
    assert submit(world, submission(world, legs=(channel("ch_agreement_unionpay", "ag_1"),))).status == "PROCESSING"
    assert [payment(world.engine.look_up("pay_1")).status for _ in range(3)] == ["PROCESSING", "SUCCEEDED", "SUCCEEDED"]


@pytest.mark.parametrize(
    ("code", "statuses"),
    [
        ("134567890123456780", ["SUCCEEDED", "SUCCEEDED"]),
        ("134567890123456788", ["USER_PAYING", "USER_PAYING", "USER_PAYING", "SUCCEEDED"]),
        ("134567890123456789", ["USER_PAYING", "USER_PAYING", "USER_PAYING", "USER_PAYING", "USER_PAYING"]),
    ],
)
def test_the_last_digit_of_a_scanned_code_determines_its_course(world: World, code: str, statuses: list[str]) -> None:
    body = submission(
        world, order_id="o_1014", merchant_id="m_2", legs=(channel("ch_cqr_wechat", value=2_800),), auth_code=code
    )
    seen = [submit(world, body).status, *(payment(world.engine.look_up("pay_1")).status for _ in statuses[1:])]
    assert seen == statuses


def test_a_scanned_code_is_used_once(world: World) -> None:
    leg = channel("ch_cqr_wechat", value=2_800)
    scan: dict[str, Any] = {"order_id": "o_1014", "merchant_id": "m_2", "legs": (leg,), "auth_code": "1349"}
    submit(world, submission(world, "pay_1", **scan))
    world.engine.reverse("pay_1")
    again = submit(world, submission(world, "pay_2", **scan))
    assert again.failure is not None
    assert again.failure.code == "AUTH_CODE_USED"


def test_a_reverse_ends_a_live_payment_and_frees_the_order(world: World) -> None:
    submit(world, submission(world, "pay_1", legs=(channel("ch_wallet_alipay"),)))
    attempt = payment(world.engine.reverse("pay_1"))
    assert attempt.failure is not None
    assert (attempt.status, attempt.failure.code) == ("FAILED", "REVERSED")
    assert payment(world.engine.settle("pay_1", "SUCCEEDED")).status == "FAILED"
    assert result(world).status == "PENDING"


def test_a_late_reverse_leaves_the_money_taken(world: World) -> None:
    submit(world, submission(world))
    assert payment(world.engine.reverse("pay_1")).status == "SUCCEEDED"
    assert result(world).status == "PAID"


def test_a_payment_reversed_before_it_arrives_takes_nothing(world: World) -> None:
    assert world.engine.reverse("pay_1").status == 404
    attempt = submit(world, submission(world))
    assert attempt.failure is not None
    assert attempt.failure.code == "REVERSED"
    assert result(world).status == "PENDING"


def test_money_for_an_order_closed_meanwhile_goes_back(world: World) -> None:
    submit(world, submission(world, legs=(channel("ch_wallet_alipay"),)))
    assert world.acquirer.close("o_1001")
    assert result(world).status == "CLOSED"
    assert payment(world.engine.settle("pay_1", "SUCCEEDED")).status == "SUCCEEDED"
    order_result = result(world)
    assert (order_result.status, order_result.closed_reason) == ("CLOSED_REFUNDING", "CLOSED_BY_MERCHANT")
    assert msgspec.convert(world.acquirer.order("o_1001"), contract.Order).status == "CLOSED"


def test_a_failed_attempt_does_not_reopen_a_closed_order(world: World) -> None:
    submit(world, submission(world, legs=(channel("ch_wallet_alipay"),)))
    world.acquirer.close("o_1001")
    world.engine.reverse("pay_1")
    assert result(world).status == "CLOSED"


VA: dict[str, Any] = {
    "order_id": "o_6201",
    "user_id": "u_62",
    "merchant_id": "m_62",
    "legs": (channel("ch_va_bca", value=25_000_000, currency="IDR"),),
}


def test_money_for_an_order_expired_meanwhile_goes_back(world: World, clock: HandClock) -> None:
    clock.advance(timedelta(hours=1))
    submit(world, submission(world, **VA))
    clock.advance(timedelta(hours=23))
    assert result(world, "o_6201").status == "PAYING", "its account number is still valid"
    assert payment(world.engine.settle("pay_1", "SUCCEEDED")).status == "SUCCEEDED"
    order_result = result(world, "o_6201")
    assert (order_result.status, order_result.closed_reason) == ("CLOSED_REFUNDING", "EXPIRED")


def test_an_order_that_expires_without_an_attempt_is_closed(world: World, clock: HandClock) -> None:
    clock.advance(timedelta(hours=24))
    order_result = result(world)
    assert (order_result.status, order_result.closed_reason) == ("CLOSED", "EXPIRED")


@pytest.mark.parametrize(
    ("leg", "minutes"),
    [
        (channel("ch_net_icbc"), 30),
        (channel("ch_wallet_alipay"), 14),
        (channel("ch_card_adyen", "tok_3ds_1", 12_928), 15),
    ],
)
def test_an_attempt_that_expires_frees_the_order(world: World, clock: HandClock, leg: Json, minutes: int) -> None:
    submit(world, submission(world, legs=(leg,)))
    clock.advance(timedelta(minutes=minutes, seconds=-1))
    assert payment(world.engine.look_up("pay_1")).status == "ACTION_REQUIRED"
    clock.advance(timedelta(seconds=1))
    attempt = payment(world.engine.look_up("pay_1"))
    assert attempt.failure is not None
    assert (attempt.status, attempt.failure.code) == ("FAILED", "EXPIRED")
    assert payment(world.engine.settle("pay_1", "SUCCEEDED")).status == "FAILED"
    assert submit(world, submission(world, "pay_2")).status == "SUCCEEDED"


def test_an_attempt_also_expires_when_only_the_order_is_read(world: World, clock: HandClock) -> None:
    submit(world, submission(world, legs=(channel("ch_wallet_alipay"),)))
    clock.advance(timedelta(minutes=14))
    world.catch_up()
    assert result(world).status == "PENDING"


def test_a_3ds_card_is_redirected_to_the_bank_page(world: World) -> None:
    attempt = submit(world, submission(world, legs=(channel("ch_card_adyen", "tok_3ds_1", 12_928),)))
    assert isinstance(attempt.next_action, contract.Redirect)
    world.engine.settle("pay_1", "SUCCEEDED")
    assert result(world).paid == contract.Money(currency=CNY, value=12_928)


def test_a_declined_card_leaves_the_order_unchanged(world: World) -> None:
    attempt = submit(world, submission(world, legs=(channel("ch_card_adyen", "tok_declined_1", 12_928),)))
    assert attempt.failure is not None
    assert (attempt.failure.code, result(world).status) == ("CHANNEL_DECLINED", "PENDING")


def test_a_reversed_merchant_code_takes_nothing_when_scanned(world: World) -> None:
    scan: dict[str, Any] = {"order_id": "o_1014", "merchant_id": "m_2"}
    submit(world, submission(world, "pay_1", legs=(channel("ch_mqr_alipay", value=2_800),), **scan))
    busy = world.engine.submit(
        submission(world, "pay_2", legs=(channel("ch_mqr_wechat", value=2_800),), **scan), "pay_2"
    )
    assert (busy.status, busy.body["payment_id"]) == (409, "pay_1")
    world.engine.reverse("pay_1")
    assert payment(world.engine.settle("pay_1", "SUCCEEDED")).status == "FAILED"
    assert result(world, "o_1014").status == "PENDING"
    assert [entry.what for entry in world.ledger.entries] == ["FAILED"]


def test_an_order_of_a_generated_user_can_be_paid(world: World) -> None:
    request = world.population.generated.consult_request(100_003)
    leg = channel("ch_wallet_alipay", value=request["amount"]["value"])
    order = {name: request[name] for name in ("order_id", "user_id", "merchant_id")}
    submit(world, submission(world, legs=(leg,), **order))
    world.engine.settle("pay_1", "SUCCEEDED")
    assert result(world, "o_100003").status == "PAID"


@pytest.mark.parametrize("order_id", ["o_1003", "o_1004", "o_404"])
def test_a_finished_order_cannot_be_closed(world: World, order_id: str) -> None:
    assert not world.acquirer.close(order_id)


def test_a_channel_with_a_step_is_paid_in_multiples_of_it(clock: HandClock) -> None:
    """KNET: the fee of 1.25 % on 12.587 dinars, and the last digit 0."""
    world = World(clock=clock)
    rail = next(rail for rail in world.population.all_channels if rail["channel_id"] == "ch_card_tap")
    assert (rail["step"], rail["fee_bps"]) == (10, 125)
    odd = submit_of_kuwait(world, "pay_1", 12_750 + 159)
    assert odd.failure is not None
    assert odd.failure.code == "AMOUNT_MISMATCH"
    fair = submit_of_kuwait(world, "pay_2", 12_750 + 150)
    assert fair.status == "SUCCEEDED"
    assert world.audit() == []


def submit_of_kuwait(world: World, payment_id: str, value: int) -> contract.Payment:
    leg = channel("ch_card_tap", "tok_1", value, "KWD")
    body = submission(world, payment_id, legs=(leg,), order_id="o_96501", user_id="u_965", merchant_id="m_965")
    return submit(world, body)


def test_the_first_reason_of_a_reversal_is_kept_also_for_a_payment_that_never_arrived(world: World) -> None:
    for reason in ("EXPIRED", "CANCELLED", None):
        assert world.engine.reverse("pay_1", reason=reason).body["reversal_reason"] == "EXPIRED"
    assert world.engine.look_up("pay_1").body["reversal_reason"] == "EXPIRED"
    assert submit(world, submission(world)).reversal_reason == "EXPIRED"
    assert payment(world.engine.reverse("pay_1", reason="CANCELLED")).reversal_reason == "EXPIRED"


def test_a_live_payment_keeps_the_reason_that_ended_it(world: World) -> None:
    submit(world, submission(world, legs=(channel("ch_wallet_alipay"),)))
    for reason in ("CANCELLED", "EXPIRED"):
        assert payment(world.engine.reverse("pay_1", reason=reason)).reversal_reason == "CANCELLED"


def test_an_engine_that_does_not_seal_takes_what_it_was_asked_to_reverse(world: World) -> None:
    assert world.engine.reverse("pay_1", PaymentFault.NO_SEAL, "CANCELLED").body == {"code": "PAYMENT_UNKNOWN"}
    assert world.engine.look_up("pay_1").status == 404
    assert submit(world, submission(world)).status == "SUCCEEDED"


def test_an_engine_may_forget_what_it_refused(world: World) -> None:
    world.acquirer.close("o_1001")
    refused = world.engine.submit(submission(world), "pay_1", PaymentFault.FORGET)
    assert payment(refused).status == "FAILED"
    assert world.engine.look_up("pay_1").status == 404
    assert world.audit() == []
