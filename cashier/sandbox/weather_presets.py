"""Weather presets by name. Medians and 99th percentiles are in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping

from cashier.sandbox.weather import (
    IDENTITY_FIELDS,
    SOURCES,
    Constant,
    Fault,
    FaultProfile,
    Lognormal,
    PaymentFault,
    Stragglers,
    Weather,
)
from cashier.sandbox.weather_parser import require_one_of

# Typical latencies, median and p99: look-ups by key are quick, counting and deciding take longer.
_NORMAL_MS = {
    "order": (3, 9),
    "merchant": (2, 6),
    "member": (2, 6),
    "card": (3, 10),
    "balance": (3, 9),
    "marketing": (5, 18),
    "channel": (3, 8),
    "quota": (4, 12),
    "risk": (8, 30),
    "engine": (12, 40),
    "acquirer": (3, 9),
}


def _calm(source: str) -> FaultProfile:
    median_ms, p99_ms = _NORMAL_MS[source]
    return FaultProfile(Lognormal(median_ms, p99_ms))


def _windy(source: str) -> FaultProfile:
    """Calm, but 1 % of the calls are twelve times as slow, which is the case for hedging."""
    return FaultProfile(_calm(source).latency, Stragglers(share_bps=100, factor=12))


def _stormy(source: str) -> FaultProfile:
    """Slow, and every fault in 1.25 % of the calls: 10 % fail, 8.75 % without `wrong_identity`."""
    median_ms, p99_ms = _NORMAL_MS[source]
    faults: dict[Fault | PaymentFault, int] = {
        fault: 125 for fault in Fault if fault is not Fault.WRONG_IDENTITY or source in IDENTITY_FIELDS
    }
    return FaultProfile(Lognormal(median_ms * 4, p99_ms * 10), Stragglers(share_bps=300, factor=5), faults)


PRESETS: Mapping[str, Mapping[str, FaultProfile]] = {
    "still": {source: FaultProfile(Constant(0)) for source in SOURCES},
    "fixed": {source: FaultProfile(Constant(5)) for source in SOURCES},
    "calm": {source: _calm(source) for source in SOURCES},
    "windy": {source: _windy(source) for source in SOURCES},
    "stormy": {source: _stormy(source) for source in SOURCES},
}


def weather_named(preset: str = "calm", seed: int = 1) -> Weather:
    """A weather that starts as a preset. Raises BadWeather for an unknown name."""
    return Weather(PRESETS[require_one_of("preset", preset, PRESETS)], seed)
