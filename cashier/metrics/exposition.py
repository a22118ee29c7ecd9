"""A snapshot in Prometheus' text format 0.0.4."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from cashier.metrics.families import BUCKET_BOUNDS_NS, FAMILIES, NS_PER_S, Family, MetricKind
from cashier.metrics.snapshot import HistogramValue, Snapshot, Value

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS = (*(format(bound / NS_PER_S, "g") for bound in BUCKET_BOUNDS_NS), "+Inf")


def render(snapshot: Snapshot) -> str:
    """Every family with its help, also one without children."""
    return "".join(line for family in FAMILIES.values() for line in _lines(family, snapshot.get(family.name, {})))


def _lines(family: Family, children: dict[tuple[str, ...], Value]) -> Iterator[str]:
    yield f"# HELP {family.name} {_escaped_help(family.help)}\n# TYPE {family.name} {family.kind}\n"
    for labels, value in children.items():
        template = _template(family.name, labels)
        if isinstance(value, HistogramValue):
            cumulative = value.cumulative
            yield template % (*cumulative, value.sum_seconds, cumulative[-1])
        else:
            yield template % value


@lru_cache(maxsize=20_000)
def _template(name: str, labels: tuple[str, ...]) -> str:
    """The lines of a child, with `%s` for its numbers: only these differ between two scrapes."""
    family = FAMILIES[name]
    pairs = [f'{label}="{_escaped(value)}"' for label, value in zip(family.labels, labels, strict=True)]
    if family.kind is not MetricKind.HISTOGRAM:
        return _line(name, pairs)
    buckets = [_line(f"{name}_bucket", [*pairs, f'le="{bound}"']) for bound in _BOUNDS]
    return "".join((*buckets, _line(f"{name}_sum", pairs), _line(f"{name}_count", pairs)))


def _line(name: str, pairs: list[str]) -> str:
    labels = f"{{{','.join(pairs)}}}" if pairs else ""
    return f"{name}{labels}".replace("%", "%%") + " %s\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _escaped_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
