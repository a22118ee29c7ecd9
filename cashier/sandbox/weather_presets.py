"""Weather presets by name. Medians and 99th percentiles are in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping

from cashier.sandbox.source_table import SOURCES, SimulatedSource
from cashier.sandbox.weather import (
    Constant,
    Fault,
    FaultProfile,
    Lognormal,
    PaymentFault,
    Stragglers,
    Weather,
)
from cashier.sandbox.weather_parser import require_one_of


def _calm(source: SimulatedSource) -> FaultProfile:
    return FaultProfile(Lognormal(*source.latency_ms))


def _windy(source: SimulatedSource) -> FaultProfile:
    """Calm, but 1 % of the calls are twelve times as slow, which is the case for hedging."""
    return FaultProfile(_calm(source).latency, Stragglers(share_bps=100, factor=12))


def _stormy(source: SimulatedSource) -> FaultProfile:
    """Slow, and every fault in 1.25 % of the calls: 10 % fail, 8.75 % without `wrong_identity`."""
    median_ms, p99_ms = source.latency_ms
    faults: dict[Fault | PaymentFault, int] = dict.fromkeys(source.answer_faults, 125)
    return FaultProfile(Lognormal(median_ms * 4, p99_ms * 10), Stragglers(share_bps=300, factor=5), faults)


PRESETS: Mapping[str, Mapping[str, FaultProfile]] = {
    "still": dict.fromkeys(SOURCES, FaultProfile(Constant(0))),
    "fixed": dict.fromkeys(SOURCES, FaultProfile(Constant(5))),
    "calm": {name: _calm(source) for name, source in SOURCES.items()},
    "windy": {name: _windy(source) for name, source in SOURCES.items()},
    "stormy": {name: _stormy(source) for name, source in SOURCES.items()},
}


def weather_named(preset: str = "calm", seed: int = 1) -> Weather:
    """A weather that starts as a preset. Raises BadWeather for an unknown name."""
    return Weather(PRESETS[require_one_of("preset", preset, PRESETS)], seed)
