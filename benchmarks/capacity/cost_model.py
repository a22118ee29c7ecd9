"""What a consultation costs in CPU, as a sum of what it does, and finding the prices from measured intervals. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

# What a consultation does, on average, by the names below.
Work: TypeAlias = Mapping[str, float]
# "base": the request itself, the domain, the answer, and every look-up in this worker's own cache, which is 1 µs or less.
BASE = "base"
# "wait": that it has to wait for anything, which takes a timer and turns of the loop of its own: of several calls the first costs more than
# the rest. "call": whichever source it is. "key": beyond the first, one that shares a call with others.
PARTS = (BASE, "wait", "call", "get", "put", "key")


def cost_us(prices: Mapping[str, float], work: Work) -> float:
    return sum(prices[part] * work.get(part, 0.0) for part in PARTS)


def fit_prices(measured: Sequence[tuple[Work, float]]) -> dict[str, float]:
    """Least squares over (work, µs), each weighed by its own size, so that an error counts in percent. No price is below nothing."""
    parts = list(PARTS)
    while True:
        found = dict(zip(parts, _solved(parts, measured), strict=True))
        least = min(found, key=lambda part: found[part])
        if found[least] >= 0:
            return {part: found.get(part, 0.0) for part in PARTS}
        parts.remove(least)


def _solved(parts: Sequence[str], measured: Sequence[tuple[Work, float]]) -> list[float]:
    """The normal equations, by elimination with pivots. Raises ValueError where the intervals do not tell two parts apart."""
    rows = [[work.get(part, 0.0) * 1000 / us for part in parts] for work, us in measured]
    size = len(parts)
    table = [
        [sum(row[i] * row[j] for row in rows) for j in range(size)] + [1000 * sum(row[i] for row in rows)]
        for i in range(size)
    ]
    for at in range(size):
        pivot = max(range(at, size), key=lambda row: abs(table[row][at]))
        if abs(table[pivot][at]) < 1e-6:
            raise ValueError(f"no interval tells {parts[at]} apart from the rest")
        table[at], table[pivot] = table[pivot], table[at]
        table[at] = [value / table[at][at] for value in table[at]]
        for row in range(size):
            if row != at:
                table[row] = [value - table[row][at] * lead for value, lead in zip(table[row], table[at], strict=True)]
    return [row[-1] for row in table]
