"""Capacity model: cores, upstream calls and Valkey operations for 1,000 to 100,000 consultations/s.

A simulation on measured prices. Prices: the service runs on core 0 with one mechanism after
another, open arrivals at up to 60 % of its core and an upstream of 5 ms. The CPU of a consultation
is fitted as a base plus prices for waiting at all, a live call, a Valkey read, a Valkey write, and
a key that shares a call. Hit rates are not an input: seeded traffic is drawn for one worker's
share, and cashier's own store (S3-FIFO), lifetimes, early refresh, default settings and batch rule
decide. The number of workers follows from the cores, and the hit rate from the number of workers,
until both agree. Predictions for settings that were not fitted stand beside their measurements.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.capacity.calibration import SETTINGS, CalibrationRound, SettingResult, measure_settings
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
from benchmarks.lab.study_run import Lab
from benchmarks.lab.upstream_control import SOURCE_NAMES
from benchmarks.results import BarChart, Figure, Finding, Line, LineChart, Row, Table

RATES = (1_000.0, 10_000.0, 100_000.0)
MOST_PER_S = RATES[-1]
CONSULTATIONS, QUICK_CONSULTATIONS = 24_000, 3_000
# A quick run fits all prices, and checks them once.
QUICK_CHECKS = 1
# With fewer rounds, none can be left out of a fit.
MINIMUM_ROUNDS = 2
# A larger difference from the expected operations means that Valkey was absent for a time.
PRESENT = 0.1
# A larger error of the model is reported as wrong.
TOLERATED = 0.15
CHECK_NOTE = (
    "Predicted: the simulator received the arrivals and nothing else. By the prices: for the calls and operations "
    "that upstream and "
    "Valkey counted; its error is the error of the prices, the rest is the simulator's."
)
ABSENT = (
    "Cashier bypasses a Valkey that takes over 20 ms, and misses later what was not written; so this row says little "
    "of the model."
)
PRICES_NOTE = (
    "Fitted by least squares, each time without one of the rounds; the spread is that of the fits. A hit in the "
    "worker's own memory, "
    "1 µs or less, is in the base."
)
LEFT_OUT = (
    "Not included: TLS, network cards and the kernel at scale (all was measured over loopback, on one core), the "
    "gateway in front, noisy "
    "neighbours, deployments, and failures: a failing source or a lost Valkey needs reserves that are not counted "
    "here.",
    "Load shedding has no row: at the utilisation of this fleet it does nothing.",
    "In the model an upstream call takes 5 ms at any load; its cores are not counted, nor Valkey's. Valkey has 64 "
    "GiB in total, with "
    "answers of 1.2 kB each.",
    "Sticky routing is modelled as even: a worker with a very active user, or after a takeover, has more work than "
    "the mean.",
)


class Prices(NamedTuple):
    """`each`: all prices, fitted without each round in turn.

    `typical`: medians, for the simulation.
    """

    each: Sequence[Mapping[str, float]]
    typical: Mapping[str, float]


class Check(NamedTuple):
    """A setting and the prediction for each round. `priced_us`: prices of the counted work."""

    result: SettingResult
    predicted: list[Prediction]
    priced_us: Figure

    @property
    def cpu_us(self) -> Figure:
        return Figure(tuple(one.usage.cpu_us for one in self.result.rounds))

    @property
    def error(self) -> float:
        """Of the predicted CPU."""
        return statistics.median(each.cpu_us for each in self.predicted) / self.cpu_us.median - 1

    @property
    def shared(self) -> float:
        """Valkey operations seen ÷ predicted."""
        expected = sum(each.shared for each in self.predicted)
        return sum(one.work["get"] + one.work["put"] for one in self.result.rounds) / expected if expected else 1.0

    @property
    def counts(self) -> bool:
        """True if it tests the model: it was not fitted, and Valkey was present throughout."""
        return not self.result.setting.fits and abs(self.shared - 1) <= PRESENT


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
    """Fit without each round in turn: a single round is too noisy for six prices."""
    fitting = [each.rounds for each in intervals if each.setting.fits]
    count = len(fitting[0])
    left_out = range(count) if count > MINIMUM_ROUNDS else [-1]
    rounds = [
        fit_prices([typical([one for place, one in enumerate(each) if place != out]) for each in fitting])
        for out in left_out
    ]
    return Prices(rounds, {part: statistics.median(each[part] for each in rounds) for part in PARTS})


def typical(rounds: Sequence[CalibrationRound]) -> tuple[Work, float]:
    """The mean work and the median of its cost."""
    work = {part: statistics.fmean(one.work[part] for one in rounds) for part in PARTS}
    return work, statistics.median(one.usage.cpu_us for one in rounds)


def simulated(lab: Lab, prices: Mapping[str, float]) -> dict[tuple[str, float], FleetNeed]:
    consultations = QUICK_CONSULTATIONS if lab.quick else CONSULTATIONS
    wanted = [(each, MOST_PER_S) for each in SCENARIOS] + [(each, rate) for each in FOLLOWED for rate in RATES[:-1]]
    needs = {}
    for scenario, per_s in wanted:
        lab.report(f"simulating {per_s:,.0f}/s, {scenario.label}")
        needs[scenario.label, per_s] = fleet_need(scenario.traffic, scenario.mechanisms, prices, per_s, consultations)
    return needs


def cores(need: FleetNeed, prices: Prices) -> Figure:
    """Cores with the prices of each fit: the spread shows the uncertainty of the measurements."""
    return Figure(tuple(need.per_s * cost_us(each, need.work) / 1e6 / UTILISATION for each in prices.each))


def fleets(needs: Mapping[tuple[str, float], FleetNeed], prices: Prices) -> Table:
    def row(scenario: Scenario) -> Row:
        need = needs[scenario.label, MOST_PER_S]
        figures = {
            "cores": cores(need, prices),
            "upstream calls/s": Figure.of(need.calls),
            "calls each": Figure.of(need.calls / need.per_s),
        }
        if need.served:
            figures["served by the worker's cache %"] = Figure.of(100 * need.served)
        if need.shared_per_s:
            figures["Valkey ops/s"] = Figure.of(need.shared_per_s)
            figures["found in Valkey %"] = Figure.of(100 * need.found)
        return Row(scenario.label, figures, "" if need.settled else "The number of workers did not settle.")

    return Table(
        f"{MOST_PER_S:,.0f} consultations/s",
        [row(each) for each in SCENARIOS],
        f"Cores for a utilisation of {UTILISATION:.0%}, one worker per core; the spread is that of the prices. "
        "Served: share of look-ups "
        "for cacheable answers that the worker's own memory answered, stale answers included. Found: share of the "
        "reads from Valkey.",
    )


def by_source(needs: Mapping[tuple[str, float], FleetNeed]) -> Table:
    rows = []
    for scenario in FOLLOWED:
        need = needs[scenario.label, MOST_PER_S]
        rows.append(Row(scenario.label, {name: Figure.of(need.calls_per_s[name]) for name in SOURCE_NAMES}))
    return Table(f"Calls/s to each source, at {MOST_PER_S:,.0f} consultations/s", rows, "A batch is one call.")


def check(result: SettingResult, prices: Mapping[str, float]) -> Check:
    return Check(result, replay(result, prices), Figure(tuple(cost_us(prices, one.work) for one in result.rounds)))


def check_table(checked: Sequence[Check]) -> Table:
    rows = []
    for each in checked:
        result, predictions, priced_us = each
        rounds = result.rounds
        figures = {
            "calls": Figure(tuple(sum(one.calls.values()) for one in rounds)),
            "calls predicted": Figure(tuple(one.calls for one in predictions)),
            "CPU µs": each.cpu_us,
            "CPU µs by the prices": priced_us,
            "CPU µs predicted": Figure(tuple(one.cpu_us for one in predictions)),
            "Valkey ops": Figure(tuple(one.work["get"] + one.work["put"] for one in rounds)),
            "Valkey ops predicted": Figure(tuple(one.shared for one in predictions)),
            "consultations/s": Figure(tuple(one.usage.interval.per_s for one in rounds)),
            "core busy %": Figure(tuple(100 * one.usage.program_busy for one in rounds)),
            "other core busy %": Figure(tuple(100 * one.usage.load_core_busy for one in rounds)),
        }
        if not result.setting.mechanisms.shared:
            del figures["Valkey ops"], figures["Valkey ops predicted"]
        rows.append(Row(result.setting.label, figures, "" if result.setting.fits else "not fitted"))
    return Table("The model beside the measurements, for each consultation", rows, CHECK_NOTE)


def price_table(prices: Prices) -> Table:
    names = {
        "base": "a consultation without calls",
        "call": "each live call",
        "wait": "waiting for any call",
        "get": "a read from Valkey",
        "put": "a write to Valkey",
        "key": "a key that shares a call",
    }
    rows = [Row(names[part], {"CPU µs": Figure(tuple(each[part] for each in prices.each))}) for part in PARTS]
    return Table(
        "Prices",
        rows,
        PRICES_NOTE,
    )


def supposed() -> Table:
    """The assumptions about the traffic."""
    traffic = Traffic()
    values = {
        "users at 100,000/s, millions": traffic.users_each * MOST_PER_S / 1e6,
        "Zipf exponent of users' activity (flat among the most active 0.1 %)": traffic.users_exponent,
        "consultations per checkout": traffic.each_checkout,
        "median pause between two of them, s": traffic.pause_s,
        "merchants": traffic.merchants,
        "Zipf exponent of merchants": traffic.merchants_exponent,
        "markets (currency and country)": traffic.markets,
        "Zipf exponent of markets": traffic.markets_exponent,
        "an upstream call, ms": traffic.took_ms,
        "extra calls by hedges and retries %": 100 * traffic.extra_share,
    }
    return Table(
        "Assumptions about the traffic",
        [Row(label, {"value": Figure.of(float(value))}) for label, value in values.items()],
    )


def by_rate(needs: Mapping[tuple[str, float], FleetNeed], prices: Prices) -> list[LineChart]:
    def lines(figure: Mapping[tuple[str, float], Figure]) -> list[Line]:
        return [
            Line(each.label, [(rate, figure[each.label, rate]) for rate in RATES], ours=each is LOCAL)
            for each in FOLLOWED
        ]

    each_calls = {at: Figure.of(need.calls / need.per_s) for at, need in needs.items()}
    return [
        LineChart(
            "Cores by rate",
            "consultations/s",
            "cores",
            lines({at: cores(need, prices) for at, need in needs.items()}),
            True,
            True,
        ),
        LineChart(
            "Upstream calls per consultation, by rate",
            "consultations/s",
            "calls",
            lines(each_calls),
            x_logarithmic=True,
        ),
    ]


def ablation(needs: Mapping[tuple[str, float], FleetNeed], prices: Prices) -> BarChart:
    """Relative to the same fleet, so that both fit one axis."""
    reference = needs[LOCAL.label, MOST_PER_S]
    ablated = [needs[each.label, MOST_PER_S] for each in ABLATED.values()]
    return BarChart(
        f"Effect of each mechanism, at {MOST_PER_S:,.0f} consultations/s",
        f"÷ “{LOCAL.label}”",
        list(ABLATED),
        {
            "cores": [cores(each, prices).over(cores(reference, prices)) for each in ablated],
            "upstream calls": [Figure.of(each.calls / reference.calls) for each in ablated],
        },
        marks={LOCAL.label: 1.0},
    )


def key(needs: Mapping[tuple[str, float], FleetNeed], prices: Prices, checked: Sequence[Check]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for name, scenario in (("everything", EVERYTHING), ("local", LOCAL), ("shipped", SHIPPED), ("nothing", BARE)):
        need = needs[scenario.label, MOST_PER_S]
        figures[f"cores.{name}"] = cores(need, prices)
        figures[f"calls_each.{name}"] = Figure.of(need.calls / MOST_PER_S)
    figures |= {f"price_us.{part}": Figure(tuple(each[part] for each in prices.each)) for part in PARTS}
    errors = [abs(each.error) for each in checked if each.counts]
    return figures | ({"error.cpu": Figure(tuple(errors))} if errors else {})


def notes(needs: Mapping[tuple[str, float], FleetNeed], checked: Sequence[Check]) -> list[str]:
    texts = [*limits(needs)]
    for each in checked:
        label = f"“{each.result.setting.label}”"
        if each.counts:
            wrong = "" if abs(each.error) <= TOLERATED else f", which exceeds the tolerance of {TOLERATED:.0%}"
            texts.append(f"Predicted for {label}: {each.error:+.0%} CPU{wrong}.")
        if abs(each.shared - 1) > PRESENT:
            texts.append(f"{label}: {each.shared:.0%} of the Valkey operations that the model expects. {ABSENT}")
        texts.extend(f"{label}: an answer was {wrong}." for wrong in dict.fromkeys(each.result.wrong))
        if missing := unanswered_note([one.usage.interval for one in each.result.rounds]):
            texts.append(f"{label}: {missing}.")
    return [*texts, *LEFT_OUT]


def limits(needs: Mapping[tuple[str, float], FleetNeed]) -> list[str]:
    """Conclusions from the rows, as text."""
    everything, local, sticky, bare = (
        needs[each.label, MOST_PER_S] for each in (EVERYTHING, LOCAL, LOCAL_STICKY, BARE)
    )
    usual = [each for each in SCENARIOS if each.traffic == Traffic()]
    cheapest = min(usual, key=lambda each: needs[each.label, MOST_PER_S].cores)
    sparing = min(usual, key=lambda each: needs[each.label, MOST_PER_S].calls)
    return [
        f"With “{LOCAL.label}” a consultation makes {local.calls / local.per_s:.2f} calls instead of "
        f"{bare.calls / bare.per_s:.2f}, "
        f"at {local.cores / bare.cores:.2f} times the cores.",
        f"Fewest cores: “{cheapest.label}”. Fewest upstream calls: “{sparing.label}”.",
        f"Sticky routing serves {sticky.served:.0%} from the worker's own memory instead of {local.served:.0%}.",
        f"Valkey changes the cores by a factor of {everything.cores / local.cores:.2f} and the upstream calls by "
        f"{everything.calls / local.calls:.2f}: reads and writes cost the worker CPU, and fewer keys share a call "
        "because each worker does less.",
        "Stale-while-revalidate, single flight and hedges serve latency and failures: on a good day they do not "
        "save calls.",
        "Batching is off by default, because a source has to offer it. Order, balance and quota are not cached by "
        "default and are asked "
        "each time.",
    ]
