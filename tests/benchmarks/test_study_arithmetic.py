"""Arithmetic of the studies `hang` and `ablation` on synthetic intervals, without processes or
load.
"""

from __future__ import annotations

import math
from random import Random

import pytest
import uvloop

from benchmarks.lab.in_process import arrive_at_random
from benchmarks.lab.load_results import OK, LoadInterval, RequestOutcome
from benchmarks.results import Figure
from benchmarks.studies.ablation import MECHANISMS, MechanismResult
from benchmarks.studies.hang import PER_S, WINDOW_S, HangRound, worst

HEALED_S = 3.0


def hang_round(slow_until_s: float, *, slow_again_at_s: float = math.inf, calls: tuple[int, ...] = ()) -> HangRound:
    """A consultation every 10 ms, from a second before the hang to three after it: 5 ms or 90."""
    interval = LoadInterval(keep=True)
    for tick in range(-100, 300):
        at_s = tick / 100
        slow = 0 <= at_s < slow_until_s or slow_again_at_s <= at_s < slow_again_at_s + WINDOW_S
        interval.count(RequestOutcome(1_000 + at_s + 1e-6, 0, OK, 0.09 if slow else 0.005))
    calls_seen = [(HEALED_S + place * WINDOW_S, count) for place, count in enumerate(calls)]
    return HangRound(interval, 1_000, HEALED_S, calls_seen)


def test_latency_is_normal_from_the_first_of_five_normal_windows() -> None:
    assert hang_round(0.8).normal_after_s == pytest.approx(0.8)
    assert hang_round(0).normal_after_s == 0


def test_a_single_normal_moment_does_not_count() -> None:
    assert hang_round(0.4, slow_again_at_s=1.0).normal_after_s == pytest.approx(1.2)


def test_a_hang_without_recovery_is_nan_and_worse_than_all() -> None:
    assert math.isnan(hang_round(HEALED_S).normal_after_s)
    assert math.isnan(worst([1.0, math.nan]))
    assert worst([1.0, 2.0]) == 2


def test_single_trials_do_not_count_as_asked_again() -> None:
    often = round(PER_S * WINDOW_S)
    assert hang_round(0, calls=(0, 1, 2, 2 + often)).asked_again_s == pytest.approx(2 * WINDOW_S)
    assert math.isnan(hang_round(0, calls=(0, 1, 2, 3)).asked_again_s)


def test_percentiles_are_of_the_given_period() -> None:
    measured = hang_round(1.0)
    assert measured.normal_ms == pytest.approx(5, rel=0.01)
    assert measured.latencies(0, 1).at(0.5) == pytest.approx(90, rel=0.01)
    assert measured.latencies(0, 1).count == 100


def test_a_mechanism_without_an_effect_to_measure_has_no_ratio() -> None:
    mechanism = MECHANISMS[0]
    result = MechanismResult(mechanism, {mechanism.shown: Figure.of(0, 4)}, {mechanism.shown: Figure.of(1, 1)})
    assert math.isnan(result.ratio.rounds[0])
    assert result.ratio.rounds[1] == 0.25


def test_arrivals_have_their_rate_and_repeat_with_the_seed() -> None:
    def due(seed: int) -> list[float]:
        times_s: list[float] = []
        uvloop.run(arrive_at_random(1_000, 0.2, Random(seed), times_s.append))
        return [time_s - times_s[0] for time_s in times_s]

    first, again, other = due(1), due(1), due(2)
    assert again == pytest.approx(first, abs=1e-6)
    assert other != pytest.approx(first, abs=1e-6)
    assert 150 < len(first) < 250
