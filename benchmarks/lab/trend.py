"""A straight line through points: its slope, the error of the slope, and whether it is flat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import linear_regression, mean
from typing import NamedTuple

HOUR_S = 3_600.0
# Flat: growth per hour as a share of the level, or in standard errors of the slope.
FLAT_SHARE, SURE = 0.02, 2.0


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Slope of the least-squares line, in y per x."""
    return linear_regression(*zip(*points, strict=True)).slope


def slope_error(points: Sequence[tuple[float, float]]) -> float:
    """Standard error of the slope. Needs at least three points.

    Successive samples are alike, so the true error is larger.
    """
    xs, ys = zip(*points, strict=True)
    line = linear_regression(xs, ys)
    residual = sum((y - line.slope * x - line.intercept) ** 2 for x, y in points)
    middle = mean(xs)
    return math.sqrt(residual / (len(points) - 2) / sum((x - middle) ** 2 for x in xs))


class Trend(NamedTuple):
    """A line through samples over time. `level`: the mean of the samples."""

    per_h: float
    error_per_h: float
    level: float

    @classmethod
    def of(cls, samples: Sequence[tuple[float, float]]) -> Trend:
        """`samples`: seconds and value."""
        return cls(slope(samples) * HOUR_S, slope_error(samples) * HOUR_S, mean(value for _, value in samples))

    @property
    def flat(self) -> bool:
        """True if it hardly grows in an hour, grows within the noise, or shrinks."""
        return self.per_h <= FLAT_SHARE * self.level or self.per_h <= SURE * self.error_per_h
