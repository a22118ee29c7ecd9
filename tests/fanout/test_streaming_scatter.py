"""A scatter with snapshots: one per change, and the end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given

from cashier.fanout.ask import SourceStatus
from cashier.fanout.ask_state import PendingAsk
from cashier.fanout.scatter import ScatterResult, Timing
from cashier.fanout.streaming_scatter import StreamingScatter
from cashier.source_errors import Missing, MissingCause, Unreachable
from tests.fanout.scripted_sources import (
    NEVER,
    AnswerMode,
    Call,
    ScriptedSource,
    assert_nothing_is_left,
    enriching,
    gating,
    plan_of,
    required,
)
from tests.fanout.test_scatter_properties import World, worlds
from tests.support.virtual_time import MS_NS, clock_ns, now_ms, run_in_virtual_time

pytestmark = pytest.mark.virtual_time


def streaming_scatter(
    *sources: ScriptedSource, deadline_ms: float = 150, reserve_ms: float = 0, conclusive: Any = None, inputs: Any = ()
) -> StreamingScatter:
    timing = Timing(grace_ns=round(deadline_ms * MS_NS), reserve_ns=round(reserve_ms * MS_NS))
    deadline_ns = clock_ns() + round(deadline_ms * MS_NS)
    return StreamingScatter(
        plan_of(sources, inputs), None, deadline_ns=deadline_ns, timing=timing, conclusive=conclusive, clock_ns=clock_ns
    )


async def snapshots(
    streaming: StreamingScatter, known: Mapping[str, Any] | None = None
) -> AsyncGenerator[tuple[float, ScatterResult], None]:
    """Yield the time and the snapshot of each change; the last is the end."""
    try:
        streaming.start(known or {})
        while True:
            last = streaming.ended
            yield now_ms(), streaming.snapshot()
            if last:
                return
            await streaming.change()
    finally:
        streaming.close()


def statuses(result: ScatterResult) -> str:
    return " ".join(report.status.value for report in result.reports)


async def test_there_is_a_snapshot_for_each_arrival() -> None:
    sources = [
        required("order", gives={"currency": "CNY"}, after_ms=10),
        gating("channel", needs=("currency",), after_ms=20),
        enriching("coupon", after_ms=40),
    ]
    assert [(at_ms, statuses(result)) async for at_ms, result in snapshots(streaming_scatter(*sources))] == [
        (0, "PENDING PENDING PENDING"),
        (10, "FRESH PENDING PENDING"),
        (30, "FRESH FRESH PENDING"),
        (40, "FRESH FRESH FRESH"),
    ]
    assert_nothing_is_left(sources)


async def test_asks_without_an_outcome_are_missing_and_pending_started_or_not() -> None:
    order = required("order", gives={"currency": "CNY"}, after_ms=10)
    streaming = streaming_scatter(
        order, gating("card", after_ms=50), gating("channel", needs=("currency", "country")), inputs=("country",)
    )
    streaming.start({})
    assert statuses(streaming.snapshot()) == "PENDING PENDING SKIPPED"
    await streaming.change()
    result = streaming.snapshot()
    assert result.answers == {
        "order": "order",
        "card": Missing("card", MissingCause.PENDING),
        "channel": Missing("channel", MissingCause.SKIPPED),  # no ask gives the country any more
    }
    card = result.reports[1]
    assert (card.status, card.started_ms, card.elapsed_ms) == (SourceStatus.PENDING, 0, 10)
    streaming.close()


async def test_an_ask_that_has_not_started_reports_the_present_as_its_start() -> None:
    order = required("order", gives={"currency": "CNY"}, after_ms=20)
    streaming = streaming_scatter(order, required("merchant", after_ms=5), gating("channel", needs=("currency",)))
    streaming.start({})
    await streaming.change()
    channel = streaming.snapshot().reports[2]
    assert (channel.status, channel.started_ms, channel.elapsed_ms) == (SourceStatus.PENDING, 5, 0)
    streaming.close()


async def test_outcomes_of_one_loop_turn_are_one_change() -> None:
    sources = [
        required("order", after_ms=10),
        gating("card", after_ms=10),
        gating("quota", after_ms=10),
        enriching("coupon", after_ms=20),
    ]
    assert [statuses(result) async for _, result in snapshots(streaming_scatter(*sources))] == [
        "PENDING PENDING PENDING PENDING",
        "FRESH FRESH FRESH PENDING",
        "FRESH FRESH FRESH FRESH",
    ]


async def test_an_unawaited_outcome_is_one_immediate_change() -> None:
    streaming = streaming_scatter(
        required("order", after_ms=10), gating("card", after_ms=20), gating("quota", after_ms=90)
    )
    streaming.start({})
    await asyncio.sleep(0.05)
    await streaming.change()
    assert now_ms() == 50
    assert statuses(streaming.snapshot()) == "FRESH FRESH PENDING"
    await streaming.change()
    assert now_ms() == 90
    streaming.close()


async def test_it_ends_by_its_deadline_without_a_waiter() -> None:
    card = gating("card", after_ms=NEVER, timeout_ms=1_000)
    streaming = streaming_scatter(required("order", after_ms=10), card, deadline_ms=50, reserve_ms=5)
    streaming.start({})
    await asyncio.sleep(0.2)
    assert streaming.ended
    assert card.calls[0].abandons == 1
    await streaming.change()
    assert statuses(streaming.snapshot()) == "FRESH TIMEOUT"
    assert now_ms() == 200
    streaming.close()


async def test_if_all_asks_end_during_their_start_it_ends_without_a_wait() -> None:
    streaming = streaming_scatter(required("order", mode=AnswerMode.AT_ONCE), gating("card", mode=AnswerMode.AT_ONCE))
    assert [statuses(result) async for _, result in snapshots(streaming)] == ["FRESH FRESH"]


async def test_a_required_failure_and_a_conclusive_answer_end_it() -> None:
    failing = streaming_scatter(required("order", outcome=Unreachable("reset")), gating("card", after_ms=NEVER))
    assert [each.failed_required async for _, each in snapshots(failing)] == [(), ("order",)]
    concluding = streaming_scatter(required("order"), gating("card", after_ms=NEVER), conclusive=lambda answers: True)
    assert [statuses(each) async for _, each in snapshots(concluding)] == ["PENDING PENDING", "FRESH SKIPPED"]


async def test_a_bug_is_raised_by_the_next_snapshot() -> None:
    def fails(_: object) -> bool:
        raise ZeroDivisionError

    sources = [required("order"), gating("card", after_ms=NEVER)]
    with pytest.raises(ZeroDivisionError):
        [each async for each in snapshots(streaming_scatter(*sources, conclusive=fails))]
    assert_nothing_is_left(sources)


async def test_conclusive_never_receives_pending_answers() -> None:
    shown: list[list[str]] = []

    def conclusive(answers: Mapping[str, Any]) -> bool:
        shown.append(sorted(answers))
        return False

    streaming = streaming_scatter(
        required("order", after_ms=10),
        required("member", after_ms=20),
        gating("card", after_ms=30),
        conclusive=conclusive,
    )
    assert len([each async for each in snapshots(streaming)]) == 4
    assert shown == [["order"], ["member", "order"]]


async def all_snapshots(world: World) -> list[tuple[float, ScatterResult]]:
    verdict = world.conclusive

    def conclusive(answers: Mapping[str, Any]) -> bool:
        assert not any(
            isinstance(answer, Missing) and answer.cause is MissingCause.PENDING for answer in answers.values()
        )
        return verdict is not None and verdict in answers and not isinstance(answers[verdict], Missing)

    streaming = streaming_scatter(
        *world.sources,
        deadline_ms=world.deadline_ms,
        reserve_ms=world.reserve_ms,
        conclusive=conclusive,
        inputs=[*world.known, *world.inputs],
    )
    results = [each async for each in snapshots(streaming, world.known)]
    assert_nothing_is_left(world.sources)
    return results


def forgetful(world: World) -> World:
    for source in world.sources:
        source.calls.clear()
    return world


@given(worlds())
def test_the_last_snapshot_equals_the_result_of_a_scatter_with_the_same_grace(world: World) -> None:
    at_once, ended_ms = run_in_virtual_time(world._replace(grace_ms=world.deadline_ms).run())
    *_, (last_ms, last) = run_in_virtual_time(all_snapshots(forgetful(world)))
    assert last.answers == at_once.answers
    assert [report.status for report in last.reports] == [report.status for report in at_once.reports]
    assert last.failed_required == at_once.failed_required
    assert last_ms == ended_ms


@given(worlds())
def test_between_snapshots_only_pending_asks_change(world: World) -> None:
    results = [result for _, result in run_in_virtual_time(all_snapshots(world))]
    for earlier, later in pairwise(results):
        changed = {name for name in later.answers if later.answers[name] != earlier.answers[name]}
        assert changed
        assert {earlier.answers[name] for name in changed} <= {Missing(name, MissingCause.PENDING) for name in changed}
    assert not any(report.status is SourceStatus.PENDING for report in results[-1].reports)


def sources_of_every_kind() -> list[ScriptedSource]:
    return [
        required("order", gives={"currency": "CNY"}, after_ms=8),
        required("merchant", mode=AnswerMode.TASK, after_ms=4),
        gating("quota", mode=AnswerMode.AT_ONCE),
        gating("card", after_ms=NEVER, timeout_ms=11),
        gating("channel", needs=("currency",), mode=AnswerMode.TASK, after_ms=5),
        enriching("coupon", needs=("currency",), after_ms=NEVER),
    ]


@pytest.mark.parametrize("leave_ms", [0, 2, 4, 6, 8, 9, 11, 12, 13, 20])
async def test_cancellation_at_any_time_leaves_nothing(leave_ms: float) -> None:
    sources = sources_of_every_kind()

    async def follow() -> None:
        async for _ in snapshots(streaming_scatter(*sources)):
            pass

    task = asyncio.create_task(follow())
    await asyncio.sleep(leave_ms / 1000)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_is_left([source for source in sources if source.calls])


def forget_calls() -> None:
    """The sources' lists of calls make the only reference cycles, which are the tests' own."""
    for each in gc.get_objects():
        if isinstance(each, ScriptedSource):
            each.calls.clear()


def test_all_its_objects_are_freed_without_the_garbage_collector() -> None:
    async def run() -> list[Any]:
        sources = sources_of_every_kind()
        async for _ in snapshots(streaming_scatter(*sources)):
            pass
        forget_calls()
        return [each for each in gc.get_objects() if isinstance(each, StreamingScatter | PendingAsk | Call)]

    forget_calls()  # objects of earlier tests
    gc.collect()
    gc.disable()
    try:
        assert run_in_virtual_time(run()) == []
    finally:
        gc.enable()
