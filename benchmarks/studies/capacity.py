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
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from benchmarks.capacity.caches import DEFAULTS, Mechanisms
from benchmarks.capacity.calibration import (
    SETTINGS,
    CalibrationRound,
    Prediction,
    SettingResult,
    measure_settings,
    replay,
)
from benchmarks.capacity.fleet import PARTS, UTILISATION, FleetNeed, Work, cost_us, fit_prices, fleet_need
from benchmarks.capacity.traffic import Traffic
from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import interval_doubts
from benchmarks.lab.upstream import SOURCE_NAMES
from benchmarks.results import BarChart, Columns, Figure, Finding, Line, LineChart, Row, Table, figures

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
# 20 million users at 100,000 consultations/s: all return within minutes.
FEW_USERS = 200
# Entries of a worker with about 700 MB more memory.
MANY_ENTRIES = 200_000

# The fleets to compare: everything on, nothing, and each mechanism left out once. The reference for
# each mechanism is all but Valkey, because the cost of reads and writes to it would hide the rest.
EVERYTHING, LOCAL = "everything on", "all but Valkey"
STICKY, SHIPPED = "all but Valkey, sticky by user", "all but Valkey and batch: as shipped"
UNCACHED, WAITING = "all but Valkey and caches", "all but Valkey and stale-while-revalidate"
APART, UNHEDGED = "all but Valkey and single flight", "all but Valkey and hedge"
BARE, REGULARS = "nothing: eight live calls", "everything on, 20 million users"
ON, OFF = Mechanisms(), Mechanisms({}, shared=False, batch=False, hedge=False)
ALL_BUT_VALKEY = replace(ON, shared=False)
# Without stale answers a late consultation waits for a new one. On an error the old one still
# serves.
NO_STALE = {name: replace(each, stale_s=0) for name, each in DEFAULTS.items()}
SCENARIOS = {
    EVERYTHING: ON,
    "everything on, sticky by user": replace(ON, sticky=True),
    REGULARS: ON,
    LOCAL: ALL_BUT_VALKEY,
    STICKY: replace(ALL_BUT_VALKEY, sticky=True),
    f"all but Valkey, sticky, {MANY_ENTRIES:,} answers a worker": replace(
        ALL_BUT_VALKEY, sticky=True, entries=MANY_ENTRIES
    ),
    SHIPPED: replace(ALL_BUT_VALKEY, batch=False),
    UNCACHED: replace(ALL_BUT_VALKEY, lifetimes={}),
    WAITING: replace(ALL_BUT_VALKEY, lifetimes=NO_STALE),
    APART: replace(ALL_BUT_VALKEY, single_flight=False),
    UNHEDGED: replace(ALL_BUT_VALKEY, hedge=False),
    BARE: OFF,
}
# At all rates, with the names of their keys.
FOLLOWED = {EVERYTHING: "everything", LOCAL: "local", SHIPPED: "shipped", BARE: "nothing"}
ABLATED = {
    "without batch": SHIPPED,
    "without caches": UNCACHED,
    "without stale-while-revalidate": WAITING,
    "without single flight": APART,
    "without hedge": UNHEDGED,
    "with sticky routing": STICKY,
    "with Valkey": EVERYTHING,
}

PRICES = {
    "base": "a consultation without calls",
    "call": "each live call",
    "wait": "waiting for any call",
    "get": "a read from Valkey",
    "put": "a write to Valkey",
    "key": "a key that shares a call",
}
FLEET_NOTE = (
    f"Cores for a utilisation of {UTILISATION:.0%}, one worker per core; the spread is that of the prices. Served: "
    "share of look-ups for cacheable answers that the worker's own memory answered, stale answers included. Found: "
    "share of the reads from Valkey."
)
CHECK_NOTE = (
    "Predicted: the simulator received the arrivals and nothing else. By the prices: for the calls and operations "
    "that upstream and Valkey counted; its error is the error of the prices, the rest is the simulator's."
)
ABSENT = (
    "Cashier bypasses a Valkey that takes over 20 ms, and misses later what was not written; so this row says little "
    "of the model."
)
PRICES_NOTE = (
    "Fitted by least squares, each time without one of the rounds; the spread is that of the fits. A hit in the "
    "worker's own memory, 1 µs or less, is in the base."
)
LEFT_OUT = (
    "Stale-while-revalidate, single flight and hedges serve latency and failures: on a good day they do not save "
    "calls.",
    "Batching is off by default, because a source has to offer it. Order, balance and quota are not cached by "
    "default and are asked each time.",
    "Not included: TLS, network cards and the kernel at scale (all was measured over loopback, on one core), the "
    "gateway in front, noisy neighbours, deployments, and failures: a failing source or a lost Valkey needs reserves "
    "that are not counted here.",
    "Load shedding has no row: at the utilisation of this fleet it does nothing.",
    "In the model an upstream call takes 5 ms at any load; its cores are not counted, nor Valkey's. Valkey has 64 "
    "GiB in total, with answers of 1.2 kB each.",
    "Sticky routing is modelled as even: a worker with a very active user, or after a takeover, has more work than "
    "the mean.",
)
# By scenario and rate.
Needs: TypeAlias = Mapping[tuple[str, float], FleetNeed]


class Prices(NamedTuple):
    """`each`: all prices, fitted without each round in turn.

    `typical`: medians, for the simulation.
    """

    each: Sequence[Work]
    typical: Work

    def cores(self, need: FleetNeed) -> Figure:
        """Cores with the prices of each fit: the spread is the uncertainty of the measurements."""
        return Figure.by_round(need.per_s * cost_us(each, need.work) / 1e6 / UTILISATION for each in self.each)


class CheckedRound(NamedTuple):
    """`priced_us`: prices of the counted work."""

    measured: CalibrationRound
    predicted: Prediction
    priced_us: float


CHECKS: Columns[CheckedRound] = {
    "calls": lambda each: each.measured.calls,
    "calls predicted": lambda each: each.predicted.calls,
    "CPU µs": lambda each: each.measured.usage.cpu_us,
    "CPU µs by the prices": lambda each: each.priced_us,
    "CPU µs predicted": lambda each: each.predicted.cpu_us,
    "consultations/s": lambda each: each.measured.usage.interval.per_s,
    "core busy %": lambda each: 100 * each.measured.usage.program_busy,
    "other core busy %": lambda each: 100 * each.measured.usage.load_core_busy,
}
VALKEY_CHECKS: Columns[CheckedRound] = {
    "Valkey ops": lambda each: each.measured.shared,
    "Valkey ops predicted": lambda each: each.predicted.shared,
}


class Check(NamedTuple):
    """A setting and the prediction for each round."""

    result: SettingResult
    rounds: list[CheckedRound]

    @property
    def error(self) -> float:
        """Of the predicted CPU."""
        columns = figures(self.rounds, CHECKS)
        return columns["CPU µs predicted"].median / columns["CPU µs"].median - 1

    @property
    def shared(self) -> float:
        """Valkey operations seen ÷ predicted."""
        expected = sum(each.predicted.shared for each in self.rounds)
        return sum(each.measured.shared for each in self.rounds) / expected if expected else 1.0

    @property
    def counts(self) -> bool:
        """True if it tests the model: it was not fitted, and Valkey was present throughout."""
        return not self.result.setting.fits and abs(self.shared - 1) <= PRESENT

    @property
    def row(self) -> Row:
        setting = self.result.setting
        columns = figures(self.rounds, {**CHECKS, **(VALKEY_CHECKS if setting.mechanisms.shared else {})})
        return Row(setting.label, columns, "" if setting.fits else "not fitted")


def measure(lab: Lab) -> Finding:
    checks = [each for each in SETTINGS if not each.fits]
    settings = [each for each in SETTINGS if each.fits] + (checks[:QUICK_CHECKS] if lab.quick else checks)
    results = measure_settings(lab, settings)
    prices = priced(results)
    needs = simulated(lab, prices.typical)
    checked = [check(each, prices.typical) for each in results]
    price_rows = [Row(PRICES[part], {"CPU µs": figure}) for part, figure in price_figures(prices).items()]
    check_title = "The model beside the measurements, for each consultation"
    return Finding(
        f"What {MOST_PER_S:,.0f} consultations a second need",
        key=key(needs, prices, checked),
        tables=[
            fleets(needs, prices),
            by_source(needs),
            Table(check_title, [each.row for each in checked], CHECK_NOTE),
            Table("Prices", price_rows, PRICES_NOTE),
            supposed(),
        ],
        drawings=[
            by_rate("Cores by rate", "cores", {at: prices.cores(need) for at, need in needs.items()}, True),
            by_rate(
                "Upstream calls per consultation, by rate",
                "calls",
                {at: Figure.of(need.calls_each) for at, need in needs.items()},
                False,
            ),
            ablation(needs, prices),
        ],
        notes=notes(checked),
    )


def priced(results: Sequence[SettingResult]) -> Prices:
    """Fit without each round in turn: a single round is too noisy for six prices."""
    fitting = [each.rounds for each in results if each.setting.fits]
    count = len(fitting[0])
    left_out = range(count) if count > MINIMUM_ROUNDS else [-1]
    fits = [
        fit_prices([typical([one for place, one in enumerate(rounds) if place != out]) for rounds in fitting])
        for out in left_out
    ]
    return Prices(fits, {part: statistics.median(each[part] for each in fits) for part in PARTS})


def typical(rounds: Sequence[CalibrationRound]) -> tuple[Work, float]:
    """The mean work and the median of its cost."""
    work = {part: statistics.fmean(one.work[part] for one in rounds) for part in PARTS}
    return work, statistics.median(one.usage.cpu_us for one in rounds)


def price_figures(prices: Prices) -> dict[str, Figure]:
    return {part: Figure.by_round(each[part] for each in prices.each) for part in PARTS}


def simulated(lab: Lab, prices: Work) -> Needs:
    consultations = QUICK_CONSULTATIONS if lab.quick else CONSULTATIONS
    needs = {}
    for label, per_s in [(each, MOST_PER_S) for each in SCENARIOS] + [
        (each, r) for each in FOLLOWED for r in RATES[:-1]
    ]:
        lab.report(f"simulating {per_s:,.0f}/s, {label}")
        traffic = Traffic(users_each=FEW_USERS) if label == REGULARS else Traffic()
        needs[label, per_s] = fleet_need(traffic, SCENARIOS[label], prices, per_s, consultations)
    return needs


def check(result: SettingResult, prices: Work) -> Check:
    pairs = zip(result.rounds, replay(result, prices), strict=True)
    return Check(result, [CheckedRound(one, predicted, cost_us(prices, one.work)) for one, predicted in pairs])


def fleets(needs: Needs, prices: Prices) -> Table:
    def row(label: str) -> Row:
        need = needs[label, MOST_PER_S]
        columns = {
            "cores": prices.cores(need),
            "upstream calls/s": Figure.of(need.calls_each * need.per_s),
            "calls each": Figure.of(need.calls_each),
        }
        if need.served:
            columns["served by the worker's cache %"] = Figure.of(100 * need.served)
        if need.shared_per_s:
            columns["Valkey ops/s"] = Figure.of(need.shared_per_s)
            columns["found in Valkey %"] = Figure.of(100 * need.found)
        return Row(label, columns, "" if need.settled else "The number of workers did not settle.")

    return Table(f"{MOST_PER_S:,.0f} consultations/s", [row(each) for each in SCENARIOS], FLEET_NOTE)


def by_source(needs: Needs) -> Table:
    rows = [
        Row(label, {name: Figure.of(needs[label, MOST_PER_S].calls_per_s[name]) for name in SOURCE_NAMES})
        for label in FOLLOWED
    ]
    return Table(f"Calls/s to each source, at {MOST_PER_S:,.0f} consultations/s", rows, "A batch is one call.")


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
    rows = [Row(label, {"value": Figure.of(float(value))}) for label, value in values.items()]
    return Table("Assumptions about the traffic", rows)


def by_rate(title: str, y_title: str, figure: Mapping[tuple[str, float], Figure], logarithmic: bool) -> LineChart:
    lines = [Line(each, [(rate, figure[each, rate]) for rate in RATES], ours=each == LOCAL) for each in FOLLOWED]
    return LineChart(title, "consultations/s", y_title, lines, True, logarithmic)


def ablation(needs: Needs, prices: Prices) -> BarChart:
    """Relative to the same fleet, so that both fit one axis."""
    reference, ablated = needs[LOCAL, MOST_PER_S], [needs[each, MOST_PER_S] for each in ABLATED.values()]
    groups = {
        "cores": [prices.cores(each).over(prices.cores(reference)) for each in ablated],
        "upstream calls": [Figure.of(each.calls_each / reference.calls_each) for each in ablated],
    }
    title = f"Effect of each mechanism, at {MOST_PER_S:,.0f} consultations/s"
    return BarChart(title, f"÷ “{LOCAL}”", list(ABLATED), groups, marks={LOCAL: 1.0})


def key(needs: Needs, prices: Prices, checked: Sequence[Check]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for label, name in FOLLOWED.items():
        figures[f"cores.{name}"] = prices.cores(needs[label, MOST_PER_S])
        figures[f"calls_each.{name}"] = Figure.of(needs[label, MOST_PER_S].calls_each)
    figures |= {f"price_us.{part}": figure for part, figure in price_figures(prices).items()}
    errors = [abs(each.error) for each in checked if each.counts]
    return figures | ({"error.cpu": Figure.by_round(errors)} if errors else {})


def notes(checked: Sequence[Check]) -> list[str]:
    texts = []
    for each in checked:
        label = f"“{each.result.setting.label}”"
        if each.counts:
            wrong = "" if abs(each.error) <= TOLERATED else f", which exceeds the tolerance of {TOLERATED:.0%}"
            texts.append(f"Predicted for {label}: {each.error:+.0%} CPU{wrong}.")
        if abs(each.shared - 1) > PRESENT:
            texts.append(f"{label}: {each.shared:.0%} of the Valkey operations that the model expects. {ABSENT}")
        texts += interval_doubts(label, [one.usage.interval for one in each.result.rounds])
    return [*texts, *LEFT_OUT]
