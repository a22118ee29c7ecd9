"""Templates of the console, and what they take. Everything is escaped: records repeat words of
clients and upstreams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from msgspec import Struct

from cashier.ops.console import formats
from cashier.ops.overview import MethodCount, Overview

_AVAILABILITY = ("AVAILABLE", "UNDETERMINED", "UNAVAILABLE")
# The class of a badge, by verdict, availability or status.
_MOODS = {
    "FAILED": "bad",
    "LATE": "bad",
    "DEGRADED": "warn",
    "UNDETERMINED": "warn",
    "SLOW": "warn",
    "AVAILABLE": "good",
}


class Page(Struct, frozen=True):
    """A page that is updated live. `fragments`: templates `live/NAME-FRAGMENT.html`."""

    name: str
    path: str
    title: str
    fragments: tuple[str, ...] = ()


PAGES = (
    Page("overview", "/", "Overview", ("attention", "consultations", "sources")),
    Page("consultations", "/consultations", "Consultations", ("list",)),
    Page("methods", "/methods", "Methods", ("matrix",)),
    Page("payments", "/payments", "Payments", ("list",)),
    Page("runtime", "/runtime", "Runtime", ("workers",)),
    Page("configuration", "/configuration", "Configuration", ("state",)),
)
WEATHER = Page("weather", "/weather", "Weather")


class Cell(Struct, frozen=True):
    """`share`: of the methods of this kind within the window; None without any."""

    share: float | None
    total: int


class MatrixRow(Struct, frozen=True):
    availability: str
    reason: str
    cells: tuple[Cell, ...]


class Matrix(Struct, frozen=True):
    kinds: tuple[str, ...]
    rows: tuple[MatrixRow, ...]


class SettingRow(Struct, frozen=True):
    key: str
    value: str
    before: str
    changed: bool


def environment() -> Environment:
    templates = Environment(
        loader=PackageLoader("cashier.ops.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters |= {
        "ms": formats.ms,
        "quantile": formats.quantile,
        "rate": formats.rate,
        "percent": formats.share,
        "age": formats.age,
        "clock": formats.clock,
        "day_and_clock": formats.day_and_clock,
        "number": formats.number,
        "words": words,
        "mood": mood,
    }
    templates.globals["spark"] = formats.spark
    return templates


def words(code: str) -> str:
    """`NET_BANKING` as `net banking`."""
    return str(code).replace("_", " ").lower()


def mood(code: str) -> str:
    return _MOODS.get(str(code), "")


def matrix(methods: Sequence[MethodCount]) -> Matrix:
    """Methods by reason and kind: available ones first, then what is undetermined."""
    kinds = sorted({each.kind for each in methods})
    per_kind = {kind: sum(each.rate for each in methods if each.kind == kind) for kind in kinds}
    counts = {(each.availability, each.reason, each.kind): each for each in methods}
    rows = sorted({(each.availability, each.reason) for each in methods}, key=_row_order)

    def cell(availability: str, reason: str, kind: str) -> Cell:
        count = counts.get((availability, reason, kind))
        if count is None:
            return Cell(None, 0)
        return Cell(count.rate / per_kind[kind] if per_kind[kind] else None, count.total)

    return Matrix(
        tuple(kinds),
        tuple(MatrixRow(*row, cells=tuple(cell(*row, kind) for kind in kinds)) for row in rows),
    )


def _row_order(row: tuple[str, str]) -> tuple[int, str]:
    availability, reason = row
    known = availability in _AVAILABILITY
    return (_AVAILABILITY.index(availability) if known else len(_AVAILABILITY), reason)


def setting_rows(overview: Overview) -> list[tuple[str, list[SettingRow]]]:
    """The settings in effect by section, with what they were before the last reload."""
    if overview.configuration is None:
        return []
    state = overview.configuration.state
    sections: dict[str, list[SettingRow]] = {}
    for path in [*state.settings, *(path for path in state.previous if path not in state.settings)]:
        value = state.settings.get(path, "not set")
        before = state.previous.get(path, "not set") if state.previous else value
        section, _, key = path.rpartition(".") if not path.startswith("sources.") else _source_parts(path)
        sections.setdefault(section, []).append(SettingRow(key, value, before, value != before))
    return list(sections.items())


def _source_parts(path: str) -> tuple[str, str, str]:
    """A source's own tables stay in its section."""
    _, name, key = path.split(".", 2)
    return f"sources.{name}", ".", key


def context(overview: Overview, **others: Any) -> dict[str, Any]:
    return {"overview": overview, "matrix": matrix(overview.methods), "settings": setting_rows(overview), **others}
