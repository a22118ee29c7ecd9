"""The cost of any upstream answer is bounded: sizes, steps, and no garbage cycles."""

from __future__ import annotations

import gc
from typing import Any

import msgspec
import pytest

from cashier.domain.facts import Balances, Cards
from cashier.domain.money import MAX_VALUE
from cashier.domain.order import MAX_ORDER_VALUE
from cashier.domain.pay_method import Availability, Kind
from cashier.source_errors import MissingCause
from tests.domain.builders import (
    OPTIONAL,
    World,
    account,
    agreement,
    card,
    channel,
    cny,
    one_of_each,
    order,
    promotion,
    quota,
)


def of_everything() -> World:
    """Options, a split payment, discounts with a search, quotas, refusals: all object types."""
    world = one_of_each()
    return world.but(
        cards=(card("CMB"), card("CMB", "c_2", expiry="2020-01"), card("ICBC")),
        accounts=(account(4_000), account(50_000, "b_2")),
        channels=(
            *world.channels,
            channel(Kind.NET_BANKING, "ABC", least=6_000),
            channel(Kind.WALLET, "TIGHT", least=7_000, fee_bps=20),
        ),
        promotions=(promotion("p_1", 2_000), promotion("p_2", 1_500), promotion("p_3", 700, kinds=[Kind.WALLET])),
        quotas=(quota(Kind.QUICK_PAY, bank="CMB", single=10), quota(Kind.BALANCE, daily=(10**6, 0))),
    )


@pytest.mark.parametrize("silent", [{}, dict.fromkeys(OPTIONAL, MissingCause.TIMEOUT)], ids=["all known", "all silent"])
def test_a_consultation_creates_no_reference_cycles(silent: dict[str, MissingCause]) -> None:
    world = of_everything().but(silent=silent)
    world.methods()
    gc.collect()
    gc.disable()
    try:
        world.methods()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_the_largest_order_with_the_largest_fee_stays_exact_in_json() -> None:
    world = World(
        order=order(MAX_ORDER_VALUE),
        cards=(card("CMB"),),
        accounts=(account(MAX_ORDER_VALUE - 1),),
        channels=(
            channel(Kind.QUICK_PAY, "CMB", most=MAX_VALUE, fee_bps=10_000),
            channel(Kind.WALLET, "A", fee_bps=10_000, most=MAX_VALUE),
        ),
    )
    for method in world.methods():
        assert method.amount is not None
        assert method.amount.payable.value <= MAX_VALUE
    wallet = world.method("WALLET:A")
    assert wallet.availability is Availability.AVAILABLE
    assert wallet.amount is not None
    assert wallet.amount.payable == cny(2 * MAX_ORDER_VALUE)


@pytest.mark.parametrize(
    ("wanted", "field", "one", "most"),
    [
        (Cards, "cards", card("CMB"), 256),
        (Cards, "agreements", agreement(), 256),
        (Balances, "accounts", account(1), 32),
    ],
)
def test_an_answer_with_too_many_elements_is_invalid(wanted: Any, field: str, one: Any, most: int) -> None:
    def decoded(count: int) -> Any:
        answer = {"user_id": "u_1", "cards": [], "agreements": [], "accounts": []} | {field: [one] * count}
        return msgspec.json.decode(msgspec.json.encode(answer), type=wanted)

    assert len(getattr(decoded(most), field)) == most
    with pytest.raises(msgspec.ValidationError, match=field):
        decoded(most + 1)


def test_ten_thousand_promotions_and_thousands_of_channels_give_an_answer() -> None:
    """The test must end in reasonable time. The benchmarks measure it."""
    world = World(
        order=order(10**7),
        channels=tuple(
            channel(list(Kind)[index % 10], f"P{index % 70}", f"ch_{index}", least=9 * 10**6 + index, most=10**9)
            for index in range(5_000)
        ),
        promotions=tuple(
            promotion(f"p_{index}", 1_000 + index * 7_919 % 4_001, group=f"g_{index % 97}") for index in range(10_000)
        ),
    )
    methods = world.methods()
    usable = [method for method in methods if method.availability is Availability.AVAILABLE]
    assert len(usable) > 10
    assert all(method.amount is not None and method.amount.discounts for method in usable)
