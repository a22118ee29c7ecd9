"""The performance bars, and how the measured figures compare with them.

All rounding here is against us.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import Enum
from typing import NamedTuple

from benchmarks.results import Figure, Results


class Bar(NamedTuple):
    """`now`: the limit that must hold.

    `goal`: the target. `every_round`: the worst round counts.
    """

    what: str
    study: str
    key: str
    now: float
    goal: float | None = None
    unit: str = ""
    higher_is_better: bool = False
    every_round: bool = False


_LIVE = "CPU per consultation, eight live sources, ÷\N{NO-BREAK SPACE}"
_CACHED = "The same, cached as by default, ÷ "
_BATCHED = "Batching on, 2,000/s of distinct users: "
_ADDED = "Added latency at half load, over the slowest source (5 ms), "
_QUIET = "A quiet day, 150/s, slowest source 5 ms: "
_STRAGGLE = "1 % of calls 12 × slower: p99 with hedges ÷ "
_HANGS = "A source hangs: "
_OVERLOAD = "Three times the capacity offered: "
_SOAK = "Ten minutes at half load: "

BARS: Sequence[Bar] = (
    Bar(_LIVE + "nginx + Lua", "cost", "ratio.nginx_lua", 1.5, 1.0),
    Bar(_LIVE + "Lura, derived from nginx + Lua", "cost", "ratio.lura_derived", 0.4, 0.25),
    Bar(_LIVE + "Go net/http", "cost", "ratio.go", 0.7, 0.4),
    Bar(_LIVE + "Node http", "cost", "ratio.node", 0.6, 0.4),
    Bar(_LIVE + "aiohttp gather", "cost", "ratio.aiohttp", 0.3, 0.2),
    Bar(_LIVE + "FastAPI + httpx", "cost", "ratio.fastapi_httpx", 0.02, 0.01),
    Bar(_CACHED + "nginx + Lua that caches the same", "cost", "ratio_cached.nginx_lua_cached", 1.2, 0.8),
    Bar(_BATCHED + "upstream calls per consultation", "batch", "batch.calls_per_consultation", 0.6, 0.5),
    Bar(_ADDED + "p50", "latency", "added_ms.p50", 1.0, 0.3, "ms"),
    Bar(_ADDED + "p99", "latency", "added_ms.p99", 4.0, 1.0, "ms"),
    Bar(_QUIET + "p50 over Go's", "latency", "latency.quiet_p50_more_ms.go", 0.5, None, "ms"),
    Bar(_QUIET + "p99 ÷ Go's", "latency", "latency.quiet_p99_ratio.go", 1.0, 0.8),
    Bar(_STRAGGLE + "without hedges", "stragglers", "stragglers.p99_ratio", 0.5, 0.25),
    Bar(_STRAGGLE + "nginx + Lua's", "stragglers", "stragglers.p99_ratio.nginx_lua", 0.21, 0.17),
    Bar(_STRAGGLE + "Go's", "stragglers", "stragglers.p99_ratio.go", 0.21, 0.17),
    Bar("Extra calls by these hedges", "stragglers", "stragglers.extra_calls_percent", 2.0, None, "%"),
    Bar(
        _HANGS + "p99 over the deadline, every round",
        "hang",
        "hang.p99_over_deadline_ms",
        5.0,
        None,
        "ms",
        every_round=True,
    ),
    Bar(_HANGS + "time until p50 is normal", "hang", "hang.normal_after_s", 2.0, None, "s"),
    Bar(_OVERLOAD + "goodput ÷ peak", "overload", "overload.goodput", 0.9, 0.97, higher_is_better=True),
    Bar(_OVERLOAD + "p99 of admitted (twice the deadline)", "overload", "overload.admitted_p99_ms", 300.0, None, "ms"),
    Bar(_OVERLOAD + "p99 of refusals", "overload", "overload.refused_p99_ms", 5.0, None, "ms"),
    Bar("CPU per extra source", "sources", "sources.cost_us", 45.0, 30.0, "µs"),
    Bar(
        "Metrics, records and traces: CPU per consultation, on ÷ off",
        "observability",
        "observability.ratio",
        1.03,
    ),
    Bar("Memory of a worker's metrics", "observability", "observability.store_mb", 4.0, None, "MB"),
    Bar(
        "CPU of a scrape of two workers, every metric full",
        "observability",
        "observability.scrape_ms",
        20.0,
        None,
        "ms",
    ),
    Bar("A checkout: CPU beyond its consultation", "pages", "pages.checkout_us", 1_500.0, None, "µs"),
    Bar("Consultations beside 20 payers a second: p99 ÷ without", "pages", "pages.p99_ratio", 1.05),
    Bar("Document, style sheet and script of a page, in gzip", "pages", "pages.kib", 30.0, None, "KiB"),
    Bar(_SOAK + "all levels are flat (1: yes)", "soak", "soak.flat", 1.0, higher_is_better=True, every_round=True),
)


class Verdict(Enum):
    MET = "met"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


class BarResult(NamedTuple):
    """A bar with the measured figure. `why`: the reason if it was not measured, where known."""

    bar: Bar
    figure: Figure | None
    why: str = ""

    @property
    def judged_value(self) -> float | None:
        """The value compared with the bar: the median, or the worst round."""
        if self.figure is None:
            return None
        if not self.bar.every_round:
            return self.figure.median
        return self.figure.low if self.bar.higher_is_better else self.figure.high

    @property
    def verdict(self) -> Verdict:
        if self.judged_value is None:
            return Verdict.NOT_MEASURED
        return Verdict.MET if _reaches(self.bar, self.judged_value, self.bar.now) else Verdict.MISSED

    @property
    def spans_bar(self) -> bool:
        """True if some rounds are on the other side of the bar: another run may differ."""
        if self.figure is None:
            return False
        return _reaches(self.bar, self.figure.low, self.bar.now) != _reaches(self.bar, self.figure.high, self.bar.now)

    @property
    def value_text(self) -> str:
        value = self.judged_value
        return "" if value is None else round_against_us(value, higher_is_better=self.bar.higher_is_better)

    @property
    def spread(self) -> str:
        if self.figure is None or self.figure.low == self.figure.high:
            return ""
        higher = self.bar.higher_is_better
        low, high = (round_against_us(value, higher_is_better=higher) for value in (self.figure.low, self.figure.high))
        return f"{low} to {high}"

    @property
    def distance(self) -> str:
        """The distance from the goal."""
        bar, value = self.bar, self.judged_value
        if value is None or bar.goal is None:
            return ""
        if _reaches(bar, value, bar.goal):
            return "reached"
        return f"{round_against_us(value / bar.goal, higher_is_better=bar.higher_is_better)} × the goal"


def judge(results: Results) -> list[BarResult]:
    figures = {name: figure for finding in results.findings for name, figure in finding.key.items()}
    reasons = {
        finding.name: "its study failed" if finding.failed else "absent: see the notes of its study"
        for finding in results.findings
    }
    return [
        BarResult(bar, figures.get(bar.key), "" if bar.key in figures else reasons.get(bar.study, "not run"))
        for bar in BARS
    ]


def round_against_us(value: float, *, higher_is_better: bool, digits: int = 3) -> str:
    """Format with `digits` significant digits, rounded so that it never looks better than it is."""
    exact = Decimal(repr(value))
    if not exact:
        return "0"
    last = Decimal(1).scaleb(min(0, exact.adjusted() - digits + 1))
    return f"{exact.quantize(last, ROUND_FLOOR if higher_is_better else ROUND_CEILING):,f}".replace("-", "−")


def limit_text(bar: Bar, value: float | None) -> str:
    if value is None:
        return ""
    return f"{'≥' if bar.higher_is_better else '≤'} {value:g}{f' {bar.unit}' if bar.unit else ''}"


def summary(judged: Sequence[BarResult]) -> str:
    """Summarise the results in one sentence. Empty if nothing was measured."""
    counts = {verdict: sum(result.verdict is verdict for result in judged) for verdict in Verdict}
    met, missed, absent = (counts[verdict] for verdict in (Verdict.MET, Verdict.MISSED, Verdict.NOT_MEASURED))
    if absent == len(judged):
        return ""
    sentence = f"{met} of {len(judged)} bars met, {missed} missed, {absent} not measured"
    spanning = sum(result.spans_bar for result in judged)
    return f"{sentence}; {spanning} differ between rounds" if spanning else sentence


def _reaches(bar: Bar, value: float, mark: float) -> bool:
    return value >= mark if bar.higher_is_better else value <= mark
