"""What a payer reads about a changed offer."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from cashier.domain.change_text import with_messages
from cashier.domain.offer_diff import Change, ChangeType
from cashier.domain.pay_method import Kind, ReasonCode
from cashier.domain.wording import ChangeText
from tests.domain.builders import CATALOG, World, account, card, channel, cny, order, quota, request


def message(change: Change, locale: str = "zh-CN", world: World | None = None, chosen: str = "QUICK_PAY:c_CMB") -> Any:
    methods = () if world is None else world.but(request=request(locale=locale)).methods()
    [said] = with_messages([change], methods, chosen, CATALOG.texts[locale])
    assert structs.replace(said, message=None) == change
    return said.message


def changed(what: ChangeType, before: Any = None, after: Any = None, **fields: Any) -> Change:
    return Change(what=what, before=before, after=after, **fields)


PRICE, BALANCE = ChangeType.PRICE_CHANGED, ChangeType.BALANCE_SHORT


@pytest.mark.parametrize(
    ("change", "chinese", "english"),
    [
        (
            changed(PRICE, cny(11_800), cny(12_000)),
            "价格有变化：¥118.00 → ¥120.00",
            "The price has changed: CN¥118.00 → CN¥120.00",
        ),
        (changed(PRICE, None, cny(12_000)), "最新价格：¥120.00", "The price is now CN¥120.00"),
        (
            changed(PRICE, cny(1), cny(2), subject="order"),
            "订单金额有变化：¥0.01 → ¥0.02",
            "The amount of the order has changed: CN¥0.01 → CN¥0.02",
        ),
        (
            changed(PRICE, cny(0), cny(50), subject="fee"),
            "手续费有变化：¥0.00 → ¥0.50",
            "The fee has changed: CN¥0.00 → CN¥0.50",
        ),
        (
            changed(PRICE, None, cny(50), subject="p_1"),
            "金额明细有变化：¥0.00 → ¥0.50",
            "A part of the price has changed: CN¥0.00 → CN¥0.50",
        ),
        (
            changed(BALANCE, cny(100), None, subject="b_1"),
            "余额抵扣减少：¥1.00 → ¥0.00",
            "Less is paid from the balance: CN¥1.00 → CN¥0.00",
        ),
        (
            changed(ChangeType.PROMOTION_GONE, cny(100), None, subject="p_1"),
            "优惠已失效",
            "The promotion is no longer available",
        ),
        (
            changed(ChangeType.ORDER_STATE, "PENDING", "ORDER_EXPIRED"),
            "订单已超时，请重新下单",
            "The time to pay is over. Please order again.",
        ),
        (
            changed(ChangeType.METHOD_CLOSED, "AVAILABLE", None, subject="WALLET:A", reason=ReasonCode.NOT_OFFERED),
            "暂不支持该支付方式",
            "Not offered here.",
        ),
        (
            changed(ChangeType.CARD_UNBOUND, "AVAILABLE", None, subject="c_1", reason=ReasonCode.CARD_UNBOUND),
            "该卡已解绑，请重新绑定",
            "Card unlinked. Please link it again.",
        ),
    ],
)
def test_each_change_says_what_changed(change: Change, chinese: str, english: str) -> None:
    assert (message(change), message(change, "en")) == (chinese, english)


def test_a_refused_method_has_the_reason_of_the_fresh_consultation() -> None:
    world = World(order=order(20_000), accounts=(account(4_000),), channels=())
    short = changed(BALANCE, cny(20_000), cny(4_000), subject="BALANCE:b_1", reason=ReasonCode.BALANCE_INSUFFICIENT)
    assert message(short, world=world, chosen="BALANCE:b_1") == "余额不足（可用¥40.00）"


def test_a_refused_option_has_its_own_reason() -> None:
    banks = (channel(Kind.VA, "A", most=100), channel(Kind.VA, "B"))
    limit = changed(ChangeType.LIMIT_REACHED, cny(10_000), None, subject="A", reason=ReasonCode.ABOVE_SINGLE_LIMIT)
    assert message(limit, world=World(channels=banks), chosen="VA") == "超出单笔限额（¥1.00）"


def test_a_used_up_limit_says_so() -> None:
    world = World(
        cards=(card("CMB"),),
        channels=(channel(Kind.QUICK_PAY, "CMB"),),
        quotas=(quota(Kind.QUICK_PAY, daily=(100, 100)),),
    )
    limit = changed(
        ChangeType.LIMIT_REACHED,
        cny(10_000),
        None,
        subject="QUICK_PAY:c_CMB",
        reason=ReasonCode.DAILY_LIMIT_EXCEEDED,
    )
    assert message(limit, world=world) == "今日额度已用完"


def test_a_locale_without_texts_for_changes_has_no_message() -> None:
    wording = structs.replace(CATALOG.texts["en"], changes={ChangeText.FEE: "Fee: {after}"})
    price, fee = changed(PRICE, cny(1), cny(2)), changed(PRICE, cny(1), cny(2), subject="fee")
    assert [each.message for each in with_messages([price, fee], (), "x", wording)] == [None, "Fee: CN¥0.02"]
