"""The top of the report: one sentence and the few most important figures that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.performance_targets import round_against_us
from benchmarks.results import Figure, Results


class Tile(NamedTuple):
    value: str
    unit: str
    what: str


class _PeerRatio(NamedTuple):
    """`key`: of our cost ÷ the peer's cost."""

    key: str
    name: str


_PEERS: Sequence[_PeerRatio] = (
    _PeerRatio("ratio.nginx_lua", "nginx + Lua"),
    _PeerRatio("ratio.go", "Go"),
    _PeerRatio("ratio.node", "Node"),
    _PeerRatio("ratio.aiohttp", "aiohttp"),
    _PeerRatio("ratio.fastapi_httpx", "FastAPI with httpx"),
)
_TILES: Sequence[tuple[str, str, str, bool]] = (
    ("cpu_us.cashier", "µs", "CPU per consultation, eight live sources", False),
    ("cpu_us.cashier_cached", "µs", "the same, cached as by default", False),
    ("added_ms.p50", "ms", "added to the slowest source at half load, p50", False),
    ("added_ms.p99", "ms", "the same, p99", False),
    ("stragglers.p99_ratio", "×", "p99 with hedges ÷ without, where 1 % of calls straggle", False),
    ("overload.goodput", "×", "goodput at three times the capacity ÷ peak", True),
    ("sources.cost_us", "µs", "CPU per extra source", False),
)


def keys(results: Results) -> dict[str, Figure]:
    return {name: figure for finding in results.findings for name, figure in finding.key.items()}


def sentence(results: Results) -> tuple[str, str]:
    """The cost of a consultation, and the comparison with the peers, which may be empty."""
    figures = keys(results)
    if "cpu_us.cashier" not in figures:
        return "What one consultation costs, and how long it takes", ""
    cost = round_against_us(figures["cpu_us.cashier"].median, higher_is_better=False)
    return f"One consultation with eight live sources costs {cost} µs of CPU", _compared(figures)


def tiles(results: Results, most: int = 4) -> list[Tile]:
    figures = keys(results)
    return [
        Tile(round_against_us(figures[key].median, higher_is_better=higher), unit, what)
        for key, unit, what, higher in _TILES
        if key in figures
    ][:most]


def _compared(figures: Mapping[str, Figure]) -> str:
    ratios = [
        f"{round_against_us(figures[peer.key].median, higher_is_better=False)} × {peer.name}"
        for peer in _PEERS
        if peer.key in figures
    ]
    if not ratios:
        return ""
    text = ratios[0] if len(ratios) == 1 else f"{', '.join(ratios[:-1])} and {ratios[-1]}"
    return (
        f"That is {text}, which make the same eight calls on the same core and merge the answers "
        "without any domain work."
    )
