"""What the engine has promised, as a table of bars, and how what was found stands against each.

Measures nothing and draws nothing. Whatever is rounded here is rounded against us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import Enum
from typing import NamedTuple

from benchmarks.results import Figure, Results


class Bar(NamedTuple):
    """`now`: what has to hold; `goal`: where we are going. `every_round`: the worst round judged_value, not the median."""

    what: str
    study: str
    key: str
    now: float
    goal: float | None = None
    unit: str = ""
    higher_is_better: bool = False
    every_round: bool = False


_LIVE = "CPU per consultation, eight live sources, ÷\N{NO-BREAK SPACE}"
_ADDED = "Added latency at half load, over the slowest source (5 ms), "

BARS: Sequence[Bar] = (
    Bar(_LIVE + "nginx + Lua", "cost", "ratio.nginx_lua", 1.5, 1.0),
    Bar(_LIVE + "Lura, derived from nginx + Lua", "cost", "ratio.lura_derived", 0.4, 0.25),
    Bar(_LIVE + "Go net/http", "cost", "ratio.go", 0.7, 0.4),
    Bar(_LIVE + "Node http", "cost", "ratio.node", 0.6, 0.4),
    Bar(_LIVE + "aiohttp gather", "cost", "ratio.aiohttp", 0.3, 0.2),
    Bar(_LIVE + "FastAPI + httpx", "cost", "ratio.fastapi_httpx", 0.02, 0.01),
    Bar(
        "The same, cached as by default, ÷ nginx + Lua that caches the same",
        "cost",
        "ratio_cached.nginx_lua_cached",
        1.2,
        0.8,
    ),
    Bar(
        "Batching on, 2,000/s of distinct users: upstream calls per consultation",
        "batch",
        "batch.calls_per_consultation",
        1.5,
        0.5,
    ),
    Bar(_ADDED + "p50", "latency", "added_ms.p50", 1.0, 0.3, "ms"),
    Bar(_ADDED + "p99", "latency", "added_ms.p99", 4.0, 1.0, "ms"),
    Bar("1 % of calls 12 × slower: p99 with hedges ÷ without", "stragglers", "stragglers.p99_ratio", 0.5, 0.25),
    Bar(
        "The calls that this takes beyond the first ones",
        "stragglers",
        "stragglers.extra_calls_percent",
        5.0,
        None,
        "%",
    ),
    Bar(
        "A source hangs: p99 beyond the deadline, in every round",
        "hang",
        "hang.p99_over_deadline_ms",
        5.0,
        None,
        "ms",
        every_round=True,
    ),
    Bar("A source hangs: until p50 is normal again", "hang", "hang.normal_after_s", 2.0, None, "s"),
    Bar("Three times the capacity offered: goodput ÷ peak", "overload", "overload.goodput", 0.9, 0.97, higher_is_better=True),
    Bar(
        "The same: p99 of the admitted (twice the deadline at most)",
        "overload",
        "overload.admitted_p99_ms",
        300.0,
        None,
        "ms",
    ),
    Bar("The same: p99 of the refusals", "overload", "overload.refused_p99_ms", 5.0, None, "ms"),
    Bar("CPU per extra source", "sources", "sources.cost_us", 45.0, 30.0, "µs"),
    Bar(
        "Ten minutes at half load: memory, sockets and timers are flat (1: yes)",
        "soak",
        "soak.flat",
        1.0,
        None,
        higher_is_better=True,
        every_round=True,
    ),
)


class Verdict(Enum):
    MET = "met"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


class BarResult(NamedTuple):
    """A bar beside what was found. `why`: of a bar that was not measured, the reason as far as it is known."""

    bar: Bar
    figure: Figure | None
    why: str = ""

    @property
    def judged_value(self) -> float | None:
        """The value that is judged."""
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
        """Some rounds are on the other side of the bar: another run might say otherwise."""
        if self.figure is None:
            return False
        return _reaches(self.bar, self.figure.low, self.bar.now) != _reaches(self.bar, self.figure.high, self.bar.now)

    @property
    def value_text(self) -> str:
        return "" if self.judged_value is None else round_against_us(self.judged_value, higher_is_better=self.bar.higher_is_better)

    @property
    def spread(self) -> str:
        if self.figure is None or self.figure.low == self.figure.high:
            return ""
        return (
            f"{round_against_us(self.figure.low, higher_is_better=self.bar.higher_is_better)} to {round_against_us(self.figure.high, higher_is_better=self.bar.higher_is_better)}"
        )

    @property
    def distance(self) -> str:
        """How far from where we are going."""
        bar, value = self.bar, self.judged_value
        if value is None or bar.goal is None:
            return ""
        if _reaches(bar, value, bar.goal):
            return "reached"
        return f"{round_against_us(value / bar.goal, higher_is_better=bar.higher_is_better)} × the goal"


def judge(results: Results) -> list[BarResult]:
    figures: dict[str, Figure] = {}
    for finding in results.findings:
        figures.update(finding.key)
    reasons = {finding.name: _reason(finding.failed) for finding in results.findings}
    return [BarResult(bar, figures.get(bar.key), _why(bar, figures, reasons)) for bar in BARS]


def round_against_us(value: float, *, higher_is_better: bool, digits: int = 3) -> str:
    """So many significant digits, rounded so that it never looks better than it is."""
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
    """In one sentence."""
    counts = {verdict: sum(result.verdict is verdict for result in judged) for verdict in Verdict}
    sentence = f"{counts[Verdict.MET]} of {len(judged)} bars met, {counts[Verdict.MISSED]} missed, {counts[Verdict.NOT_MEASURED]} not measured"
    spanning = sum(result.spans_bar for result in judged)
    return f"{sentence}; in {spanning} not every round says the same" if spanning else sentence


def _reaches(bar: Bar, value: float, mark: float) -> bool:
    return value >= mark if bar.higher_is_better else value <= mark


def _reason(failed: str) -> str:
    return "its study failed" if failed else "not found: see its notes"


def _why(bar: Bar, found: Mapping[str, Figure], reasons: Mapping[str, str]) -> str:
    return "" if bar.key in found else reasons.get(bar.study, "not run")
