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
from typing import Any, NamedTuple

import msgspec

from benchmarks.lab.process import PROGRAM_CORE, pinned
from benchmarks.lab.study_run import Lab
from benchmarks.lab.trend import slope
from benchmarks.lab.upstream_control import SOURCE_NAMES
from benchmarks.results import Figure, Finding, Line, LineChart, Row, Table
from cashier.consultation.flow import Consultation, OrderSummary
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


class WorkTimes(NamedTuple):
    """µs by work, one figure per round, and the size of the answer."""

    us: dict[str, list[float]]
    answer_bytes: int


def measure(lab: Lab) -> Finding:
    start_s = time.perf_counter()
    sizes = list(
        dict.fromkeys(
            [
                *((methods, USUAL_PROMOTIONS) for methods in METHOD_COUNTS),
                *((USUAL_METHODS, count) for count in PROMOTIONS),
            ]
        )
    )
    with pinned(PROGRAM_CORE):
        times_by_sizes = measure_works(lab, {each: works_of(world(*each)) for each in sizes})
    usual = figures(times_by_sizes[USUAL_METHODS, USUAL_PROMOTIONS])
    by_ways = {float(methods): figures(times_by_sizes[methods, USUAL_PROMOTIONS]) for methods in METHOD_COUNTS}
    return Finding(
        "methods",
        "Cost of more payment methods and more promotions",
        (__doc__ or "").strip(),
        time.perf_counter() - start_s,
        key={
            "methods.us_30": usual["assemble and rank µs"],
            "methods.encode_us_30": usual["encode µs"],
            "methods.prepare_us_30": usual["prepare µs"],
            "methods.us_per_way": growth(by_ways, "assemble and rank µs"),
            "methods.encode_us_per_way": growth(by_ways, "encode µs"),
        },
        tables=[table(times_by_sizes)],
        drawings=[
            drawing("Time by payment methods", "payment methods", by_ways),
            drawing(
                f"Time by promotions, {USUAL_METHODS} payment methods",
                "promotions offered to the customer",
                {float(count): figures(times_by_sizes[USUAL_METHODS, count]) for count in PROMOTIONS},
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
            *(
                quota(
                    Kind.QUICK_PAY,
                    bank=bank,
                    single=2_000_000,
                    daily=(5_000_000, 120_000),
                    monthly=(20_000_000, 900_000),
                )
                for bank in banks
            ),
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
    match sort:
        case 0:
            return promotion(f"p_{number}", 1_000 - 50 * turn, threshold=10_000)
        case 1:
            return promotion(
                f"p_{number}",
                percent_bps=500 - 30 * turn,
                kinds=[Kind.QUICK_PAY],
                banks=frozenset({f"B{1 + turn % 3}"}),
            )
        case 2:
            return promotion(f"p_{number}", 88 + turn, kinds=[Kind.QUICK_PAY, Kind.BALANCE], group=f"g_{turn}")
        case 3:
            return promotion(f"p_{number}", 1_200 + turn, kinds=[Kind.BALANCE], group=f"g_{turn}", stackable=False)
        case _:
            return promotion(f"p_{number}", 1_200, expires_at=NOW)


def works_of(of: World) -> Works:
    facts = of.facts()

    def consulted() -> tuple[PayMethod, ...]:
        case = ConsultationCase(of.request, facts, of.catalog, of.now)
        return rank_offers(case, assemble(case), of.weights)

    def prepared() -> tuple[Channels, Quotas]:
        return Channels.prepared(of.channels), Quotas.prepared(of.quotas)

    consultation = answer(facts, consulted())
    return {
        "prepare µs": prepared,
        "assemble and rank µs": consulted,
        "encode µs": lambda: msgspec.json.encode(consultation),
    }


def answer(facts: Facts, methods: tuple[PayMethod, ...]) -> Consultation:
    facts_order = facts.order
    return Consultation(
        TOKEN,
        NOW,
        NOW,
        OrderSummary(facts_order.order_id, facts_order.title, facts_order.amount, facts_order.expires_at),
        True,
        None,
        False,
        tuple(SourceReport(name, Importance.GATING, SourceStatus.FRESH, 0.1, 7.4, 0) for name in SOURCE_NAMES),
        methods,
    )


def measure_works(lab: Lab, works_by_sizes: Mapping[Sizes, Works]) -> dict[Sizes, WorkTimes]:
    times_by_sizes = {
        sizes: WorkTimes({name: [] for name in works_by_sizes[sizes]}, len(works_by_sizes[sizes]["encode µs"]()))
        for sizes in works_by_sizes
    }
    interval_s = QUICK_INTERVAL_S if lab.quick else INTERVAL_S
    for turn in range(lab.rounds):
        lab.report(f"methods: round {turn + 1} of {lab.rounds}")
        for sizes, works in works_by_sizes.items():
            for name, work in works.items():
                times_by_sizes[sizes].us[name].append(least_us(work, interval_s))
    return times_by_sizes


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


def figures(times_by_sizes: WorkTimes) -> dict[str, Figure]:
    return {name: Figure.of(*rounds) for name, rounds in times_by_sizes.us.items()}


def growth(by_count: Mapping[float, Mapping[str, Figure]], name: str) -> Figure:
    """The cost of one more, by round."""
    rounds = zip(*(each[name].rounds for each in by_count.values()), strict=True)
    return Figure.of(*(slope(list(zip(by_count, times, strict=True))) for times in rounds))


def table(times_by_sizes: Mapping[Sizes, WorkTimes]) -> Table:
    rows = [
        Row(
            f"{methods} methods, {promotions} promotions",
            {**figures(each), "answer kB": Figure.of(each.answer_bytes / 1_000)},
        )
        for (methods, promotions), each in sorted(times_by_sizes.items())
    ]
    return Table("Time of one consultation's payment logic", rows)


def drawing(title: str, x_title: str, by_count: Mapping[float, Mapping[str, Figure]]) -> LineChart:
    lines = [
        Line(
            name.removesuffix(" µs"),
            [(x, each[name]) for x, each in by_count.items()],
            ours=name.startswith("assemble"),
        )
        for name in next(iter(by_count.values()))
    ]
    return LineChart(title, x_title, "µs", lines)
