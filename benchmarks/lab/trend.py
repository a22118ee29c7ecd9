"""How fast something grows: a straight line through points, how sure its slope is, and whether that is flat. No measuring here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import linear_regression, mean
from typing import NamedTuple

HOUR_S = 3_600.0
# What may be gained in an hour, of the level; and how many standard errors a slope may be from none.
FLAT_SHARE, SURE = 0.02, 2.0


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the least-squares line, in y per x."""
    return linear_regression(*zip(*points, strict=True)).slope


def slope_error(points: Sequence[tuple[float, float]]) -> float:
    """The standard error of that slope. Samples that follow each other are alike, which makes the true one larger.

    Needs three points at least.
    """
    xs, ys = zip(*points, strict=True)
    line = linear_regression(xs, ys)
    around = sum((y - line.slope * x - line.intercept) ** 2 for x, y in points)
    middle = mean(xs)
    return math.sqrt(around / (len(points) - 2) / sum((x - middle) ** 2 for x in xs))


class Trend(NamedTuple):
    """Of a line through samples over time: what it gains in an hour, the standard error of that, and the mean of the samples."""

    per_h: float
    error_per_h: float
    level: float

    @classmethod
    def of(cls, samples: Sequence[tuple[float, float]]) -> Trend:
        """`samples`: seconds, value."""
        return cls(slope(samples) * HOUR_S, slope_error(samples) * HOUR_S, mean(value for _, value in samples))

    @property
    def flat(self) -> bool:
        """Next to nothing in an hour, or no growth that could be told from noise. What shrinks is flat."""
        return self.per_h <= FLAT_SHARE * self.level or self.per_h <= SURE * self.error_per_h
