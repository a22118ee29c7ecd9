"""The rules of discounts, and the best legal set against an exhaustive search."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.domain.facts import CardType, Promotion
from cashier.domain.knapsack import MAX_SEARCHED, MAX_STEPS, KnapsackSearch
from cashier.domain.money import Money
from cashier.domain.pay_method import Amounts, Kind
from cashier.domain.promotion import MAX_APPLICABLE, Discounts, OrderPromotions
from tests.domain.builders import NOW, World, account, card, channel, cny, order, promotion

WALLET = frozenset((Kind.WALLET,))


def best(promotions: Sequence[Promotion], amount: int = 10_000, floor: int = 0, bank: str | None = None) -> Discounts:
    return OrderPromotions(promotions, order(amount), NOW).best(WALLET, bank, floor)


def discount_values(
    *promotions: Promotion, amount: int = 10_000, floor: int = 0, bank: str | None = None
) -> dict[str, int]:
    """The value of each chosen promotion, in the order chosen."""
    return {result.promotion_id: result.amount.value for result in best(promotions, amount, floor, bank).discounts}


def test_without_promotions_nothing_is_taken_off() -> None:
    assert discount_values() == {}


def test_a_threshold_is_inclusive() -> None:
    assert discount_values(promotion("p", 10, threshold=10_000)) == {"p": 10}
    assert discount_values(promotion("p", 10, threshold=10_001)) == {}


def test_a_promotion_ends_at_its_expiry() -> None:
    assert discount_values(promotion("p", 10, expires_at=NOW)) == {}
    assert discount_values(promotion("p", 10, expires_at=NOW + timedelta(microseconds=1))) == {"p": 10}


@pytest.mark.parametrize(
    ("percent_bps", "cap", "off"),
    [
        (500, None, 500),
        (500, 499, 499),
        (500, 500, 500),
        (500, 501, 500),
        (10_000, None, 10_000),
        (0, None, None),
        (500, 0, None),
    ],
)
def test_a_percentage_is_capped(percent_bps: int, cap: int | None, off: int | None) -> None:
    build_promotions = promotion("p", percent_bps=percent_bps, cap=None if cap is None else cny(cap))
    assert discount_values(build_promotions) == ({} if off is None else {"p": off})


def test_a_percentage_is_rounded_down() -> None:
    assert discount_values(promotion("p", percent_bps=333), amount=101) == {"p": 3}
    assert discount_values(promotion("p", percent_bps=333), amount=30) == {}


def test_money_of_another_currency_takes_nothing_off() -> None:
    yen = Money("JPY", 100)
    assert discount_values(promotion("p", 100, currency="JPY")) == {}
    assert discount_values(promotion("p", amount_off=yen)) == {}
    assert discount_values(promotion("p", percent_bps=500, cap=yen)) == {}


def test_a_promotion_without_a_value_takes_nothing_off() -> None:
    assert discount_values(promotion("p")) == {}
    assert discount_values(promotion("p", 0)) == {}


def test_a_promotion_applies_to_its_kinds_or_to_any_if_it_has_none() -> None:
    assert discount_values(promotion("p", 10, kinds=[Kind.QUICK_PAY])) == {}
    assert discount_values(promotion("p", 10, kinds=[Kind.QUICK_PAY, Kind.WALLET])) == {"p": 10}
    assert discount_values(promotion("p", 10)) == {"p": 10}


def test_a_promotion_applies_to_its_banks() -> None:
    cmb = promotion("p", 10, banks=frozenset({"CMB"}))
    assert discount_values(cmb, bank="CMB") == {"p": 10}
    assert discount_values(cmb, bank="ICBC") == {}
    assert discount_values(cmb, bank=None) == {}


def test_of_one_group_the_best_is_used() -> None:
    assert discount_values(
        promotion("p_1", 10, group="g"), promotion("p_2", 30, group="g"), promotion("p_3", 20, group="g")
    ) == {"p_2": 30}


def test_promotions_of_different_groups_add_up() -> None:
    assert discount_values(promotion("p_1", 10), promotion("p_2", 30)) == {"p_2": 30, "p_1": 10}


def test_a_promotion_that_is_not_stackable_is_used_alone_and_only_if_it_saves_most() -> None:
    two = (promotion("p_1", 10), promotion("p_2", 30))
    assert discount_values(*two, promotion("alone", 39, stackable=False)) == {"p_2": 30, "p_1": 10}
    assert discount_values(*two, promotion("alone", 41, stackable=False)) == {"alone": 41}


def test_of_sets_with_equal_savings_the_smallest_is_used() -> None:
    assert discount_values(promotion("p_1", 10), promotion("p_2", 30), promotion("alone", 40, stackable=False)) == {
        "alone": 40
    }


def test_savings_beyond_the_order_do_not_count() -> None:
    assert discount_values(
        promotion("p_1", 60), promotion("p_2", 60), promotion("alone", 100, stackable=False), amount=100
    ) == {"alone": 100}


def test_ties_go_to_the_earlier_expiry_and_then_to_the_smaller_id() -> None:
    soon, late = NOW + timedelta(days=1), NOW + timedelta(days=2)
    assert discount_values(promotion("p_1", 10, group="g"), promotion("p_2", 10, group="g", expires_at=late)) == {
        "p_2": 10
    }
    assert discount_values(
        promotion("p_1", 10, group="g", expires_at=late), promotion("p_2", 10, group="g", expires_at=soon)
    ) == {"p_2": 10}
    assert discount_values(promotion("p_2", 10, group="g"), promotion("p_1", 10, group="g")) == {"p_1": 10}


def test_discounts_never_exceed_the_order_and_the_last_is_reduced() -> None:
    assert discount_values(promotion("p_1", 60), promotion("p_2", 50), amount=100) == {"p_1": 60, "p_2": 40}
    assert discount_values(promotion("p", 500), amount=100) == {"p": 100}


def test_a_promotion_that_the_order_no_longer_needs_is_kept() -> None:
    assert discount_values(promotion("p_1", 60), promotion("p_2", 40), promotion("p_3", 5), amount=100) == {
        "p_1": 60,
        "p_2": 40,
    }


def test_an_order_of_zero_has_no_discounts() -> None:
    assert discount_values(promotion("p_1", 60), promotion("p_2", percent_bps=5_000), amount=0) == {}


def test_the_rest_reaches_the_channels_minimum_or_is_zero() -> None:
    two = (promotion("p_1", 60), promotion("p_2", 35))
    assert discount_values(*two, amount=100, floor=5) == {"p_1": 60, "p_2": 35}
    assert discount_values(*two, amount=100, floor=6) == {"p_1": 60}
    assert discount_values(*two, amount=100, floor=41) == {"p_2": 35}
    assert discount_values(*two, amount=100, floor=66) == {}
    assert discount_values(*two, promotion("p_3", 5), amount=100, floor=66) == {"p_1": 60, "p_2": 35, "p_3": 5}


def test_a_minimum_may_make_two_smaller_promotions_better_than_the_greatest() -> None:
    build_promotions = (promotion("p_1", 60), promotion("p_2", 50), promotion("p_3", 30))
    assert discount_values(*build_promotions, amount=150, floor=65) == {"p_2": 50, "p_3": 30}
    assert discount_values(*build_promotions, amount=150, floor=70) == {"p_2": 50, "p_3": 30}
    assert discount_values(*build_promotions, amount=150, floor=71) == {"p_1": 60}


def test_of_sets_that_leave_the_minimum_the_smallest_is_used() -> None:
    build_promotions = [promotion(f"p_{off}", off) for off in (50, 45, 35, 20, 10)]
    assert discount_values(*build_promotions, amount=200, floor=120) == {"p_45": 45, "p_35": 35}


def test_a_channels_minimum_costs_a_discount_and_not_the_method() -> None:
    world = World(
        order=order(100),
        channels=(channel(Kind.WALLET, "A", least=50),),
        promotions=(promotion("p_1", 60), promotion("p_2", 20)),
    )
    [method] = world.methods()
    assert method.reason is None
    assert method.amount is not None
    assert method.amount.payable == cny(80)


def test_the_fee_counts_towards_the_channels_minimum() -> None:
    def savings(off: int) -> bool:
        world = World(
            order=order(500),
            channels=(channel(Kind.WALLET, "A", least=500, fee_bps=200),),
            promotions=(promotion("p", off),),
        )
        [method] = world.methods()
        assert method.reason is None
        assert method.amount is not None
        return bool(method.amount.discounts)

    assert savings(10)
    assert not savings(11)


def test_promotions_of_a_bank_apply_to_its_cards_only() -> None:
    world = World(
        cards=(card("CMB", type=CardType.CREDIT), card("ICBC")),
        accounts=(account(50_000),),
        channels=(
            channel(Kind.QUICK_PAY, "CMB"),
            channel(Kind.QUICK_PAY, "ICBC"),
            channel(Kind.CARD, "CMB"),
            channel(Kind.WALLET, "W"),
        ),
        promotions=(promotion("p", 10, banks=frozenset({"CMB"})),),
    )
    savings = {method.method_id for method in world.methods() if method.amount is not None and method.amount.discounts}
    assert savings == {"QUICK_PAY:c_CMB"}


def test_promotions_for_one_kind_do_not_apply_to_another() -> None:
    world = World(
        cards=(card("CMB"),),
        accounts=(account(4_000),),
        channels=(channel(Kind.QUICK_PAY, "CMB"), channel(Kind.WALLET, "W")),
        promotions=(promotion("cards", 10, kinds=[Kind.QUICK_PAY]), promotion("balances", 20, kinds=[Kind.BALANCE])),
    )
    result = {
        method.method_id: method.amount.discounts for method in world.methods() if isinstance(method.amount, Amounts)
    }
    chosen = {method_id: [discount.promotion_id for discount in discounts] for method_id, discounts in result.items()}
    assert chosen == {
        "QUICK_PAY:c_CMB": ["cards"],
        "BALANCE:b_1": ["balances"],
        "BALANCE:b_1+QUICK_PAY": [],
        "WALLET:W": [],
    }


OFFERED = st.lists(
    st.tuples(
        st.integers(1, 40), st.sampled_from("abcd"), st.sampled_from((True, True, False)), st.sampled_from((None, 1, 2))
    ),
    max_size=8,
)


def build_promotions(rows: list[tuple[int, str, bool, int | None]]) -> list[Promotion]:
    return [
        promotion(
            f"p_{index}",
            off,
            group=group,
            stackable=stackable,
            expires_at=None if days is None else NOW + timedelta(days=days),
        )
        for index, (off, group, stackable, days) in enumerate(rows)
    ]


def legal(chosen: Sequence[Promotion]) -> bool:
    if len(chosen) > 1 and not all(candidate.stackable for candidate in chosen):
        return False
    return len({candidate.group for candidate in chosen}) == len(chosen)


def value(candidate: Promotion) -> int:
    assert candidate.amount_off is not None
    return candidate.amount_off.value


def sort_key(candidate: Promotion) -> tuple[Any, ...]:
    return (-value(candidate), candidate.expires_at is None, candidate.expires_at or NOW, candidate.promotion_id)


@given(OFFERED, st.integers(1, 120), st.integers(0, 60))
def test_the_best_set_is_the_best_of_all_legal_sets(
    rows: list[tuple[int, str, bool, int | None]], amount: int, floor: int
) -> None:
    """The oracle tries every subset.

    Values are clamped to the order as in the rules, so ties are equal.
    """
    promotions = build_promotions([(min(off, amount), group, stackable, days) for off, group, stackable, days in rows])
    subsets = [
        sorted(subset, key=sort_key) for size in range(len(promotions) + 1) for subset in combinations(promotions, size)
    ]

    def savings(subset: Sequence[Promotion]) -> int:
        return min(amount, sum(value(candidate) for candidate in subset))

    allowed = [
        subset
        for subset in subsets
        if legal(subset) and (savings(subset) == amount or amount - savings(subset) >= floor)
    ]
    expected = min(
        allowed,
        key=lambda subset: (-savings(subset), len(subset), [sort_key(candidate) for candidate in subset]),
        default=[],
    )
    result = best(promotions, amount, floor)
    assert result.total == savings(expected)
    assert sum(discount.amount.value for discount in result.discounts) == result.total
    assert [discount.promotion_id for discount in result.discounts] == [
        candidate.promotion_id for candidate in expected
    ]


@given(OFFERED, st.integers(1, 120), st.integers(0, 60), st.randoms(use_true_random=False))
def test_the_order_in_which_promotions_come_does_not_matter(
    rows: list[tuple[int, str, bool, int | None]], amount: int, floor: int, random: Any
) -> None:
    promotions = build_promotions(rows)
    shuffled = random.sample(promotions, len(promotions))
    assert best(shuffled, amount, floor) == best(promotions, amount, floor)


@given(st.lists(st.integers(1, 10**6), max_size=200), st.integers(0, 10**7), st.integers(0, 50))
def test_a_search_stays_within_its_steps_and_its_limit(values: list[int], limit: int, groups: int) -> None:
    values.sort(reverse=True)
    names = [str(index % (groups + 1)) for index in range(len(values))]
    search = KnapsackSearch(values, names, limit, 300)
    assert search.steps >= 300 - 2 * (300 + MAX_SEARCHED)
    assert sum(values[index] for index in search.chosen) == search.value <= limit
    assert len({names[index] for index in search.chosen}) == len(search.chosen)


def test_a_search_without_budget_still_takes_fitting_items_by_value() -> None:
    search = KnapsackSearch([50, 40, 30, 20, 10], ["a", "b", "a", "c", "d"], 75, 0)
    assert search.value == 70
    hard = KnapsackSearch(list(range(1_000, 936, -1)), [str(index) for index in range(64)], 5_003, 0)
    assert hard.value > 4_000


def test_thousands_of_promotions_take_bounded_steps_for_many_minimums() -> None:
    many = [promotion(f"p_{index}", 1_000_003 + 7_919 * (index % 389), group=f"g_{index}") for index in range(10_000)]
    order_promotions = OrderPromotions(many, order(10**10), NOW)
    result = [order_promotions.best(WALLET, None, 10**10 - 5_000_000 - floor) for floor in range(50)]
    assert order_promotions.steps_left == 0
    assert all(0 < discounts.total <= 5_000_000 + floor for floor, discounts in enumerate(result))


def test_the_most_valuable_promotions_are_kept() -> None:
    many = [promotion(f"p_{index:05d}", index + 1, group="g") for index in range(MAX_APPLICABLE + 500)]
    assert [discount.promotion_id for discount in best(many).discounts] == [f"p_{MAX_APPLICABLE + 499:05d}"]


def test_a_dozen_promotions_are_searched_completely() -> None:
    values = sorted((1_000_003 + 7_919 * (index * index % 389) for index in range(12)), reverse=True)
    groups = [str(index) for index in range(12)]
    assert all(
        KnapsackSearch(values, groups, sum(values) * tenths // 10, MAX_STEPS).steps > 0 for tenths in range(1, 10)
    )
