"""A snapshot in Prometheus' text format 0.0.4."""

from __future__ import annotations

from collections.abc import Iterator

from cashier.metrics.families import BUCKET_BOUNDS_NS, FAMILIES, NS_PER_S, Family
from cashier.metrics.snapshot import HistogramValue, Snapshot, Value

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS = (*(format(bound / NS_PER_S, "g") for bound in BUCKET_BOUNDS_NS), "+Inf")


def render(snapshot: Snapshot) -> str:
    """Every family with its help, also one without children. The order is always the same."""
    return "".join(line for family in FAMILIES.values() for line in _lines(family, snapshot.get(family.name, {})))


def _lines(family: Family, children: dict[tuple[str, ...], Value]) -> Iterator[str]:
    yield f"# HELP {family.name} {_escaped_help(family.help)}\n# TYPE {family.name} {family.kind}\n"
    for labels in sorted(children):
        pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(family.labels, labels, strict=True))
        value = children[labels]
        if isinstance(value, HistogramValue):
            yield _histogram_lines(family.name, pairs, value)
        else:
            yield f"{family.name}{{{pairs}}} {value}\n" if pairs else f"{family.name} {value}\n"


def _histogram_lines(name: str, pairs: str, value: HistogramValue) -> str:
    first = f"{name}_bucket{{{pairs},le=" if pairs else f"{name}_bucket{{le="
    cumulative = value.cumulative
    lines = [f'{first}"{bound}"}} {count}\n' for bound, count in zip(_BOUNDS, cumulative, strict=True)]
    labels = f"{{{pairs}}}" if pairs else ""
    lines.append(f"{name}_sum{labels} {value.sum_seconds}\n{name}_count{labels} {cumulative[-1]}\n")
    return "".join(lines)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _escaped_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
