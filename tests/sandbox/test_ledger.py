"""Holdings fall with payments and rise with their undoing; the ledger records every step."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cashier.sandbox.read_sources import SourceReader
from cashier.sandbox.records import Json
from cashier.sandbox.world import World

from .hand_clock import HandClock
from .paying import balance, channel, payment, promotion, result, submission, submit

VA: dict[str, Any] = {
    "order_id": "o_6201",
    "user_id": "u_62",
    "merchant_id": "m_62",
    "legs": (channel("ch_va_bca", value=25_000_000, currency="IDR"),),
}
WALLET_AND_MORE = (promotion(1_000), balance("acc_1", 5_000), channel("ch_wallet_alipay", value=6_800))


def read_source(world: World, source: str) -> Json:
    parameters = {"user_id": "u_1", "merchant_id": "m_1", "currency": "CNY", "value": 12_800}
    return SourceReader(world).look_up(source, parameters).body


def balance_of_acc_1(world: World) -> int:
    value: int = read_source(world, "balance")["accounts"][0]["available"]["value"]
    return value


def promotions(world: World) -> set[str]:
    return {promotion["promotion_id"] for promotion in read_source(world, "marketing")["promotions"]}


def used(world: World, period: str, **scope: str) -> int:
    quotas = read_source(world, "quota")["quotas"]
    value: int = next(quota for quota in quotas if quota["scope"] == scope)[period]["used"]["value"]
    return value


def entries(world: World) -> list[tuple[str, str | None, int]]:
    return [(entry.what, entry.source, entry.amount.value) for entry in world.ledger.entries]


def test_a_payment_reduces_the_balance(world: World) -> None:
    submit(world, submission(world, order_id="o_1002", legs=(balance("acc_1", 3_500),)))
    assert balance_of_acc_1(world) == 6_500
    assert entries(world) == [
        ("TAKEN", "BALANCE:acc_1", 3_500),
        ("SUCCEEDED", None, 3_500),
        ("ORDER_PAID", None, 3_500),
    ]


def test_a_balance_is_not_spent_twice(world: World) -> None:
    submit(world, submission(world, "pay_1", order_id="o_1002", legs=(balance("acc_1", 3_500),)))
    submit(world, submission(world, "pay_2", order_id="o_1017", legs=(balance("acc_1", 4_500),)))
    refused = submit(
        world,
        submission(
            world, "pay_3", order_id="o_1001", legs=(balance("acc_1", 2_001), channel("ch_quick_cmb", "c_2", 10_799))
        ),
    )
    assert refused.failure is not None
    assert refused.failure.code == "BALANCE_INSUFFICIENT"
    assert balance_of_acc_1(world) == 2_000


def test_a_live_attempt_holds_balance_and_coupon_and_returns_them_when_reversed(world: World) -> None:
    before = promotions(world)
    submit(world, submission(world, legs=WALLET_AND_MORE))
    assert (balance_of_acc_1(world), before - promotions(world)) == (5_000, {"p_1"})
    world.engine.reverse("pay_1")
    assert (balance_of_acc_1(world), promotions(world)) == (10_000, before)
    assert entries(world)[2:] == [
        ("RETURNED", "PROMOTION:p_1", 1_000),
        ("RETURNED", "BALANCE:acc_1", 5_000),
        ("FAILED", None, 11_800),
    ]


def test_a_coupon_is_used_once(world: World) -> None:
    submit(world, submission(world, "pay_1", order_id="o_1011", legs=(promotion(288, "p_3"),)))
    refused = submit(
        world, submission(world, "pay_2", order_id="o_1002", legs=(promotion(288, "p_3"), balance("acc_1", 3_212)))
    )
    assert refused.failure is not None
    assert refused.failure.code == "PROMOTION_GONE"
    assert "p_3" not in promotions(world)


def test_a_closed_order_returns_coupon_and_money(world: World) -> None:
    before = promotions(world)
    submit(world, submission(world, legs=WALLET_AND_MORE))
    world.acquirer.close("o_1001")
    world.engine.settle("pay_1", "SUCCEEDED")
    assert result(world).status == "CLOSED_REFUNDING"
    assert (balance_of_acc_1(world), promotions(world)) == (10_000, before)
    assert {what for what, *_ in entries(world)[-3:]} == {"REFUNDED"}
    assert world.audit() == []


def test_a_payment_counts_against_every_matching_limit_and_no_other(world: World) -> None:
    before = {
        kind: used(world, "daily", kind="QUICK_PAY", **scope)
        for kind, scope in (("bank", {"bank": "CMB"}), ("card", {"card_id": "c_1"}))
    }
    submit(world, submission(world))
    assert used(world, "daily", kind="QUICK_PAY", bank="CMB") == before["bank"] + 12_800
    assert used(world, "monthly", kind="QUICK_PAY") == 2_310_000 + 12_800
    assert used(world, "daily", kind="QUICK_PAY", card_id="c_1") == before["card"]
    assert used(world, "daily", kind="BALANCE") == 31_000


def test_a_balance_payment_counts_against_the_balance_limit(world: World) -> None:
    submit(world, submission(world, order_id="o_1002", legs=(balance("acc_1", 3_500),)))
    assert used(world, "daily", kind="BALANCE") == 34_500


def test_the_daily_limit_resets_at_midnight_in_the_payers_time_zone(world: World, clock: HandClock) -> None:
    submit(world, submission(world))
    world.clock.advance(timedelta(hours=3, minutes=59))
    assert used(world, "daily", kind="QUICK_PAY", bank="CMB") == 132_800, "a minute to midnight in China"
    world.clock.advance(timedelta(minutes=1))
    assert used(world, "daily", kind="QUICK_PAY", bank="CMB") == 0
    assert used(world, "monthly", kind="QUICK_PAY", bank="CMB") == 912_800
    world.clock.advance(timedelta(days=31))
    assert used(world, "monthly", kind="QUICK_PAY", bank="CMB") == 0


@pytest.mark.parametrize("source", ["balance", "marketing", "quota", "card", "member"])
def test_an_answer_is_cached_until_it_changes(world: World, source: str) -> None:
    lookups = SourceReader(world)
    parameters = {"user_id": "u_1", "merchant_id": "m_1", "currency": "CNY", "value": 12_800}
    first = lookups.look_up(source, parameters)
    assert lookups.look_up(source, parameters) is first
    submit(
        world,
        submission(world, legs=(promotion(1_000), balance("acc_1", 5_000), channel("ch_quick_cmb", "c_2", 6_800))),
    )
    again = lookups.look_up(source, parameters)
    assert (again is first) == (source in ("card", "member"))
    assert (again.body == first.body) == (source in ("card", "member"))


def test_a_transfer_that_is_too_small_goes_back_and_the_account_stays_open(world: World) -> None:
    submit(world, submission(world, **VA))
    assert payment(world.engine.settle("pay_1", "SUCCEEDED", 24_999_999)).status == "ACTION_REQUIRED"
    assert entries(world) == [("TAKEN", "CHANNEL:ch_va_bca", 24_999_999), ("REFUNDED", "CHANNEL:ch_va_bca", 24_999_999)]
    assert payment(world.engine.settle("pay_1", "SUCCEEDED", 25_000_000)).status == "SUCCEEDED"
    assert world.audit() == []


def test_the_excess_of_a_transfer_goes_back(world: World) -> None:
    submit(world, submission(world, **VA))
    assert payment(world.engine.settle("pay_1", "SUCCEEDED", 25_000_007)).status == "SUCCEEDED"
    assert entries(world)[:2] == [("TAKEN", "CHANNEL:ch_va_bca", 7), ("REFUNDED", "CHANNEL:ch_va_bca", 7)]
    assert (result(world, "o_6201").status, world.audit()) == ("PAID", [])


def test_a_late_transfer_goes_back_and_changes_nothing_else(world: World, clock: HandClock) -> None:
    # The account then expires before the order.
    clock.now -= timedelta(hours=2)
    submit(world, submission(world, **VA))
    clock.advance(timedelta(hours=24, minutes=1))
    late = payment(world.engine.settle("pay_1", "SUCCEEDED"))
    assert late.failure is not None
    assert (late.status, late.failure.code) == ("FAILED", "EXPIRED")
    assert entries(world)[-2:] == [
        ("TAKEN", "CHANNEL:ch_va_bca", 25_000_000),
        ("REFUNDED", "CHANNEL:ch_va_bca", 25_000_000),
    ]
    assert (result(world, "o_6201").status, world.audit()) == ("PENDING", [])


@pytest.mark.parametrize("leg", [channel("ch_wallet_alipay"), channel("ch_net_icbc")])
def test_a_fixed_amount_cannot_be_settled_with_another_sum(world: World, leg: Json) -> None:
    submit(world, submission(world, legs=(leg,)))
    assert world.engine.settle("pay_1", "SUCCEEDED", 12_799).status == 422
    assert entries(world) == []


def test_a_refusal_is_recorded_and_takes_nothing(world: World) -> None:
    submit(world, submission(world, decision_id="d_none", legs=WALLET_AND_MORE))
    assert entries(world) == [("REFUSED", None, 11_800)]
    assert balance_of_acc_1(world) == 10_000


def test_a_cached_limit_is_dropped_at_midnight(world: World) -> None:
    lookups = SourceReader(world)
    parameters = {"user_id": "u_1", "currency": "CNY"}
    before = lookups.look_up("quota", parameters).body["quotas"][0]["daily"]["used"]["value"]
    world.clock.advance(timedelta(hours=4))
    assert (before, lookups.look_up("quota", parameters).body["quotas"][0]["daily"]["used"]["value"]) == (120_000, 0)


@pytest.mark.parametrize(("source", "status"), [("order", "PENDING"), ("acquirer", "PENDING")])
def test_reading_an_order_first_expires_its_attempt(world: World, source: str, status: str) -> None:
    submit(world, submission(world, legs=WALLET_AND_MORE))
    world.clock.advance(timedelta(minutes=14))
    assert SourceReader(world).look_up(source, {"order_id": "o_1001"}).body["status"] == status


def test_reading_a_balance_first_expires_the_attempt_that_holds_it(world: World) -> None:
    submit(world, submission(world, legs=WALLET_AND_MORE))
    world.clock.advance(timedelta(minutes=14))
    assert balance_of_acc_1(world) == 10_000
