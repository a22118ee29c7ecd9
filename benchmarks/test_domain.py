"""Cost of the payment logic of one consultation, of its encoding, and of the promotion solver.

Every round is a single run. Read `min`: means include the load of neighbours. `test_the_machine` is
a fixed piece of interpreter work for comparison, because the speed of the machine changes. Budgets
on a quiet machine: 100 µs for the domain, 30 µs for the encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.studies.methods import answer, consulted, world
from cashier.domain.facts import Boost, Channels
from cashier.domain.knapsack import MAX_STEPS, KnapsackSearch
from cashier.domain.pay_method import Kind
from cashier.domain.promotion import OrderPromotions
from tests.domain.builders import NOW, World, channel, order, promotion


def thirty() -> World:
    """The thirty payment methods of the study `methods`, with a boost.

    Five cards with quotas, an agreement, two accounts (one too low), eighteen wallets, a list of
    five banks, a card form, a QR code.
    """
    return world(30, 5).but(boosts=(Boost(Kind.WALLET, 300, "spring"),))


def single_runs(benchmark: BenchmarkFixture, work: Callable[[], Any], rounds: int = 3_000) -> Any:
    # pytest-benchmark has no types
    return benchmark.pedantic(work, rounds=rounds, iterations=1, warmup_rounds=50)  # type: ignore[no-untyped-call]


def test_the_machine(benchmark: BenchmarkFixture) -> None:
    def counted() -> int:
        total = 0
        for number in range(1_000):
            total += number
        return total

    assert single_runs(benchmark, counted) == 499_500


def test_the_domain_for_thirty_methods(benchmark: BenchmarkFixture) -> None:
    of = thirty()
    facts = of.facts()
    assert len(single_runs(benchmark, lambda: consulted(of, facts))) == 30


def test_the_domain_including_the_preparation_of_channels_and_quotas(benchmark: BenchmarkFixture) -> None:
    """Without any cache. Preparing must not cost more than it saves."""
    of = thirty()
    assert len(single_runs(benchmark, lambda: consulted(of, of.facts()))) == 30


def test_preparing_the_channels(benchmark: BenchmarkFixture) -> None:
    channels = thirty().channels
    assert len(single_runs(benchmark, lambda: Channels.prepared(channels)).by_id) == len(channels)


def test_encoding_thirty_methods(benchmark: BenchmarkFixture) -> None:
    of = thirty()
    facts = of.facts()
    encoded = answer(facts, consulted(of, facts))
    assert single_runs(benchmark, lambda: msgspec.json.encode(encoded)).startswith(b'{"consult_token"')


def test_the_promotion_solver_without_a_minimum(benchmark: BenchmarkFixture) -> None:
    of, kinds = thirty(), frozenset((Kind.QUICK_PAY,))
    best = single_runs(benchmark, lambda: OrderPromotions(of.promotions, of.order, NOW).best(kinds, "B1", 1))
    assert best.total == 1_728


@pytest.mark.parametrize("count", [4, 12, 64])
def test_the_search_for_the_best_set_below_a_limit(benchmark: BenchmarkFixture, count: int) -> None:
    values = sorted((1_000_003 + 7_919 * (index * index % 389) for index in range(count)), reverse=True)
    groups = [str(index) for index in range(count)]
    limit = sum(values) // 3
    assert single_runs(benchmark, lambda: KnapsackSearch(values, groups, limit, MAX_STEPS), 200).value <= limit


def test_three_thousand_promotions_and_channels(benchmark: BenchmarkFixture) -> None:
    of = World(
        order=order(10**7),
        channels=tuple(
            channel(list(Kind)[index % 10], f"P{index % 70}", f"ch_{index}", least=9 * 10**6 + index, most=10**9)
            for index in range(3_000)
        ),
        promotions=tuple(
            promotion(f"p_{index}", 1_000 + index * 7_919 % 4_001, group=f"g_{index % 97}") for index in range(3_000)
        ),
    )
    facts = of.facts()
    assert single_runs(benchmark, lambda: consulted(of, facts), 5)
