"""Properties of a scatter for any plan, latencies, faults and deadline."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from hypothesis import assume, event, given
from hypothesis import strategies as st

from cashier.fanout.ask import Importance, SourceStatus
from cashier.fanout.scatter import ScatterResult
from cashier.source_errors import Garbled, Missing, MissingCause, Overloaded, Unreachable
from tests.fanout.expected_result import SLACK_MS, expected_result, expected_status
from tests.fanout.scripted_sources import NEVER, AnswerMode, ScriptedSource, assert_nothing_is_left, consult
from tests.support.virtual_time import now_ms, run_in_virtual_time

RANK = {Importance.ENRICHING: 0, Importance.GATING: 1, Importance.REQUIRED: 2}


class World(NamedTuple):
    """Sources, givers before those that need them, with the caller's inputs and timing."""

    sources: tuple[ScriptedSource, ...]
    known: dict[str, Any]
    inputs: tuple[str, ...]
    deadline_ms: int
    reserve_ms: int
    grace_ms: int
    conclusive: str | None

    @property
    def end_ms(self) -> int:
        return self.deadline_ms - self.reserve_ms

    async def run(self) -> tuple[ScatterResult, float]:
        """Return the result and the end in ms."""
        verdict = self.conclusive

        def conclusive(answers: Mapping[str, Any]) -> bool:
            return verdict is not None and verdict in answers and not isinstance(answers[verdict], Missing)

        result = await consult(
            *self.sources,
            known=self.known,
            inputs=self.inputs,
            deadline_ms=self.deadline_ms,
            reserve_ms=self.reserve_ms,
            grace_ms=self.grace_ms,
            conclusive=conclusive,
        )
        return result, now_ms()


@st.composite
def worlds(draw: st.DrawFn, *, faults: bool = True, most: int = 8) -> World:
    count = draw(st.integers(1, most))
    sources: list[ScriptedSource] = []
    through_enriching: set[str] = set()
    for index in range(count):
        importance = draw(st.sampled_from(Importance))
        givers = [
            each for each in sources if importance is not Importance.REQUIRED or each.name not in through_enriching
        ]
        needed = draw(st.lists(st.sampled_from(givers), max_size=2, unique=True)) if givers else []
        claims = draw(st.sampled_from([[], [], ["claim0"], ["claim1"]]))
        name = f"s{index}"
        if importance is Importance.ENRICHING or any(each.name in through_enriching for each in needed):
            through_enriching.add(name)
        sources.append(
            ScriptedSource(
                name,
                importance,
                needs=(*(f"of_{each.name}" for each in needed), *claims),
                gives={f"of_{name}": index},
                reveal=(lambda answer: {}) if faults and draw(st.integers(0, 9)) == 0 else None,
                after_ms=draw(st.one_of(st.just(NEVER), *[st.integers(0, 25)] * 5))
                if faults
                else draw(st.integers(0, 5)),
                outcome=draw(st.sampled_from([None] * 12 + [Unreachable("x"), Garbled("x"), Overloaded("x")]))
                if faults
                else None,
                timeout_ms=draw(st.integers(5, 40).map(lambda n: 3 * n + 1)) if faults else 1_000,
                mode=draw(st.sampled_from(AnswerMode)),
            )
        )
    for index, source in enumerate(sources):
        # Fractions without equal sums: no two answers coincide by chance
        if source.after_ms is not NEVER:
            source.after_ms = 3 * source.after_ms + 2**index / 1000
    claimed = draw(
        st.sets(st.sampled_from(["claim0", "claim1", *(f"of_s{index}" for index in range(count))]), max_size=4)
    )
    claimed |= draw(st.sampled_from([{"claim0", "claim1"}, {"claim0", "claim1"}, {"claim0"}, set()]))
    required = [source.name for source in sources if source.importance is Importance.REQUIRED]
    return World(
        tuple(sources),
        dict.fromkeys(sorted(claimed | (set() if faults else {"claim0", "claim1"})), "claimed"),
        ("claim0", "claim1"),
        deadline_ms=draw(st.integers(0, 60).map(lambda n: 3 * n)) if faults else 10_000,
        reserve_ms=draw(st.integers(0, 8)),
        grace_ms=draw(st.integers(0, 12).map(lambda n: 3 * n + 2)) if faults else 5_000,
        conclusive=draw(st.one_of(st.none(), st.sampled_from(required))) if faults and required else None,
    )


@given(worlds())
def test_the_result_equals_the_expected_one(world: World) -> None:
    foretold = expected_result(
        world.sources, world.known, end_ms=world.end_ms, grace_ms=world.grace_ms, conclusive=world.conclusive
    )
    assume(foretold.certain)
    result, ended_ms = run_in_virtual_time(world.run())
    for answer in result.answers.values():
        event(f"{answer.cause if isinstance(answer, Missing) else 'answered'}")
    assert result.answers == foretold.answers
    assert set(result.failed_required) == foretold.failed_required
    assert abs(ended_ms - max(0.0, foretold.ended_ms)) < SLACK_MS


@given(worlds())
def test_every_result_is_complete_in_time_and_consistent(world: World) -> None:
    """Also where the exact result is uncertain. The run itself checks for leftovers."""
    result, ended_ms = run_in_virtual_time(world.run())
    assert ended_ms < max(0, world.end_ms) + SLACK_MS
    assert_reports_agree(world, result, ended_ms)
    assert_starts_are_allowed(world, result)
    assert_failures_end_it(world, result, ended_ms)


def assert_reports_agree(world: World, result: ScatterResult, ended_ms: float) -> None:
    plan_order = [source.name for source in sorted(world.sources, key=lambda source: -RANK[source.importance])]
    assert list(result.answers) == [report.name for report in result.reports] == plan_order
    for report in result.reports:
        answer = result.answers[report.name]
        assert (report.status is SourceStatus.FRESH) == (not isinstance(answer, Missing))
        assert 0 <= report.started_ms <= ended_ms + 0.01
        assert 0 <= report.elapsed_ms <= ended_ms - report.started_ms + 0.02
        if isinstance(answer, Missing):
            assert report.status is expected_status(answer)


def assert_starts_are_allowed(world: World, result: ScatterResult) -> None:
    """No ask starts before its needs are known, or exceeds the remaining time."""
    for source in world.sources:
        for call in source.calls:
            assert set(source.needs) <= set(call.known)
            assert 1 <= call.budget_ms <= min(source.timeout_ms, world.end_ms - call.started_ms)
            assert {name: call.known[name] for name in world.known} == world.known
            for giver in world.sources:
                if giver.calls and set(giver.given) & set(source.needs) - set(world.known):
                    assert not isinstance(result.answers[giver.name], Missing)
        if not source.calls:
            assert result.answers[source.name] == Missing(source.name, MissingCause.SKIPPED)


def assert_failures_end_it(world: World, result: ScatterResult, ended_ms: float) -> None:
    """A required failure ends it, and only required failures are listed."""
    required = [report for report in result.reports if report.importance is Importance.REQUIRED]
    missing = [report.name for report in required if isinstance(result.answers[report.name], Missing)]
    assert set(result.failed_required) <= set(missing)
    concluded = world.conclusive is not None and world.conclusive not in missing
    assert bool(result.failed_required) or not missing or concluded
    ends = [report.started_ms + report.elapsed_ms for report in required if report.name in result.failed_required]
    assert all(abs(end_ms - ended_ms) < 0.02 for end_ms in ends)


@given(worlds(faults=False), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_only_the_times(world: World, shuffled: random.Random) -> None:
    first, _ = run_in_virtual_time(world.run())
    delays = [source.after_ms for source in world.sources]
    ways = [source.mode for source in world.sources]
    shuffled.shuffle(delays)
    shuffled.shuffle(ways)
    for source, delay, mode in zip(world.sources, delays, ways, strict=True):
        source.calls.clear()
        source.after_ms, source.mode = delay, mode
    second, _ = run_in_virtual_time(world.run())
    assert list(first.answers.items()) == list(second.answers.items())
    assert [report.status for report in first.reports] == [report.status for report in second.reports]
    assert all(not isinstance(answer, Missing) for answer in first.answers.values())


@given(worlds(most=5))
def test_cancellation_at_any_moment_leaves_nothing(world: World) -> None:
    """Run once to record all event times, then cancel at each of them and between."""
    result, ended_ms = run_in_virtual_time(world.run())
    happenings = {ended_ms, *(report.started_ms + report.elapsed_ms for report in result.reports)}
    moments = sorted({0.0, *happenings, *(sum(pair) / 2 for pair in pairwise(sorted({0.0, *happenings})))})
    for moment_ms in moments:
        for source in world.sources:
            source.calls.clear()
        run_in_virtual_time(_cancelled_after(world, moment_ms))


async def _cancelled_after(world: World, moment_ms: float) -> None:
    task = asyncio.create_task(world.run())
    await asyncio.sleep(moment_ms / 1000)
    task.cancel()
    [ended] = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(ended, tuple | asyncio.CancelledError), ended
    assert_nothing_is_left(world.sources)
