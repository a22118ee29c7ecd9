"""Parses weather profiles strictly: an error names the field, and the nearest valid value if one is
close."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from cashier.sandbox.records import Json
from cashier.sandbox.source_table import SOURCES
from cashier.sandbox.weather import (
    BPS,
    Constant,
    Fault,
    FaultProfile,
    Lognormal,
    PaymentFault,
    PlannedFault,
    Stragglers,
    Uniform,
)

# An hour: a longer latency is a hang.
_MAX_MS = 3_600_000
# The logarithm of zero is undefined.
_MIN_MEDIAN_MS = 0.001
_MAX_FACTOR = 1_000
_MAX_PLANNED = 100


class BadWeather(ValueError):
    """An invalid profile: the path of the field, the fault, and the nearest valid value or name.

    `nearest` is None where no name is close.
    """

    def __init__(self, field: str, detail: str, nearest: str | float | None) -> None:
        super().__init__(f"{field} {detail}" + ("" if nearest is None else f"; the nearest is {nearest}"))
        self.field = field
        self.detail = detail
        self.nearest = nearest


def require_one_of(field: str, name: object, names: Collection[str]) -> str:
    """Return `name` if it is one of `names`; otherwise raise BadWeather, with a close name."""
    if isinstance(name, str) and name in names:
        return name
    nearest = next(iter(get_close_matches(str(name), names, n=1)), None)
    raise BadWeather(field, f"{name!r} is not one of {', '.join(names)}", nearest)


def _require_fault_of(source: str, field: str, name: object) -> Fault | PaymentFault:
    """As `require_one_of`. A fault of other sources only gets their names."""
    others = [other for other in SOURCES if name in SOURCES[other].possible_faults]
    if others and source not in others:
        own = ", ".join(SOURCES[source].possible_faults)
        raise BadWeather(field, f"{name!r} exists only for {', '.join(others)}; {source} has {own}", None)
    found = require_one_of(field, name, SOURCES[source].possible_faults)
    return Fault(found) if found in list(Fault) else PaymentFault(found)


def parse_source(name: str, sources: Collection[str] = SOURCES) -> str:
    return require_one_of("source", name, sources)


def parse_profile(source: str, body: object, start: FaultProfile) -> FaultProfile:
    """Parse `{"latency": …, "stragglers": …, "faults": …, "next": …}`. Default: as at the start.

    `next` lists faults for one call each: `"reset"`, or `{"fault": "reset", "on": "submit"}` for
    the next call of that name.
    """
    parts = _object("weather", body, ("latency", "stragglers", "faults", "next"))
    return FaultProfile(
        _latency(parts["latency"]) if "latency" in parts else start.latency,
        _stragglers(parts["stragglers"]) if "stragglers" in parts else start.stragglers,
        _faults(source, parts["faults"]) if "faults" in parts else start.faults,
        _next(source, parts["next"]) if "next" in parts else start.next,
    )


def _latency(body: object) -> Constant | Uniform | Lognormal:
    shape = require_one_of(
        "latency.shape", body.get("shape") if isinstance(body, dict) else None, ("constant", "uniform", "lognormal")
    )
    match shape:
        case "constant":
            return Constant(_number("latency", _object("latency", body, ("shape", "ms")), "ms", 0, _MAX_MS))
        case "uniform":
            parts = _object("latency", body, ("shape", "low_ms", "high_ms"))
            low_ms = _number("latency", parts, "low_ms", 0, _MAX_MS)
            return Uniform(low_ms, _number("latency", parts, "high_ms", low_ms, _MAX_MS))
        case _:
            parts = _object("latency", body, ("shape", "median_ms", "p99_ms"))
            median_ms = _number("latency", parts, "median_ms", _MIN_MEDIAN_MS, _MAX_MS)
            return Lognormal(median_ms, _number("latency", parts, "p99_ms", median_ms, _MAX_MS))


def _stragglers(body: object) -> Stragglers:
    parts = _object("stragglers", body, ("share_bps", "factor"))
    return Stragglers(
        _integer("stragglers", parts, "share_bps", BPS), _number("stragglers", parts, "factor", 1, _MAX_FACTOR)
    )


def _faults(source: str, body: object) -> dict[Fault | PaymentFault, int]:
    if not isinstance(body, dict):
        raise BadWeather("faults", "is not an object", nearest=SOURCES[source].possible_faults[0])
    shares: dict[Fault | PaymentFault, int] = {}
    for name in body:
        fault = _require_fault_of(source, f"faults.{name}", name)
        shares[fault] = _integer("faults", body, name, BPS - sum(shares.values()))
    return {fault: share_bps for fault, share_bps in shares.items() if share_bps}


def _next(source: str, body: object) -> tuple[PlannedFault, ...]:
    if not isinstance(body, list):
        raise BadWeather("next", "is not a list", nearest="[]")
    if len(body) > _MAX_PLANNED:
        raise BadWeather("next", f"has more than {_MAX_PLANNED} faults", nearest=_MAX_PLANNED)
    return tuple(_planned(source, fault if isinstance(fault, dict) else {"fault": fault}) for fault in body)


def _planned(source: str, body: Json) -> PlannedFault:
    parts = _object("next", body, ("fault", "on"))
    fault = _require_fault_of(source, "next.fault", parts.get("fault"))
    return PlannedFault(
        fault, require_one_of("next.on", parts["on"], SOURCES[source].calls) if parts.get("on") is not None else None
    )


def _object(field: str, body: object, names: Collection[str]) -> Json:
    if not isinstance(body, dict):
        raise BadWeather(field, "is not an object", nearest=next(iter(names)))
    for name in body:
        require_one_of(f"{field}.{name}", name, names)
    return body


def _number(field: str, parts: Json, name: str, low: float, high: float) -> float:
    value = parts.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadWeather(f"{field}.{name}", "is not a number" if name in parts else "is missing", low)
    if not low <= value <= high:
        raise BadWeather(f"{field}.{name}", f"{value} is not from {low} to {high}", min(max(value, low), high))
    return value


def _integer(field: str, parts: Json, name: str, high: int) -> int:
    value = _number(field, parts, name, 0, high)
    if value != int(value):
        raise BadWeather(f"{field}.{name}", f"{value} is not a whole number", round(value))
    return int(value)
