"""Limits, one minor unit to either side, on the amount really paid; and their remedies."""

from __future__ import annotations

from typing import Any

import pytest

from cashier.domain.limits import smallest_carried
from cashier.domain.money import share_half_up
from cashier.domain.pay_method import Availability, Kind, Limits, PayMethod, ReasonCode, Remedy, RemedyType
from tests.domain.builders import World, account, agreement, card, channel, cny, order, promotion, quota, with_terms

AVAILABLE, UNAVAILABLE = Availability.AVAILABLE, Availability.UNAVAILABLE


def wallet(amount: int, *quotas: Any, promotions: Any = (), **changes: Any) -> PayMethod:
    world = World(
        order=order(amount), channels=(channel(Kind.WALLET, "A", **changes),), quotas=quotas, promotions=promotions
    )
    return world.method("WALLET:A")


def refused(method: PayMethod) -> tuple[ReasonCode, str | None, Remedy | None] | None:
    return None if method.reason is None else (method.reason.code, method.reason.source, method.reason.remedy)


def reduce_to(value: int) -> Remedy:
    return Remedy(RemedyType.REDUCE_AMOUNT, cny(value))


def test_a_channel_carries_its_minimum_and_not_one_unit_less() -> None:
    assert refused(wallet(500, least=500)) is None
    assert refused(wallet(499, least=500)) == (ReasonCode.BELOW_MIN, "channel", None)


def test_a_channel_carries_its_maximum_and_not_one_unit_more() -> None:
    assert refused(wallet(500, most=500)) is None
    assert refused(wallet(501, most=500)) == (ReasonCode.ABOVE_SINGLE_LIMIT, "channel", reduce_to(500))


@pytest.mark.parametrize(
    ("limit", "code", "left"),
    [
        ({"single": 500}, ReasonCode.ABOVE_SINGLE_LIMIT, 500),
        ({"daily": (800, 300)}, ReasonCode.DAILY_LIMIT_EXCEEDED, 500),
        ({"monthly": (9_000, 8_500)}, ReasonCode.MONTHLY_LIMIT_EXCEEDED, 500),
    ],
)
def test_a_quota_allows_its_rest_and_not_one_unit_more(limit: dict[str, Any], code: ReasonCode, left: int) -> None:
    assert refused(wallet(left, quota(Kind.WALLET, **limit))) is None
    assert refused(wallet(left + 1, quota(Kind.WALLET, **limit))) == (code, "quota", reduce_to(left))


def test_the_single_limit_is_tested_before_the_day_and_the_day_before_the_month() -> None:
    def speaks(**limits: Any) -> ReasonCode | None:
        reason = wallet(10, quota(Kind.WALLET, **limits)).reason
        return None if reason is None else reason.code

    assert speaks(single=1, daily=(2, 0), monthly=(3, 0)) is ReasonCode.ABOVE_SINGLE_LIMIT
    assert speaks(daily=(2, 0), monthly=(3, 0)) is ReasonCode.DAILY_LIMIT_EXCEEDED
    assert speaks(monthly=(3, 0)) is ReasonCode.MONTHLY_LIMIT_EXCEEDED


def test_the_tightest_limit_wins_for_single_day_and_month() -> None:
    method = wallet(
        10,
        quota(Kind.WALLET, single=900, daily=(1_000, 600), monthly=(5_000, 0)),
        quota(Kind.WALLET, bank="A", single=700, daily=(900, 100)),
        quota(Kind.WALLET, channel_id="WALLET:A", single=800, monthly=(4_000, 1_500)),
        most=1_000,
    )
    assert method.limits == Limits(cny(700), cny(400), cny(2_500))


def test_the_channels_own_maximum_is_one_of_the_limits_on_a_single_payment() -> None:
    assert wallet(10, quota(Kind.WALLET, single=900), most=600).limits == Limits(cny(600), None, None)
    assert refused(wallet(601, quota(Kind.WALLET, single=900), most=600)) == (
        ReasonCode.ABOVE_SINGLE_LIMIT,
        "channel",
        reduce_to(600),
    )
    assert refused(wallet(601, quota(Kind.WALLET, single=600), most=600)) == (
        ReasonCode.ABOVE_SINGLE_LIMIT,
        "quota",
        reduce_to(600),
    )


def test_a_used_up_or_overdrawn_quota_leaves_nothing_and_has_no_remedy() -> None:
    for used in (500, 501):
        method = wallet(1, quota(Kind.WALLET, daily=(500, used)))
        assert refused(method) == (ReasonCode.DAILY_LIMIT_EXCEEDED, "quota", None)
        assert method.limits is not None
        assert method.limits.daily_remaining == cny(0)


@pytest.mark.parametrize(
    ("scope", "applies"),
    [
        ({}, True),
        ({"bank": "CMB"}, True),
        ({"bank": "ICBC"}, False),
        ({"card_id": "c_CMB"}, True),
        ({"card_id": "c_ICBC"}, False),
        ({"channel_id": "QUICK_PAY:CMB"}, True),
        ({"channel_id": "QUICK_PAY:ICBC"}, False),
        ({"bank": "CMB", "card_id": "c_ICBC"}, False),
        ({"bank": "ICBC", "card_id": "c_CMB"}, False),
        ({"bank": "CMB", "card_id": "c_CMB", "channel_id": "QUICK_PAY:CMB"}, True),
    ],
)
def test_a_quota_covers_all_that_its_scope_does_not_exclude(scope: dict[str, Any], applies: bool) -> None:
    world = World(
        cards=(card("CMB"),),
        channels=(channel(Kind.QUICK_PAY, "CMB"),),
        quotas=(quota(Kind.QUICK_PAY, single=1, **scope),),
    )
    assert (world.method("QUICK_PAY:c_CMB").availability is UNAVAILABLE) is applies


def test_a_quota_of_another_kind_does_not_apply() -> None:
    assert refused(wallet(10, quota(Kind.QUICK_PAY, single=1))) is None


@pytest.mark.parametrize(
    "kind", [Kind.WALLET, Kind.MERCHANT_QR, Kind.CONSUMER_QR, Kind.CARD, Kind.VA, Kind.OTC, Kind.NET_BANKING]
)
def test_a_quota_that_names_a_provider_applies_to_it_in_every_kind(kind: Kind) -> None:
    world = World(
        channels=(channel(kind, "A"),),
        quotas=(quota(kind, bank="A", daily=(100, 100)),),
        catalog=with_terms(kind, products=None, terminals=None),
    )
    [method] = world.methods()
    assert method.reason is not None
    assert method.reason.code is ReasonCode.DAILY_LIMIT_EXCEEDED


def test_where_one_channels_quota_is_used_up_another_channel_carries_it() -> None:
    world = World(
        channels=(channel(Kind.WALLET, "A", "w_1"), channel(Kind.WALLET, "A", "w_2", fee_bps=100)),
        quotas=(quota(Kind.WALLET, channel_id="w_1", daily=(100, 100)),),
    )
    method = world.method("WALLET:A")
    assert method.availability is AVAILABLE
    assert method.amount is not None
    assert method.amount.fee == cny(100)


def test_limits_are_tested_after_the_discount() -> None:
    ten_off = (promotion("p_1", 10),)
    assert refused(wallet(510, quota(Kind.WALLET, single=500), promotions=ten_off)) is None
    assert refused(wallet(511, quota(Kind.WALLET, single=500), promotions=ten_off)) is not None


def test_limits_are_tested_with_the_fee() -> None:
    assert refused(wallet(500, most=510, fee_bps=200)) is None
    assert refused(wallet(500, most=509, fee_bps=200)) == (ReasonCode.ABOVE_SINGLE_LIMIT, "channel", reduce_to(509))
    assert refused(wallet(490, least=500, fee_bps=200)) is None
    assert refused(wallet(489, least=500, fee_bps=200)) == (ReasonCode.BELOW_MIN, "channel", None)


def test_a_payment_that_a_promotion_brings_to_zero_is_below_no_minimum() -> None:
    mine = promotion("p_1", 400, kinds=frozenset({Kind.WALLET}))
    assert refused(wallet(400, promotions=(mine,), least=500)) is None


def test_the_channels_own_fee_overrides_the_catalogs() -> None:
    def fee(fee_bps: int | None) -> int:
        world = World(
            channels=(channel(Kind.WALLET, "A", fee_bps=fee_bps),), catalog=with_terms(Kind.WALLET, fee_bps=70)
        )
        [method] = world.methods()
        assert method.amount is not None
        return method.amount.fee.value

    assert (fee(None), fee(0), fee(30)) == (70, 0, 30)


@pytest.mark.parametrize(("amount", "fee"), [(33, 0), (34, 1), (99, 1), (100, 2)])
def test_a_fee_is_rounded_half_up(amount: int, fee: int) -> None:
    method = wallet(amount, fee_bps=150)
    assert method.amount is not None
    assert method.amount.fee == cny(fee)


@pytest.mark.parametrize("step", [1, 7, 10, 100, 10**6, 2**53 - 1])
@pytest.mark.parametrize("fee_bps", [0, 1, 60, 150, 333, 5_000, 10_000])
def test_the_smallest_amount_carried_is_the_first_that_reaches_the_minimum_with_its_fee(
    fee_bps: int, step: int
) -> None:
    def carried(amount: int) -> int:
        fee = share_half_up(amount, fee_bps)
        return amount + fee - fee % step

    for minimum in (*range(200), 9_999, 10_000, 2**53 - 1):
        smallest = smallest_carried(minimum, fee_bps, step)
        assert carried(smallest) >= minimum
        assert smallest == 0 or carried(smallest - 1) < minimum


def test_an_agreement_has_a_limit_of_its_own() -> None:
    def method(amount: int, **changes: Any) -> PayMethod:
        world = World(
            order=order(amount),
            agreements=(agreement(single_max=cny(500)),),
            channels=(channel(Kind.AGREEMENT, "UNIONPAY", **changes),),
        )
        return world.method("AGREEMENT:a_1")

    assert refused(method(500)) is None
    assert refused(method(501)) == (ReasonCode.ABOVE_SINGLE_LIMIT, "card", reduce_to(500))
    assert method(501).limits == Limits(cny(500), None, None)
    assert refused(method(501, most=400)) == (ReasonCode.ABOVE_SINGLE_LIMIT, "channel", reduce_to(400))


def test_an_insufficient_balance_shows_the_shortfall() -> None:
    def method(available: int) -> PayMethod:
        return World(order=order(500), accounts=(account(available),)).method("BALANCE:b_1")

    assert refused(method(500)) is None
    assert refused(method(499)) == (ReasonCode.BALANCE_INSUFFICIENT, "balance", Remedy(RemedyType.TOP_UP, cny(1)))
    assert refused(method(0)) == (ReasonCode.BALANCE_INSUFFICIENT, "balance", Remedy(RemedyType.TOP_UP, cny(500)))


def test_quotas_on_a_balance_are_tested_before_its_amount() -> None:
    world = World(order=order(500), accounts=(account(100),), quotas=(quota(Kind.BALANCE, single=400),))
    assert refused(world.method("BALANCE:b_1")) == (ReasonCode.ABOVE_SINGLE_LIMIT, "quota", reduce_to(100))


def test_a_reason_names_the_limit_in_the_orders_currency() -> None:
    reason = wallet(200_000, most=123_456).reason
    assert reason is not None
    assert reason.message == "At most CN¥1,234.56 in one payment."
