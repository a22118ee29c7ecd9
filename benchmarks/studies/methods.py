"""Cost of more payment methods and promotions in the payment logic of one consultation.

No I/O. Prepared facts are assembled into payment methods and ranked, and the whole answer is
encoded, as in `benchmarks/test_domain.py` for thirty methods. 10 to 300 methods with five
promotions, then 0 to 60 promotions with thirty methods. Preparing the facts (indexing channels and
quotas) is separate: with the caches on, as by default, it happens once per answer and not once per
consultation.

A figure of a round is the minimum of many single runs, because a mean includes the load of
neighbours. Rounds interleave, and their median counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from benchmarks.lab import Lab
from benchmarks.lab.process import PROGRAM_CORE, pinned
from benchmarks.lab.upstream import SOURCE_NAMES
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table, slope
from cashier.consultation.answer import Consultation, OrderSummary
from cashier.domain.assembly import assemble
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.facts import Channels, Facts, Promotion, Quotas
from cashier.domain.pay_method import Kind, PayMethod
from cashier.domain.ranking import rank_offers
from cashier.fanout.ask import Importance, SourceReport, SourceStatus
from tests.domain.builders import NOW, World, account, agreement, card, channel, member, order, promotion, quota

METHOD_COUNTS = (10, 30, 100, 300)
PROMOTIONS = (0, 5, 20, 60)
USUAL_METHODS, USUAL_PROMOTIONS = 30, 5
# Of one work of one world in one round.
INTERVAL_S, QUICK_INTERVAL_S = 0.2, 0.05
LEAST_RUNS = 30
# The approximate size of a consult token with thirty methods.
TOKEN = "x" * 1_500

Sizes = tuple[int, int]
Works = Mapping[str, Callable[[], Any]]


def measure(lab: Lab) -> Finding:
    by_methods = {float(methods): (methods, USUAL_PROMOTIONS) for methods in METHOD_COUNTS}
    by_promotions = {float(count): (USUAL_METHODS, count) for count in PROMOTIONS}
    sizes = list(dict.fromkeys([*by_methods.values(), *by_promotions.values()]))
    works_by_sizes = {each: works_of(world(*each)) for each in sizes}
    with pinned(PROGRAM_CORE):
        times_by_sizes = measure_works(lab, works_by_sizes)
    usual = times_by_sizes[USUAL_METHODS, USUAL_PROMOTIONS]
    methods = {count: times_by_sizes[each] for count, each in by_methods.items()}
    promotions = {count: times_by_sizes[each] for count, each in by_promotions.items()}
    rows = [
        Row(
            f"{methods_count} methods, {count} promotions",
            {**times, "answer kB": Figure.of(len(works_by_sizes[methods_count, count]["encode µs"]()) / 1_000)},
        )
        for (methods_count, count), times in sorted(times_by_sizes.items())
    ]
    return Finding(
        "Cost of more payment methods and more promotions",
        key={
            "methods.us_30": usual["assemble and rank µs"],
            "methods.encode_us_30": usual["encode µs"],
            "methods.prepare_us_30": usual["prepare µs"],
            "methods.us_per_way": growth(methods, "assemble and rank µs"),
            "methods.encode_us_per_way": growth(methods, "encode µs"),
        },
        tables=[Table("Time of one consultation's payment logic", rows)],
        drawings=[
            drawing("Time by payment methods", "payment methods", methods),
            drawing(
                f"Time by promotions, {USUAL_METHODS} payment methods", "promotions offered to the customer", promotions
            ),
        ],
        notes=[
            "In this process and in one thread, without sockets or other work. In a service the same code finds "
            "colder processor caches."
        ],
    )


def world(methods: int, promotions: int) -> World:
    """A world with the given number of payment methods and promotions.

    A sixth of the methods are cards with quotas, an agreement, accounts, lists and codes; the rest
    are wallets.
    """
    banks = [f"B{number}" for number in range(max(1, methods // 6))]
    daily, monthly = (5_000_000, 120_000), (20_000_000, 900_000)
    base = World(
        order=order(12_800),
        member=member((Kind.QUICK_PAY, 12), (Kind.WALLET, 3), last_used=(Kind.QUICK_PAY, "c_B0")),
        cards=tuple(card(bank) for bank in banks),
        agreements=(agreement(),),
        accounts=(account(5_000), account(50_000, "b_2")),
        channels=(
            *(channel(Kind.QUICK_PAY, bank) for bank in banks),
            channel(Kind.AGREEMENT, "UNIONPAY"),
            *(channel(Kind.NET_BANKING, bank) for bank in banks),
            channel(Kind.CARD, "ACQUIRER"),
            channel(Kind.MERCHANT_QR, "ALIPAY"),
        ),
        quotas=(
            *(quota(Kind.QUICK_PAY, bank=bank, single=2_000_000, daily=daily, monthly=monthly) for bank in banks),
            quota(Kind.BALANCE, single=2_000_000),
        ),
        promotions=tuple(offered_promotion(number) for number in range(promotions)),
    )
    wallets = tuple(channel(Kind.WALLET, f"W{number}") for number in range(methods - len(base.methods())))
    return base.but(channels=(*base.channels, *wallets))


def offered_promotion(number: int) -> Promotion:
    """Of every five: one for all, one for a bank, two that exclude each other, one of them not
    stackable, and one that has expired.

    Their values fall, so that sixty of them do not make the order free.
    """
    turn, sort = divmod(number, 5)
    name, group, bank = f"p_{number}", f"g_{turn}", frozenset({f"B{1 + turn % 3}"})
    match sort:
        case 0:
            return promotion(name, 1_000 - 50 * turn, threshold=10_000)
        case 1:
            return promotion(name, percent_bps=500 - 30 * turn, kinds=[Kind.QUICK_PAY], banks=bank)
        case 2:
            return promotion(name, 88 + turn, kinds=[Kind.QUICK_PAY, Kind.BALANCE], group=group)
        case 3:
            return promotion(name, 1_200 + turn, kinds=[Kind.BALANCE], group=group, stackable=False)
        case _:
            return promotion(name, 1_200, expires_at=NOW)


def works_of(of: World) -> Works:
    facts = of.facts()
    answered = answer(facts, consulted(of, facts))
    return {
        "prepare µs": lambda: (Channels.prepared(of.channels), Quotas.prepared(of.quotas)),
        "assemble and rank µs": lambda: consulted(of, facts),
        "encode µs": lambda: msgspec.json.encode(answered),
    }


def consulted(of: World, facts: Facts) -> tuple[PayMethod, ...]:
    case = ConsultationCase(of.request, facts, of.catalog, of.now)
    return rank_offers(case, assemble(case), of.weights)


def answer(facts: Facts, methods: tuple[PayMethod, ...]) -> Consultation:
    summary = OrderSummary(facts.order.order_id, facts.order.title, facts.order.amount, facts.order.expires_at)
    reports = [SourceReport(name, Importance.GATING, SourceStatus.FRESH, 0.1, 7.4, 0) for name in SOURCE_NAMES]
    return Consultation(TOKEN, NOW, NOW, summary, True, None, False, tuple(reports), methods)


def measure_works(lab: Lab, works_by_sizes: Mapping[Sizes, Works]) -> dict[Sizes, dict[str, Figure]]:
    us: dict[Sizes, dict[str, list[float]]] = {
        sizes: {name: [] for name in works} for sizes, works in works_by_sizes.items()
    }
    for _ in lab.turns("methods"):
        for sizes, works in works_by_sizes.items():
            for name, work in works.items():
                us[sizes][name].append(least_us(work, QUICK_INTERVAL_S if lab.quick else INTERVAL_S))
    return {sizes: {name: Figure.by_round(each) for name, each in by_name.items()} for sizes, by_name in us.items()}


def least_us(work: Callable[[], Any], seconds: float) -> float:
    """The shortest single run within the time."""
    clock_ns = time.perf_counter_ns
    until_ns = clock_ns() + int(seconds * 1e9)
    best_ns = 1 << 62
    runs = 0
    while runs < LEAST_RUNS or clock_ns() < until_ns:
        start_ns = clock_ns()
        work()
        best_ns = min(best_ns, clock_ns() - start_ns)
        runs += 1
    return best_ns / 1_000


def growth(by_count: Mapping[float, Mapping[str, Figure]], name: str) -> Figure:
    """The cost of one more, by round."""
    rounds = zip(*(each[name].rounds for each in by_count.values()), strict=True)
    return Figure.by_round(slope(list(zip(by_count, times, strict=True))) for times in rounds)


def drawing(title: str, x_title: str, by_count: Mapping[float, Mapping[str, Figure]]) -> LineChart:
    lines = [
        Line(name.removesuffix(" µs"), [(x, each[name]) for x, each in by_count.items()], ours="rank" in name)
        for name in next(iter(by_count.values()))
    ]
    return LineChart(title, x_title, "µs", lines)
