"""The admission queue: starts per turn, order of arrival, waiting time, refusal of bursts."""

from __future__ import annotations

import asyncio
import itertools
from time import perf_counter_ns

import pytest

from cashier.fanout.load_shedding import HIGHEST, LOWEST, DegradationLadder, ShedSettings
from cashier.metrics.store import Store
from cashier.web import app
from cashier.web.admission_queue import STARTS_PER_TURN, AdmissionQueue
from cashier.web.application import CashierApp
from tests.web.asgi_client import JSON, call
from tests.web.fake_service import FakeService

# A queued consultation is woken in the next turn, and runs in the one after it.
WAKE_TURN = 2


async def enter(queue: AdmissionQueue, number: int, started: list[int]) -> None:
    if not queue.try_start():
        await queue.wait()
    started.append(number)


async def test_a_few_consultations_start_per_turn_in_order_of_arrival() -> None:
    queue, started = AdmissionQueue(), list[int]()
    tasks = [asyncio.create_task(enter(queue, number, started)) for number in range(5 * STARTS_PER_TURN)]
    await asyncio.sleep(0)
    assert started == list(range(STARTS_PER_TURN))
    counts = [len(started)]
    while len(started) < len(tasks):
        await asyncio.sleep(0)
        counts.append(len(started))
    assert max(after - before for before, after in itertools.pairwise(counts)) <= STARTS_PER_TURN
    assert started == list(range(len(tasks)))


async def test_a_new_consultation_does_not_overtake_queued_ones() -> None:
    queue, started = AdmissionQueue(), list[int]()
    tasks = [asyncio.create_task(enter(queue, number, started)) for number in range(STARTS_PER_TURN + 1)]
    await asyncio.sleep(0)
    assert queue.waiting
    assert not queue.try_start()
    await asyncio.gather(*tasks)
    assert not queue.waiting


async def test_a_cancelled_consultation_uses_no_turn() -> None:
    queue, started = AdmissionQueue(), list[int]()
    tasks = [asyncio.create_task(enter(queue, number, started)) for number in range(3 * STARTS_PER_TURN)]
    await asyncio.sleep(0)
    for task in tasks[STARTS_PER_TURN : 2 * STARTS_PER_TURN]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert started == [*range(STARTS_PER_TURN), *range(2 * STARTS_PER_TURN, 3 * STARTS_PER_TURN)]
    assert queue.try_start()


@pytest.mark.moves("cashier_queue_wait_seconds")
async def test_only_those_that_had_to_wait_count_and_started() -> None:
    """Each turn takes a millisecond on this clock."""
    metrics, now_ns = Store(), 0
    queue, started = AdmissionQueue(metrics=metrics, clock_ns=lambda: now_ns), list[int]()
    waits = metrics.histogram("cashier_queue_wait_seconds")
    tasks = [asyncio.create_task(enter(queue, number, started)) for number in range(3 * STARTS_PER_TURN)]
    await asyncio.sleep(0)
    assert (len(started), waits.value.count) == (STARTS_PER_TURN, 0)
    tasks.pop().cancel()
    for _ in range(10):
        now_ns += 1_000_000
        await asyncio.sleep(0)
    assert len(started) == 3 * STARTS_PER_TURN - 1
    first, second = STARTS_PER_TURN, STARTS_PER_TURN - 1
    assert waits.value.count == first + second
    assert waits.value.sum_ns == 1_000_000 * (first * WAKE_TURN + second * (WAKE_TURN + 1))
    await asyncio.gather(*tasks)


async def test_each_turn_admits_the_full_number_again() -> None:
    queue = AdmissionQueue()
    assert queue.try_start()
    for _ in range(3):
        await asyncio.sleep(0)
    assert all(queue.try_start() for _ in range(STARTS_PER_TURN))


async def test_the_queue_reports_its_work_to_the_ladder() -> None:
    ladder = DegradationLadder()
    queue, started, queued_ms = AdmissionQueue(ladder), list[int](), list[float]()
    tasks = [asyncio.create_task(enter(queue, number, started)) for number in range(4 * STARTS_PER_TURN)]
    while len(started) < len(tasks):
        await asyncio.sleep(0)
        queued_ms.append(ladder.queued_ms)
    await asyncio.sleep(0)
    assert max(queued_ms) > 0
    assert ladder.queued_ms == 0


@pytest.mark.parametrize(("cost_ms", "too_long"), [(0.0, False), (10.0, True)])
async def test_only_cpu_time_makes_the_queue_too_long(
    cost_ms: float, too_long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that waits while other programs have the core is as short as before."""
    ladder, cpu_ns = DegradationLadder(ShedSettings(refuse_lag_ms=20)), 0
    monkeypatch.setattr("cashier.web.admission_queue.thread_time_ns", lambda: cpu_ns)
    queue, started = AdmissionQueue(ladder), list[int]()
    tasks = [asyncio.create_task(enter(queue, number, started)) for number in range(20 * STARTS_PER_TURN)]
    while len(started) < 10 * STARTS_PER_TURN:
        await asyncio.sleep(0)
        cpu_ns += round(STARTS_PER_TURN * cost_ms * 1e6)
    assert queue.is_too_long(LOWEST) is too_long
    assert (ladder.queued_ms > 20) is too_long
    await asyncio.gather(*tasks)


def test_queued_work_counts_like_loop_lag() -> None:
    ladder = DegradationLadder()
    ladder.queued_ms = 60.0
    for tick in range(5):
        ladder.tick(0.0, tick * 5_000_000)
    assert ladder.refusing


@pytest.mark.parametrize("priority", range(LOWEST, HIGHEST + 1))
def test_a_higher_priority_may_wait_longer(priority: int) -> None:
    ladder = DegradationLadder(ShedSettings(refuse_lag_ms=20))
    longest_ms = 20 * (2 + priority)
    assert not ladder.refuses_wait(longest_ms, priority)
    assert ladder.refuses_wait(longest_ms + 1, priority)
    assert ladder.refused_waits[priority].value == 1


def test_without_shedding_no_wait_is_too_long() -> None:
    assert not DegradationLadder(ShedSettings(enabled=False)).refuses_wait(1e9, LOWEST)


async def burst(application: CashierApp, count: int) -> list[tuple[int | None, bytes]]:
    responses = await asyncio.gather(*(call(application, headers=JSON) for _ in range(count)))
    return [(response.status, response.body) for response in responses]


async def test_every_consultation_of_a_burst_is_answered() -> None:
    service = FakeService()
    answers = await burst(app(service, ladder=DegradationLadder()), 10 * STARTS_PER_TURN)
    assert {status for status, _ in answers} == {200}
    assert service.metrics.histogram("cashier_queue_wait_seconds").value.count == 9 * STARTS_PER_TURN


async def test_consultations_that_would_wait_too_long_are_refused_before_any_work() -> None:
    service = FakeService()
    answers = await burst(
        app(service, ladder=DegradationLadder(ShedSettings(dim_lag_ms=1, refuse_lag_ms=2))), 50 * STARTS_PER_TURN
    )
    refused = [body for status, body in answers if status == 503]
    assert refused
    assert all(b"OVERLOADED" in body for body in refused)
    assert len(service.calls) == len(answers) - len(refused)


async def test_the_deadline_counts_from_arrival_not_from_the_end_of_queueing() -> None:
    service = FakeService()
    started_ns = perf_counter_ns()
    await burst(app(service), 5 * STARTS_PER_TURN)
    arrivals_ns = service.since_ns
    assert all(started_ns <= arrival_ns <= perf_counter_ns() for arrival_ns in arrivals_ns)
    assert max(arrivals_ns) - min(arrivals_ns) <= perf_counter_ns() - started_ns
    assert len(arrivals_ns) == 5 * STARTS_PER_TURN
