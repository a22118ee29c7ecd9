"""Of consultations that come at once a few begin in each turn of the loop, and nobody loses a turn."""

from __future__ import annotations

import asyncio
import itertools
from time import perf_counter_ns

import pytest

from cashier.fanout.load_shedding import HIGHEST, LOWEST, DegradationLadder, ShedSettings
from cashier.web import app
from cashier.web.admission_queue import STARTS_PER_TURN, AdmissionQueue
from cashier.web.application import CashierApp
from tests.web.calling import JSON, call
from tests.web.offers import FakeEngine


async def come(line: AdmissionQueue, name: int, begun: list[int]) -> None:
    if not line.try_start():
        await line.wait()
    begun.append(name)


async def test_a_few_begin_in_each_turn_in_the_order_in_which_they_came() -> None:
    line, begun = AdmissionQueue(), list[int]()
    tasks = [asyncio.create_task(come(line, name, begun)) for name in range(5 * STARTS_PER_TURN)]
    await asyncio.sleep(0)
    assert begun == list(range(STARTS_PER_TURN))
    so_far = [len(begun)]
    while len(begun) < len(tasks):
        await asyncio.sleep(0)
        so_far.append(len(begun))
    assert max(after - before for before, after in itertools.pairwise(so_far)) <= STARTS_PER_TURN
    assert begun == list(range(len(tasks)))


async def test_nobody_overtakes_those_in_line() -> None:
    line, begun = AdmissionQueue(), list[int]()
    tasks = [asyncio.create_task(come(line, name, begun)) for name in range(STARTS_PER_TURN + 1)]
    await asyncio.sleep(0)
    assert line.waiting
    assert not line.try_start()
    await asyncio.gather(*tasks)
    assert not line.waiting


async def test_who_has_gone_holds_nobody_up_and_takes_nobodys_turn() -> None:
    line, begun = AdmissionQueue(), list[int]()
    tasks = [asyncio.create_task(come(line, name, begun)) for name in range(3 * STARTS_PER_TURN)]
    await asyncio.sleep(0)
    for gone in tasks[STARTS_PER_TURN : 2 * STARTS_PER_TURN]:
        gone.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert begun == [*range(STARTS_PER_TURN), *range(2 * STARTS_PER_TURN, 3 * STARTS_PER_TURN)]
    assert line.try_start()


async def test_the_next_turn_has_room_for_as_many_again() -> None:
    line = AdmissionQueue()
    assert line.try_start()
    for _ in range(3):
        await asyncio.sleep(0)
    assert all(line.try_start() for _ in range(STARTS_PER_TURN))


async def test_the_ladder_is_told_how_long_they_wait_and_that_nobody_does() -> None:
    ladder = DegradationLadder()
    line, begun, told = AdmissionQueue(ladder), list[int](), list[float]()
    tasks = [asyncio.create_task(come(line, name, begun)) for name in range(4 * STARTS_PER_TURN)]
    while len(begun) < len(tasks):
        await asyncio.sleep(0)
        told.append(ladder.queue_wait_ms)
    await asyncio.sleep(0)
    assert max(told) > 0
    assert ladder.queue_wait_ms == 0


def test_waiting_counts_like_lateness() -> None:
    ladder = DegradationLadder()
    ladder.queue_wait_ms = 60.0
    for tick in range(5):
        ladder.tick(0.0, tick * 5_000_000)
    assert ladder.refusing


@pytest.mark.parametrize("priority", range(LOWEST, HIGHEST + 1))
def test_who_matters_more_may_be_told_to_wait_longer(priority: int) -> None:
    ladder = DegradationLadder(ShedSettings(refuse_lag_ms=20))
    longest_ms = 20 * (2 + priority)
    assert not ladder.refuses_wait(longest_ms, priority)
    assert ladder.refuses_wait(longest_ms + 1, priority)
    assert ladder.refused[priority] == 1


def test_where_shedding_is_off_no_wait_is_too_long() -> None:
    assert not DegradationLadder(ShedSettings(enabled=False)).refuses_wait(1e9, LOWEST)


async def crowd(door: CashierApp, count: int) -> list[tuple[int | None, bytes]]:
    got = await asyncio.gather(*(call(door, headers=JSON) for _ in range(count)))
    return [(each.status, each.body) for each in got]


async def test_all_of_a_crowd_are_answered() -> None:
    answers = await crowd(app(FakeEngine(), ladder=DegradationLadder()), 10 * STARTS_PER_TURN)
    assert {status for status, _ in answers} == {200}


async def test_a_crowd_that_would_wait_too_long_is_told_so_before_anything_is_asked_for_it() -> None:
    engine = FakeEngine()
    answers = await crowd(
        app(engine, ladder=DegradationLadder(ShedSettings(dim_lag_ms=1, refuse_lag_ms=2))), 50 * STARTS_PER_TURN
    )
    refused = [body for status, body in answers if status == 503]
    assert refused
    assert all(b"OVERLOADED" in body for body in refused)
    assert len(engine.asked) == len(answers) - len(refused)


async def test_the_deadline_counts_from_when_they_came() -> None:
    engine = FakeEngine()
    began_ns = perf_counter_ns()
    await crowd(app(engine), 5 * STARTS_PER_TURN)
    came = engine.since_ns
    assert all(began_ns <= each <= perf_counter_ns() for each in came)
    assert max(came) - min(came) <= perf_counter_ns() - began_ns
    assert len(came) == 5 * STARTS_PER_TURN
