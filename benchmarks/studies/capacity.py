"""Past this machine: what 1,000 to 100,000 consultations/s need in cores, upstream calls and Valkey operations, and why.

By simulation on measured prices. Prices: the service on core 0 with one mechanism after another, open arrivals at up to 60 % of its core,
an upstream of 5 ms; CPU for each consultation is fitted as a base, so much for having to wait at all, for a live call, a Valkey read, a
Valkey write, and a key that shares a call. Hit rates are never put in: seeded traffic is drawn for one worker's share, and the engine's
own store (S3-FIFO), lifetimes and early refresh, its default settings and its rule for batches decide. How many workers there are follows
from the cores, and the hit rate from how many there are, until both agree. What the simulator says of settings that no price was fitted to
stands beside what was measured there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.capacity.calibration import SETTINGS, SettingResult, CalibrationRound, measure_settings
from benchmarks.capacity.cost_model import PARTS, Work, cost_us, fit_prices
from benchmarks.capacity.fleet import UTILISATION, FleetNeed, fleet_need
from benchmarks.capacity.scenarios import (
    ABLATED,
    BARE,
    EVERYTHING,
    FOLLOWED,
    LOCAL,
    LOCAL_STICKY,
    SCENARIOS,
    SHIPPED,
    Scenario,
)
from benchmarks.capacity.trace_replay import Prediction, replay
from benchmarks.capacity.traffic import Traffic
from benchmarks.lab.cpu_usage import unanswered_note
from benchmarks.lab.lab import Lab
from benchmarks.results import BarChart, Figure, Finding, Line, LineChart, Row, Table
from cashier.consultation.plan import SOURCE_NAMES

RATES = (1_000.0, 10_000.0, 100_000.0)
MOST_PER_S = RATES[-1]
CONSULTATIONS, QUICK_CONSULTATIONS = 24_000, 3_000
# A quick run fits all prices, and checks them once.
QUICK_CHECKS = 1
# With fewer, none can be left out.
MINIMUM_ROUNDS = 2
# So far from what the model expects, Valkey was not there all the time.
PRESENT = 0.1
# Beyond this the model is told to be wrong.
TOLERATED = 0.15
CHECK_NOTE = (
    "Foretold: the simulator was given who came when, and nothing else. By the prices: of the calls and operations that upstream and "
    "Valkey counted; what is off there is the prices, and the rest is the simulator."
)
ALONE = "A Valkey that takes over 20 ms is left alone, and what was not written then is missed later; so this says little of the model."
PRICES_NOTE = (
    "Fitted by least squares, each time without one of the rounds: the spread is of those fits. A hit in the worker's own memory, 1 µs or "
    "less, is in the base."
)
LEFT_OUT = (
    "Left out: TLS, network cards and the kernel at scale (all was measured over loopback, on one core), the gateway in front, noisy "
    "neighbours, deploys, and bad days: a source that fails, or a Valkey that is lost, needs room that is not counted here.",
    "Shedding has no row: at the utilisation that the fleet is made for it does nothing.",
    "The upstream answers one question in 5 ms in the model, however many it is asked; its own cores are not counted, nor are Valkey's. "
    "Valkey is taken as 64 GiB in all, of answers that take 1.2 kB each.",
    "Sticky routing is taken as even: a worker that owns a very active user, or that takes over another's, has more to do than the mean.",
)


class Prices(NamedTuple):
    """`each`: all prices, once without each round. `typical`: their medians, which the simulation is made with."""

    each: Sequence[Mapping[str, float]]
    typical: Mapping[str, float]


class Check(NamedTuple):
    """A setting, and what the simulator said of each of its rounds. `priced_us`: what the prices say of the work that was counted."""

    found: SettingResult
    foretold: list[Prediction]
    priced_us: Figure

    @property
    def cpu_us(self) -> Figure:
        return Figure(tuple(one.usage.cpu_us for one in self.found.rounds))

    @property
    def error(self) -> float:
        """Of the CPU, foretold against measured."""
        return statistics.median(each.cpu_us for each in self.foretold) / self.cpu_us.median - 1

    @property
    def shared(self) -> float:
        """Of the Valkey operations that the simulator expects, how many were seen."""
        expected = sum(each.shared for each in self.foretold)
        return sum(one.work["get"] + one.work["put"] for one in self.found.rounds) / expected if expected else 1.0

    @property
    def counts(self) -> bool:
        """Whether it says something of the model: no price was fitted to it, and Valkey was there."""
        return not self.found.setting.fits and abs(self.shared - 1) <= PRESENT


def measure(lab: Lab) -> Finding:
    start_s = time.perf_counter()
    checks = [each for each in SETTINGS if not each.fits]
    settings = [each for each in SETTINGS if each.fits] + (checks[:QUICK_CHECKS] if lab.quick else checks)
    intervals = measure_settings(lab, settings)
    prices = priced(intervals)
    needs = simulated(lab, prices.typical)
    checked = [check(each, prices.typical) for each in intervals]
    return Finding(
        name="capacity",
        title=f"What {MOST_PER_S:,.0f} consultations a second need",
        about=" ".join((__doc__ or "").split()),
        seconds=time.perf_counter() - start_s,
        key=key(needs, prices, checked),
        tables=[fleets(needs, prices), by_source(needs), check_table(checked), price_table(prices), supposed()],
        drawings=[*by_rate(needs, prices), ablation(needs, prices)],
        notes=notes(needs, checked),
    )


def priced(intervals: Sequence[SettingResult]) -> Prices:
    """Fitted to all rounds but one, for each one: a single round has too much chance in it for six prices."""
    fitting = [each.rounds for each in intervals if each.setting.fits]
    count = len(fitting[0])
    left_out = range(count) if count > MINIMUM_ROUNDS else [-1]
    rounds = [
        fit_prices([typical([one for place, one in enumerate(each) if place != out]) for each in fitting])
        for out in left_out
    ]
    return Prices(rounds, {part: statistics.median(each[part] for each in rounds) for part in PARTS})


def typical(rounds: Sequence[CalibrationRound]) -> tuple[Work, float]:
    """The work on average, and the median of what it cost."""
    work = {part: statistics.fmean(one.work[part] for one in rounds) for part in PARTS}
    return work, statistics.median(one.usage.cpu_us for one in rounds)


def simulated(lab: Lab, prices: Mapping[str, float]) -> dict[tuple[str, float], FleetNeed]:
    consultations = QUICK_CONSULTATIONS if lab.quick else CONSULTATIONS
    wanted = [(each, MOST_PER_S) for each in SCENARIOS] + [(each, rate) for each in FOLLOWED for rate in RATES[:-1]]
    found = {}
    for scenario, per_s in wanted:
        lab.report(f"simulating {per_s:,.0f}/s, {scenario.label}")
        found[scenario.label, per_s] = fleet_need(scenario.traffic, scenario.mechanisms, prices, per_s, consultations)
    return found


def cores(found: FleetNeed, prices: Prices) -> Figure:
    """With the prices of each round: how far what was measured lets them be known."""
    return Figure(tuple(found.per_s * cost_us(each, found.work) / 1e6 / UTILISATION for each in prices.each))


def fleets(needs: Mapping[tuple[str, float], FleetNeed], prices: Prices) -> Table:
    def row(scenario: Scenario) -> Row:
        found = needs[scenario.label, MOST_PER_S]
        figures = {
            "cores": cores(found, prices),
            "upstream calls/s": Figure.of(found.calls),
            "calls each": Figure.of(found.calls / found.per_s),
        }
        if found.served:
            figures["served by the worker's cache %"] = Figure.of(100 * found.served)
        if found.shared_per_s:
            figures["Valkey ops/s"] = Figure.of(found.shared_per_s)
            figures["found in Valkey %"] = Figure.of(100 * found.found)
        return Row(scenario.label, figures, "" if found.settled else "The number of workers had not settled.")

    return Table(
        f"{MOST_PER_S:,.0f} consultations/s",
        [row(each) for each in SCENARIOS],
        f"Cores so that each is {UTILISATION:.0%} busy, one worker a core; the spread is that of the prices. Served: of the look-ups for "
        "what is cached, in the worker's own memory, stale answers included. Found: of the looks into Valkey.",
    )


def by_source(needs: Mapping[tuple[str, float], FleetNeed]) -> Table:
    rows = []
    for scenario in FOLLOWED:
        found = needs[scenario.label, MOST_PER_S]
        rows.append(Row(scenario.label, {name: Figure.of(found.calls_per_s[name]) for name in SOURCE_NAMES}))
    return Table(f"Calls/s to each source, at {MOST_PER_S:,.0f} consultations/s", rows, "A call for many is one.")


def check(found: SettingResult, prices: Mapping[str, float]) -> Check:
    return Check(found, replay(found, prices), Figure(tuple(cost_us(prices, one.work) for one in found.rounds)))


def check_table(checked: Sequence[Check]) -> Table:
    rows = []
    for each in checked:
        found, foretold, priced_us = each
        rounds = found.rounds
        figures = {
            "calls": Figure(tuple(sum(one.calls.values()) for one in rounds)),
            "calls foretold": Figure(tuple(one.calls for one in foretold)),
            "CPU µs": each.cpu_us,
            "CPU µs by the prices": priced_us,
            "CPU µs foretold": Figure(tuple(one.cpu_us for one in foretold)),
            "Valkey ops": Figure(tuple(one.work["get"] + one.work["put"] for one in rounds)),
            "Valkey ops foretold": Figure(tuple(one.shared for one in foretold)),
            "consultations/s": Figure(tuple(one.usage.interval.per_s for one in rounds)),
            "core busy %": Figure(tuple(100 * one.usage.program_busy for one in rounds)),
            "other core busy %": Figure(tuple(100 * one.usage.load_core_busy for one in rounds)),
        }
        if not found.setting.mechanisms.shared:
            del figures["Valkey ops"], figures["Valkey ops foretold"]
        rows.append(Row(found.setting.label, figures, "" if found.setting.fits else "no price was fitted to it"))
    return Table("The model beside what was measured, for each consultation", rows, CHECK_NOTE)


def price_table(prices: Prices) -> Table:
    names = {
        "base": "a consultation without any call",
        "call": "each live call",
        "wait": "that it waits for any",
        "get": "a read from Valkey",
        "put": "a write to Valkey",
        "key": "a key that shares a call",
    }
    rows = [Row(names[part], {"CPU µs": Figure(tuple(each[part] for each in prices.each))}) for part in PARTS]
    return Table(
        "Prices",
        rows,
        "Fitted by least squares, each round apart. A hit in the worker's own memory, 1 µs or less, is in the base.",
    )


def supposed() -> Table:
    """The traffic model, so that nobody has to read code to doubt it."""
    traffic = Traffic()
    values = {
        "users at 100,000/s, millions": traffic.users_each * MOST_PER_S / 1e6,
        "Zipf exponent of users' activity (flat among the most active 0.1 %)": traffic.users_exponent,
        "consultations a checkout": traffic.each_checkout,
        "median pause between two of a checkout, s": traffic.pause_s,
        "merchants": traffic.merchants,
        "Zipf exponent of merchants": traffic.merchants_exponent,
        "markets (currency and country)": traffic.markets,
        "Zipf exponent of markets": traffic.markets_exponent,
        "an upstream call, ms": traffic.took_ms,
        "extra calls by hedges and retries %": 100 * traffic.extra_share,
    }
    return Table(
        "What is supposed of the traffic",
        [Row(label, {"value": Figure.of(float(value))}) for label, value in values.items()],
    )


def by_rate(needs: Mapping[tuple[str, float], FleetNeed], prices: Prices) -> list[LineChart]:
    def lines(figure: Mapping[tuple[str, float], Figure]) -> list[Line]:
        return [
            Line(each.label, [(rate, figure[each.label, rate]) for rate in RATES], ours=each is LOCAL)
            for each in FOLLOWED
        ]

    each_calls = {at: Figure.of(found.calls / found.per_s) for at, found in needs.items()}
    return [
        LineChart(
            "Cores by rate",
            "consultations/s",
            "cores",
            lines({at: cores(found, prices) for at, found in needs.items()}),
            True,
            True,
        ),
        LineChart(
            "Upstream calls of a consultation, by rate",
            "consultations/s",
            "calls",
            lines(each_calls),
            x_logarithmic=True,
        ),
    ]


def ablation(needs: Mapping[tuple[str, float], FleetNeed], prices: Prices) -> BarChart:
    """Both are held against the same fleet, so that they fit one axis."""
    whole = needs[LOCAL.label, MOST_PER_S]
    found = [needs[each.label, MOST_PER_S] for each in ABLATED.values()]
    return BarChart(
        f"What each mechanism does, at {MOST_PER_S:,.0f} consultations/s",
        f"times what “{LOCAL.label}” needs",
        list(ABLATED),
        {
            "cores": [cores(each, prices).over(cores(whole, prices)) for each in found],
            "upstream calls": [Figure.of(each.calls / whole.calls) for each in found],
        },
        marks={LOCAL.label: 1.0},
    )


def key(needs: Mapping[tuple[str, float], FleetNeed], prices: Prices, checked: Sequence[Check]) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for name, scenario in (("everything", EVERYTHING), ("local", LOCAL), ("shipped", SHIPPED), ("nothing", BARE)):
        whole = needs[scenario.label, MOST_PER_S]
        found[f"cores.{name}"] = cores(whole, prices)
        found[f"calls_each.{name}"] = Figure.of(whole.calls / MOST_PER_S)
    found |= {f"price_us.{part}": Figure(tuple(each[part] for each in prices.each)) for part in PARTS}
    errors = [abs(each.error) for each in checked if each.counts]
    return found | ({"error.cpu": Figure(tuple(errors))} if errors else {})


def notes(needs: Mapping[tuple[str, float], FleetNeed], checked: Sequence[Check]) -> list[str]:
    found = [*limits(needs)]
    for each in checked:
        label = f"“{each.found.setting.label}”"
        if each.counts:
            wrong = "" if abs(each.error) <= TOLERATED else f": more than the {TOLERATED:.0%} that a model may err"
            found.append(f"Foretold for {label}: {each.error:+.0%} CPU{wrong}.")
        if abs(each.shared - 1) > PRESENT:
            found.append(f"{label}: {each.shared:.0%} of the Valkey operations that the model expects. {ALONE}")
        found.extend(f"{label}: an answer was {wrong}." for wrong in dict.fromkeys(each.found.wrong))
        if missing := unanswered_note([one.usage.interval for one in each.found.rounds]):
            found.append(f"{label}: {missing}.")
    return [*found, *LEFT_OUT]


def limits(needs: Mapping[tuple[str, float], FleetNeed]) -> list[str]:
    """What the rows come to, in words; taken from them."""
    whole, local, sticky, bare = (needs[each.label, MOST_PER_S] for each in (EVERYTHING, LOCAL, LOCAL_STICKY, BARE))
    usual = [each for each in SCENARIOS if each.traffic == Traffic()]
    cheapest = min(usual, key=lambda each: needs[each.label, MOST_PER_S].cores)
    sparing = min(usual, key=lambda each: needs[each.label, MOST_PER_S].calls)
    return [
        f"With “{LOCAL.label}” a consultation makes {local.calls / local.per_s:.2f} calls instead of {bare.calls / bare.per_s:.2f}, "
        f"for {local.cores / bare.cores:.2f} times the cores.",
        f"Fewest cores: “{cheapest.label}”. Fewest upstream calls: “{sparing.label}”.",
        f"Sticky routing serves {sticky.served:.0%} from the worker's own memory instead of {local.served:.0%}.",
        f"Valkey changes the cores by a factor of {whole.cores / local.cores:.2f} and the upstream calls by "
        f"{whole.calls / local.calls:.2f}: reading and writing it costs the worker CPU of its own, and where each worker does less, "
        "fewer keys share a call.",
        "Stale-while-revalidate, single flight and hedges are for latency and for bad days: on a good one they are not what saves calls.",
        "Batching is not on by default, because a source has to offer it. Order, balance and quota are not cached by default, and so are "
        "asked each time.",
    ]
