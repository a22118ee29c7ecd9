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

from cashier.consultation.flow import Consultation, OrderSummary
from cashier.domain.assembly import assemble
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.facts import Boost, Channels, Facts
from cashier.domain.knapsack import MAX_STEPS, KnapsackSearch
from cashier.domain.pay_method import Kind, PayMethod
from cashier.domain.promotion import OrderPromotions
from cashier.domain.ranking import rank_offers
from cashier.fanout.ask import Importance, SourceReport, SourceStatus
from tests.domain.builders import NOW, World, account, agreement, card, channel, member, order, promotion, quota

BANKS = ("ICBC", "CMB", "BOC", "ABC", "CCB")
WALLETS = 18
SOURCES = ("order", "merchant", "member", "card", "balance", "channel", "quota", "marketing")


def thirty() -> World:
    """Return a world with thirty payment methods.

    Five cards with quotas, an agreement, two accounts (one too low), eighteen wallets, a list of
    five banks, a card form, a QR code.
    """
    return World(
        order=order(12_800),
        member=member((Kind.QUICK_PAY, 12), (Kind.WALLET, 3), last_used=(Kind.QUICK_PAY, "c_BOC")),
        cards=tuple(card(bank) for bank in BANKS),
        agreements=(agreement(),),
        accounts=(account(5_000), account(50_000, "b_2")),
        channels=(
            *(channel(Kind.QUICK_PAY, bank) for bank in BANKS),
            channel(Kind.AGREEMENT, "UNIONPAY"),
            *(channel(Kind.WALLET, f"W{index}") for index in range(WALLETS)),
            *(channel(Kind.NET_BANKING, bank) for bank in BANKS),
            channel(Kind.CARD, "ACQUIRER"),
            channel(Kind.MERCHANT_QR, "ALIPAY"),
        ),
        quotas=(
            *(
                quota(
                    Kind.QUICK_PAY,
                    bank=bank,
                    single=2_000_000,
                    daily=(5_000_000, 120_000),
                    monthly=(20_000_000, 900_000),
                )
                for bank in BANKS
            ),
            quota(Kind.BALANCE, single=2_000_000),
        ),
        promotions=(
            promotion("p_1", 1_000, threshold=10_000),
            promotion("p_2", percent_bps=500, kinds=[Kind.QUICK_PAY], banks=frozenset({"CMB"})),
            promotion("p_3", 88, kinds=[Kind.QUICK_PAY, Kind.BALANCE], group="g"),
            promotion("p_4", 1_200, kinds=[Kind.BALANCE], group="g", stackable=False),
            promotion("p_5", 1_200, expires_at=NOW),
        ),
        boosts=(Boost(Kind.WALLET, 300, "spring"),),
    )


def single_runs(benchmark: BenchmarkFixture, work: Callable[[], Any], rounds: int = 3_000) -> Any:
    # pytest-benchmark has no types
    return benchmark.pedantic(work, rounds=rounds, iterations=1, warmup_rounds=50)  # type: ignore[no-untyped-call]


def consulted(world: World, facts: Facts) -> tuple[PayMethod, ...]:
    case = ConsultationCase(world.request, facts, world.catalog, world.now)
    return rank_offers(case, assemble(case), world.weights)


def test_the_machine(benchmark: BenchmarkFixture) -> None:
    def counted() -> int:
        total = 0
        for number in range(1_000):
            total += number
        return total

    assert single_runs(benchmark, counted) == 499_500


def test_the_domain_for_thirty_methods(benchmark: BenchmarkFixture) -> None:
    world = thirty()
    facts = world.facts()
    assert len(single_runs(benchmark, lambda: consulted(world, facts))) == 30


def test_the_domain_including_the_preparation_of_channels_and_quotas(benchmark: BenchmarkFixture) -> None:
    """Without any cache. Preparing must not cost more than it saves."""
    world = thirty()
    assert len(single_runs(benchmark, lambda: consulted(world, world.facts()))) == 30


def test_preparing_the_channels(benchmark: BenchmarkFixture) -> None:
    channels = thirty().channels
    assert len(single_runs(benchmark, lambda: Channels.prepared(channels)).by_id) == len(channels)


def test_encoding_thirty_methods(benchmark: BenchmarkFixture) -> None:
    world = thirty()
    facts = world.facts()
    answer = Consultation(
        "x" * 1_500,
        NOW,
        NOW,
        OrderSummary("o_1", facts.order.title, facts.order.amount, facts.order.expires_at),
        True,
        None,
        False,
        tuple(SourceReport(name, Importance.GATING, SourceStatus.FRESH, 0.1, 7.4, 0) for name in SOURCES),
        consulted(world, facts),
    )
    assert single_runs(benchmark, lambda: msgspec.json.encode(answer)).startswith(b'{"consult_token"')


def test_the_promotion_solver_without_a_minimum(benchmark: BenchmarkFixture) -> None:
    world, kinds = thirty(), frozenset((Kind.QUICK_PAY,))
    best = single_runs(benchmark, lambda: OrderPromotions(world.promotions, world.order, NOW).best(kinds, "CMB", 1))
    assert best.total == 1_728


@pytest.mark.parametrize("count", [4, 12, 64])
def test_the_search_for_the_best_set_below_a_limit(benchmark: BenchmarkFixture, count: int) -> None:
    values = sorted((1_000_003 + 7_919 * (index * index % 389) for index in range(count)), reverse=True)
    groups = [str(index) for index in range(count)]
    limit = sum(values) // 3
    assert single_runs(benchmark, lambda: KnapsackSearch(values, groups, limit, MAX_STEPS), 200).value <= limit


def test_three_thousand_promotions_and_channels(benchmark: BenchmarkFixture) -> None:
    world = World(
        order=order(10**7),
        channels=tuple(
            channel(list(Kind)[index % 10], f"P{index % 70}", f"ch_{index}", least=9 * 10**6 + index, most=10**9)
            for index in range(3_000)
        ),
        promotions=tuple(
            promotion(f"p_{index}", 1_000 + index * 7_919 % 4_001, group=f"g_{index % 97}") for index in range(3_000)
        ),
    )
    facts = world.facts()
    assert single_runs(benchmark, lambda: consulted(world, facts), 5)
