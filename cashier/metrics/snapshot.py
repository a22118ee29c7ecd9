"""The numbers of a store at one moment, of this process or read from the file of another."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from operator import add
from typing import Any, TypeAlias

from msgspec import Struct

from cashier.metrics.families import FAMILIES, NS_PER_S, Family, Merge, MetricKind


class HistogramValue(Struct, frozen=True):
    """`counts`: per bucket, not cumulative; the last one is of values above every bound."""

    counts: tuple[int, ...]
    sum_ns: int

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def cumulative(self) -> tuple[int, ...]:
        return tuple(accumulate(self.counts))

    @property
    def sum_seconds(self) -> float:
        return self.sum_ns / NS_PER_S

    def plus(self, other: HistogramValue) -> HistogramValue:
        counts = tuple(map(add, self.counts, other.counts))
        return HistogramValue(counts, self.sum_ns + other.sum_ns)


Value: TypeAlias = int | float | HistogramValue
Snapshot: TypeAlias = dict[str, dict[tuple[str, ...], Value]]
"""By the name of the family, then by label values in the family's order.

A counter is an int; a gauge is in its unit.
"""


def value_of(family: Family, cells: list[int]) -> Value:
    match family.kind:
        case MetricKind.HISTOGRAM:
            return HistogramValue(tuple(cells[:-1]), cells[-1])
        case MetricKind.GAUGE if family.scale != 1:
            return cells[0] / family.scale
        case _:
            return cells[0]


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The numbers of several stores as one. Counters and histograms are added exactly."""
    result: Snapshot = {}
    for snapshot in snapshots:
        for name, children in snapshot.items():
            into = result.setdefault(name, {})
            for labels, value in children.items():
                into[labels] = _added(FAMILIES[name], into[labels], value) if labels in into else value
    return result


def without_gauges(snapshot: Snapshot) -> Snapshot:
    """What remains of a worker that has ended."""
    return {name: children for name, children in snapshot.items() if FAMILIES[name].kind is not MetricKind.GAUGE}


def _added(family: Family, one: Any, other: Any) -> Value:
    result: Value
    if family.kind is MetricKind.HISTOGRAM:
        result = one.plus(other)
    elif family.kind is MetricKind.GAUGE and family.merge is Merge.MAX:
        result = max(one, other)
    elif family.kind is MetricKind.GAUGE and family.merge is Merge.MIN:
        result = min(one, other)
    else:
        result = one + other
    return result
