"""What the studies of mechanisms make of what they saw: decided on made-up intervals, with no process and no load."""

from __future__ import annotations

import math
from random import Random

import pytest
import uvloop

from benchmarks.lab.arrivals import arrive_at_random
from benchmarks.lab.load_results import OK, LoadInterval, RequestOutcome
from benchmarks.results import Figure
from benchmarks.studies.ablation import MechanismResult
from benchmarks.studies.hang import PER_S, WINDOW_S, HangRound, worst
from benchmarks.studies.mechanisms import MECHANISMS

HEALED_S = 3.0


def taken(slow_until_s: float, *, slow_again_at_s: float = math.inf, calls: tuple[int, ...] = ()) -> HangRound:
    """A consultation every 10 ms from a second before to three after it hung: 5 ms, or 90."""
    interval = LoadInterval(keep=True)
    for tick in range(-100, 300):
        at_s = tick / 100
        slow = 0 <= at_s < slow_until_s or slow_again_at_s <= at_s < slow_again_at_s + WINDOW_S
        interval.count(RequestOutcome(1_000 + at_s + 1e-6, 0, OK, 0.09 if slow else 0.005))
    asked = [(HEALED_S + place * WINDOW_S, count) for place, count in enumerate(calls)]
    return HangRound(interval, 1_000, HEALED_S, asked)


def test_it_is_normal_again_from_the_first_of_five_windows_that_are() -> None:
    assert taken(0.8).normal_after_s == pytest.approx(0.8)
    assert taken(0).normal_after_s == 0


def test_a_moment_in_between_is_not_normal_again() -> None:
    assert taken(0.4, slow_again_at_s=1.0).normal_after_s == pytest.approx(1.2)


def test_what_never_was_normal_has_no_number_and_is_worse_than_all() -> None:
    assert math.isnan(taken(HEALED_S).normal_after_s)
    assert math.isnan(worst([1.0, math.nan]))
    assert worst([1.0, 2.0]) == 2


def test_a_trial_now_and_then_is_not_being_asked_again() -> None:
    often = round(PER_S * WINDOW_S)
    assert taken(0, calls=(0, 1, 2, 2 + often)).asked_again_s == pytest.approx(2 * WINDOW_S)
    assert math.isnan(taken(0, calls=(0, 1, 2, 3)).asked_again_s)


def test_the_percentiles_are_of_the_time_that_is_meant() -> None:
    found = taken(1.0)
    assert found.normal_ms == pytest.approx(5, rel=0.01)
    assert found.latencies(0, 1).at(0.5) == pytest.approx(90, rel=0.01)
    assert found.latencies(0, 1).count == 100


def test_a_mechanism_that_had_nothing_to_do_has_no_ratio() -> None:
    mechanism = MECHANISMS[0]
    tried = MechanismResult(mechanism, {mechanism.shown: Figure.of(0, 4)}, {mechanism.shown: Figure.of(1, 1)})
    assert math.isnan(tried.ratio.rounds[0])
    assert tried.ratio.rounds[1] == 0.25


def test_arrivals_are_as_many_as_asked_for_and_the_same_for_the_same_seed() -> None:
    def due(seed: int) -> list[float]:
        found: list[float] = []
        uvloop.run(arrive_at_random(1_000, 0.2, Random(seed), found.append))
        return [later - found[0] for later in found]

    first, again, other = due(1), due(1), due(2)
    assert again == pytest.approx(first, abs=1e-6)
    assert other != pytest.approx(first, abs=1e-6)
    assert 150 < len(first) < 250
