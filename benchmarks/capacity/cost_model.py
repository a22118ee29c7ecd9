"""CPU of a consultation as a sum of its work, and the fit of the prices to measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

# The mean work of a consultation, by the names below.
Work: TypeAlias = Mapping[str, float]
# "base": request, domain, answer, and every look-up in the worker's own cache (1 µs or less).
BASE = "base"
# "wait": waiting for any call, with its timer and loop turns, so the first call costs more than the
# rest. "call": to any source. "key": in a batch, each key beyond the first.
PARTS = (BASE, "wait", "call", "get", "put", "key")


def cost_us(prices: Mapping[str, float], work: Work) -> float:
    return sum(prices[part] * work.get(part, 0.0) for part in PARTS)


def fit_prices(measured: Sequence[tuple[Work, float]]) -> dict[str, float]:
    """Fit by least squares over (work, µs), weighted by 1/µs, so that errors are relative.

    Prices are not negative.
    """
    parts = list(PARTS)
    while True:
        prices = dict(zip(parts, _solved(parts, measured), strict=True))
        least = min(prices, key=lambda part: prices[part])
        if prices[least] >= 0:
            return {part: prices.get(part, 0.0) for part in PARTS}
        parts.remove(least)


def _solved(parts: Sequence[str], measured: Sequence[tuple[Work, float]]) -> list[float]:
    """Solve the normal equations by elimination with pivots.

    Raises ValueError if the intervals cannot separate two parts.
    """
    rows = [[work.get(part, 0.0) * 1000 / us for part in parts] for work, us in measured]
    size = len(parts)
    table = [
        [sum(row[i] * row[j] for row in rows) for j in range(size)] + [1000 * sum(row[i] for row in rows)]
        for i in range(size)
    ]
    for at in range(size):
        pivot = max(range(at, size), key=lambda row: abs(table[row][at]))
        if abs(table[pivot][at]) < 1e-6:
            raise ValueError(f"no interval separates {parts[at]} from the other parts")
        table[at], table[pivot] = table[pivot], table[at]
        table[at] = [value / table[at][at] for value in table[at]]
        for row in range(size):
            if row != at:
                table[row] = [value - table[row][at] * lead for value, lead in zip(table[row], table[at], strict=True)]
    return [row[-1] for row in table]
