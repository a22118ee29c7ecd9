"""Arithmetic of the studies `hang`, `ablation` and `timeline` on synthetic intervals, without
processes or load.
"""

from __future__ import annotations

import math
from random import Random
from types import SimpleNamespace

import pytest
import uvloop

from benchmarks.lab.in_process import arrive_at_random
from benchmarks.lab.load_results import OK, LoadInterval, RequestOutcome
from benchmarks.lab.marked_service import MARKED, Marks, Point, install
from benchmarks.lab.upstream import SOURCE_NAMES, LeanUpstream
from benchmarks.results import Figure
from benchmarks.studies.ablation import MECHANISMS, MechanismResult
from benchmarks.studies.hang import PER_S, WINDOW_S, HangRound, worst
from benchmarks.studies.timeline import timed

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


def test_the_functions_whose_times_the_timeline_needs_note_them(monkeypatch: pytest.MonkeyPatch) -> None:
    marks: Marks = []
    for marked in MARKED:
        owner, name = marked.place()
        monkeypatch.setattr(owner, name, lambda *_: "done")
    install(marks, clock_ns=iter(range(100)).__next__)
    connection = SimpleNamespace(pool=SimpleNamespace(address=SimpleNamespace(port=80)))
    for marked in MARKED:
        owner, name = marked.place()
        assert getattr(owner, name)(connection) == "done"
    assert [ns for *_, ns in marks] == list(range(len(Point)))
    assert {point for point, *_ in marks} == {*Point}
    assert {point for point, port, _ in marks if port == 80} == {Point.ASK, Point.ANSWER, Point.TAKEN}


def test_the_stages_of_a_consultation_are_the_times_between_its_marks() -> None:
    upstream = LeanUpstream(0, {name: f"http://127.0.0.1:{place}" for place, name in enumerate(SOURCE_NAMES, 1)})
    own = [point for point in Point if point not in (Point.ASK, Point.ANSWER, Point.TAKEN)]
    marks: Marks = [(point, 0, 1_000 * place) for place, point in enumerate(own, 1)]
    for port in range(1, 9):
        marks += [(Point.ASK, port, 2_100), (Point.ANSWER, port, 3_100 + port), (Point.TAKEN, port, 3_200 + port)]
    marks.sort(key=lambda mark: mark[2])
    late: Marks = [(Point.READ, 0, 50_000)]
    [only] = timed([(0, 20_000)], [*marks, *late], upstream)
    assert only.sources["marketing"] == (2_100, 3_108, 3_208)
    assert sum(only.stages_us.values()) == pytest.approx(20)
    assert only.stages_us["the slowest source, and the kernel"] == pytest.approx(0.108)
    assert not list(timed([(0, 20_000)], [*marks[3:], *late], upstream)), "one without all calls does not count"
