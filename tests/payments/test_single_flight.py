"""`SingleFlight`: concurrent callers share one run. Order is forced by events.

First with `join_running`, then without, then with due times.
"""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Coroutine
from typing import Any

import pytest

from cashier.payments.coalescing import FingerprintMismatch, SingleFlight
from cashier.payments.errors import InFlight, TooManyPayments
from tests.support.virtual_time import timers_set


class Work:
    """Counts its runs; each waits for `go`."""

    def __init__(self) -> None:
        self.runs = self.ended = 0
        self.entered, self.go = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> str:
        self.runs += 1
        self.entered.set()
        await self.go.wait()
        self.ended += 1
        if self.error is not None:
            raise self.error
        return f"result {self.runs}"


def joining(max_keys: float = math.inf) -> SingleFlight[str]:
    """For work that must happen once: callers join a run that has begun."""
    return SingleFlight(max_keys, join_running=True)


def fresh(max_keys: float = math.inf, expected: tuple[type[Exception], ...] = ()) -> SingleFlight[str]:
    """For reads: callers share a run that has not begun, and never one that has."""
    return SingleFlight(max_keys, expected=expected)


def cancel_run(flight: SingleFlight[str], key: str) -> None:
    task = flight._runs[key].task
    assert task is not None
    task.cancel()


def started(*calls: Coroutine[Any, Any, str]) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(call) for call in calls]


def reported_errors() -> list[dict[str, Any]]:
    """Collect what the loop's exception handler gets."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    return errors


async def test_concurrent_callers_share_one_run_and_its_result() -> None:
    flight, work = joining(), Work()
    tasks = started(*(flight.run("pay_1", work, fingerprint="f") for _ in range(50)))
    await work.entered.wait()
    tasks += started(flight.run("pay_1", work, fingerprint="f"))
    work.go.set()
    assert set(await asyncio.gather(*tasks)) == {"result 1"}
    assert work.runs == 1


async def test_each_key_has_its_own_run() -> None:
    flight, first, second = joining(), Work(), Work()
    tasks = started(flight.run("pay_1", first, fingerprint="f"), flight.run("pay_2", second, fingerprint="f"))
    await first.entered.wait()
    await second.entered.wait()
    assert len(flight) == 2
    second.go.set()
    assert await tasks[1] == "result 1"
    assert len(flight) == 1
    first.go.set()
    await tasks[0]


async def test_an_error_reaches_every_caller() -> None:
    flight, work, errors = joining(), Work(), reported_errors()
    work.error = ZeroDivisionError("ours")
    tasks = started(*(flight.run("pay_1", work, fingerprint="f") for _ in range(3)))
    await work.entered.wait()
    work.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results == [work.error] * 3
    assert errors == []


async def test_no_result_is_kept_after_the_run() -> None:
    flight, work = joining(), Work()
    work.go.set()
    assert await flight.run("pay_1", work, fingerprint="f") == "result 1"
    assert len(flight) == 0
    assert await flight.run("pay_1", work, fingerprint="another") == "result 2"


async def test_another_fingerprint_under_the_key_is_refused_and_disturbs_no_caller() -> None:
    flight, work, never = joining(), Work(), Work()
    (first,) = started(flight.run("pay_1", work, fingerprint="f"))
    await work.entered.wait()
    with pytest.raises(FingerprintMismatch):
        await flight.run("pay_1", never, fingerprint="another")
    work.go.set()
    assert await first == "result 1"
    assert never.runs == 0


async def test_a_cancelled_caller_does_not_cancel_the_others() -> None:
    flight, work = joining(), Work()
    tasks = started(*(flight.run("pay_1", work, fingerprint="f") for _ in range(3)))
    await work.entered.wait()
    tasks[0].cancel()  # the caller that started the run
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    work.go.set()
    assert await asyncio.gather(*tasks[1:]) == ["result 1"] * 2


async def test_a_run_continues_after_all_callers_are_cancelled() -> None:
    flight, work = joining(), Work()
    tasks = started(*(flight.run("pay_1", work, fingerprint="f") for _ in range(2)))
    await work.entered.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gc.collect()
    assert len(flight) == 1
    back = asyncio.create_task(flight.run("pay_1", work, fingerprint="f"))
    await asyncio.sleep(0)
    work.go.set()
    assert await back == "result 1"
    assert (work.runs, work.ended) == (1, 1)


async def test_an_error_without_a_caller_is_reported() -> None:
    flight, work, errors = joining(), Work(), reported_errors()
    work.error = ZeroDivisionError("ours")
    (task,) = started(flight.run("pay_1", work, fingerprint="f"))
    await work.entered.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    work.go.set()
    await flight.drain()
    assert [context["exception"] for context in errors] == [work.error]
    assert len(flight) == 0


async def test_cancelling_the_work_does_not_cancel_its_callers() -> None:
    flight, work = joining(), Work()
    tasks = started(*(flight.run("pay_1", work, fingerprint="f") for _ in range(2)))
    await work.entered.wait()
    cancel_run(flight, "pay_1")
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [InFlight, InFlight]
    assert len(flight) == 0


async def test_the_number_of_runs_is_bounded() -> None:
    flight, work = joining(max_keys=1), Work()
    (first,) = started(flight.run("pay_1", work, fingerprint="f"))
    await work.entered.wait()
    with pytest.raises(TooManyPayments):
        await flight.run("pay_2", work, fingerprint="f")
    (joined,) = started(flight.run("pay_1", work, fingerprint="f"))
    await asyncio.sleep(0)
    assert "waiters=2" in repr(flight)
    work.go.set()
    assert {await first, await joined} == {"result 1"}
    assert await flight.run("pay_2", work, fingerprint="f") == "result 2"


async def test_a_drain_waits_for_all_runs() -> None:
    flight, work, late = joining(), Work(), Work()
    tasks = started(flight.run("pay_1", work, fingerprint="f"))
    await work.entered.wait()
    stop = asyncio.create_task(flight.drain())
    await asyncio.sleep(0)
    tasks += started(flight.run("pay_2", late, fingerprint="f"))
    await late.entered.wait()
    work.go.set()
    await tasks[0]
    assert not stop.done(), "runs that started meanwhile count too"
    late.go.set()
    await stop
    assert late.ended == 1
    await tasks[1]


async def turn(times: int = 5) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_callers_before_the_start_share_one_run() -> None:
    flight, work = fresh(), Work()
    work.go.set()
    assert await asyncio.gather(*(flight.run("a", work) for _ in range(50))) == ["result 1"] * 50
    assert len(flight) == 0


async def test_callers_during_a_run_share_the_next_one() -> None:
    flight, work = fresh(), Work()
    (first,) = started(flight.run("a", work))
    await turn()
    later = started(*(flight.run("a", work) for _ in range(20)))
    await turn()
    assert work.runs == 1, "one run at a time"
    work.go.set()
    assert await first == "result 1"
    assert await asyncio.gather(*later) == ["result 2"] * 20
    await flight.drain()
    assert len(flight) == 0


async def test_a_cancelled_caller_does_not_cancel_a_shared_read() -> None:
    flight, work = fresh(), Work()
    leaving, staying = started(flight.run("a", work), flight.run("a", work))
    await turn()
    leaving.cancel()
    await turn()
    work.go.set()
    assert await staying == "result 1"
    assert leaving.cancelled()


async def test_the_next_run_takes_place_although_its_callers_are_gone() -> None:
    flight, work = fresh(), Work()
    tasks = started(flight.run("a", work))
    await turn()
    tasks += started(flight.run("a", work))
    await turn()
    for task in tasks:
        task.cancel()
    await turn()
    work.go.set()
    await flight.drain()
    assert work.ended == 2


async def test_an_error_reaches_every_caller_and_the_next_run_starts() -> None:
    flight, work = fresh(), Work()
    work.error = ValueError("no")
    callers = started(flight.run("a", work), flight.run("a", work))
    await turn()
    callers += started(flight.run("a", work))
    await turn()
    work.go.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results] == [ValueError] * 3
    assert work.runs == 2


async def test_the_number_of_keys_is_bounded() -> None:
    flight, work = fresh(max_keys=1), Work()
    (first,) = started(flight.run("a", work))
    await turn()
    with pytest.raises(TooManyPayments):
        await flight.run("b", work)
    (joined,) = started(flight.run("a", work))
    work.go.set()
    assert (await first, await joined) == ("result 1", "result 2")


@pytest.mark.parametrize(("expected", "reported"), [((ValueError,), False), ((), True)])
async def test_an_expected_error_without_a_caller_is_not_reported(
    expected: tuple[type[Exception], ...], reported: bool
) -> None:
    flight, work, errors = fresh(expected=expected), Work(), reported_errors()
    work.error = ValueError("no")
    (caller,) = started(flight.run("a", work))
    await turn()
    caller.cancel()
    work.go.set()
    await flight.drain()
    await turn()
    assert [context["exception"] for context in errors] == ([work.error] if reported else [])


@pytest.mark.parametrize("turns", [0, 5])
async def test_a_cancelled_run_releases_its_callers_and_starts_nothing_more(turns: int) -> None:
    flight, work = fresh(max_keys=1), Work()
    waiting = started(flight.run("a", work), flight.run("a", work))
    await asyncio.sleep(0)
    if turns:
        await turn(turns)
        waiting += started(flight.run("a", work))
        await turn()
    cancel_run(flight, "a")
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [InFlight] * len(waiting)
    assert work.runs == (1 if turns else 0)
    assert len(flight) == 0


@pytest.mark.virtual_time
async def test_the_earliest_due_time_counts() -> None:
    flight, work, loop = fresh(), Work(), asyncio.get_running_loop()
    work.go.set()
    started_s = loop.time()
    callers = started(*(flight.run("a", work, after_s=after_s) for after_s in (5, 2, 9)))
    assert await asyncio.gather(*callers) == ["result 1"] * 3
    assert loop.time() - started_s == pytest.approx(2)
    callers = started(flight.run("a", work, after_s=5), flight.run("a", work))
    assert await asyncio.gather(*callers) == ["result 2"] * 2
    assert loop.time() - started_s == pytest.approx(2), "a caller without a due time starts the run"
    assert timers_set() == []


@pytest.mark.virtual_time
async def test_the_last_caller_to_leave_withdraws_a_run_that_is_not_due() -> None:
    flight, work = fresh(), Work()
    leaving, staying = started(flight.run("a", work, after_s=5), flight.run("a", work, after_s=5))
    await asyncio.sleep(1)
    leaving.cancel()
    await turn()
    assert (len(flight), flight.waiters) == (1, 1)
    staying.cancel()
    await turn()
    assert (len(flight), flight.waiters, timers_set()) == (0, 0, [])


@pytest.mark.virtual_time
async def test_a_run_that_falls_due_during_another_starts_after_it() -> None:
    flight, work, loop = fresh(), Work(), asyncio.get_running_loop()
    (first,) = started(flight.run("a", work))
    await work.entered.wait()
    second, leaving = started(flight.run("a", work, after_s=1), flight.run("a", work, after_s=2))
    await asyncio.sleep(3)
    assert work.runs == 1
    leaving.cancel()
    started_s = loop.time()
    work.go.set()
    assert (await first, await second) == ("result 1", "result 2")
    assert loop.time() == started_s
    work.go.clear()
    (first,) = started(flight.run("a", work))
    await turn()
    (leaving,) = started(flight.run("a", work, after_s=5))
    await turn()
    leaving.cancel()
    await turn()
    assert timers_set() == [], "the next run is withdrawn, the one under way is not"
    work.go.set()
    assert await first == "result 3"
    assert len(flight) == 0


@pytest.mark.virtual_time
async def test_a_run_not_due_when_the_one_before_ends_waits_for_its_time() -> None:
    flight, work, loop = fresh(), Work(), asyncio.get_running_loop()
    (first,) = started(flight.run("a", work))
    await work.entered.wait()
    started_s = loop.time()
    (second,) = started(flight.run("a", work, after_s=5))
    await asyncio.sleep(1)
    work.go.set()
    assert await first == "result 1"
    assert await second == "result 2"
    assert loop.time() - started_s == pytest.approx(5)


@pytest.mark.virtual_time
async def test_a_stop_releases_waiting_callers_and_lets_a_run_under_way_end() -> None:
    flight, work = fresh(), Work()
    (running,) = started(flight.run("a", work))
    await work.entered.wait()
    waiting = started(flight.run("a", work), flight.run("a", work, after_s=5), flight.run("b", work, after_s=5))
    await turn()
    flight.stop()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [InFlight] * 3
    with pytest.raises(InFlight):
        await flight.run("c", work)
    assert timers_set() == []
    work.go.set()
    assert await running == "result 1"
    await flight.drain()
    assert (work.runs, len(flight)) == (1, 0)
