"""`SingleFlight`: concurrent callers share one run. Order is forced by events."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from cashier.payments.coalescing import FingerprintMismatch, RunCancelled, SingleFlight, TooManyRuns


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


def started(*calls: Coroutine[Any, Any, str]) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(call) for call in calls]


def reported_errors() -> list[dict[str, Any]]:
    """Collect what the loop's exception handler gets."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    return errors


async def test_concurrent_callers_share_one_run_and_its_result() -> None:
    flight, work = SingleFlight[str](), Work()
    tasks = started(*(flight.run("pay_1", "f", work) for _ in range(50)))
    await work.entered.wait()
    tasks += started(flight.run("pay_1", "f", work))
    work.go.set()
    assert set(await asyncio.gather(*tasks)) == {"result 1"}
    assert work.runs == 1


async def test_each_key_has_its_own_run() -> None:
    flight, first, second = SingleFlight[str](), Work(), Work()
    tasks = started(flight.run("pay_1", "f", first), flight.run("pay_2", "f", second))
    await first.entered.wait()
    await second.entered.wait()
    assert len(flight) == 2
    second.go.set()
    assert await tasks[1] == "result 1"
    assert len(flight) == 1
    first.go.set()
    await tasks[0]


async def test_an_error_reaches_every_caller() -> None:
    flight, work, errors = SingleFlight[str](), Work(), reported_errors()
    work.error = ZeroDivisionError("ours")
    tasks = started(*(flight.run("pay_1", "f", work) for _ in range(3)))
    await work.entered.wait()
    work.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results == [work.error] * 3
    assert errors == []


async def test_no_result_is_kept_after_the_run() -> None:
    flight, work = SingleFlight[str](), Work()
    work.go.set()
    assert await flight.run("pay_1", "f", work) == "result 1"
    assert len(flight) == 0
    assert await flight.run("pay_1", "another", work) == "result 2"


async def test_another_fingerprint_under_the_key_is_refused_and_disturbs_no_caller() -> None:
    flight, work, never = SingleFlight[str](), Work(), Work()
    (first,) = started(flight.run("pay_1", "f", work))
    await work.entered.wait()
    with pytest.raises(FingerprintMismatch):
        await flight.run("pay_1", "another", never)
    work.go.set()
    assert await first == "result 1"
    assert never.runs == 0


async def test_a_cancelled_caller_does_not_cancel_the_others() -> None:
    flight, work = SingleFlight[str](), Work()
    tasks = started(*(flight.run("pay_1", "f", work) for _ in range(3)))
    await work.entered.wait()
    tasks[0].cancel()  # the caller that started the run
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    work.go.set()
    assert await asyncio.gather(*tasks[1:]) == ["result 1"] * 2


async def test_a_run_continues_after_all_callers_are_cancelled() -> None:
    flight, work = SingleFlight[str](), Work()
    tasks = started(*(flight.run("pay_1", "f", work) for _ in range(2)))
    await work.entered.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gc.collect()
    assert len(flight) == 1
    back = asyncio.create_task(flight.run("pay_1", "f", work))
    await asyncio.sleep(0)
    work.go.set()
    assert await back == "result 1"
    assert (work.runs, work.ended) == (1, 1)


async def test_an_error_without_a_caller_is_reported() -> None:
    flight, work, errors = SingleFlight[str](), Work(), reported_errors()
    work.error = ZeroDivisionError("ours")
    (task,) = started(flight.run("pay_1", "f", work))
    await work.entered.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    work.go.set()
    await flight.drain()
    assert [context["exception"] for context in errors] == [work.error]
    assert len(flight) == 0


async def test_cancelling_the_work_does_not_cancel_its_callers() -> None:
    flight, work = SingleFlight[str](), Work()
    tasks = started(*(flight.run("pay_1", "f", work) for _ in range(2)))
    await work.entered.wait()
    flight._runs["pay_1"].task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [RunCancelled, RunCancelled]
    assert len(flight) == 0


async def test_the_number_of_runs_is_bounded() -> None:
    flight, work = SingleFlight[str](max_runs=1), Work()
    (first,) = started(flight.run("pay_1", "f", work))
    await work.entered.wait()
    with pytest.raises(TooManyRuns):
        await flight.run("pay_2", "f", work)
    (joined,) = started(flight.run("pay_1", "f", work))
    await asyncio.sleep(0)
    assert "waiters=2" in repr(flight)
    work.go.set()
    assert {await first, await joined} == {"result 1"}
    assert await flight.run("pay_2", "f", work) == "result 2"


async def test_a_drain_waits_for_all_runs() -> None:
    flight, work, late = SingleFlight[str](), Work(), Work()
    tasks = started(flight.run("pay_1", "f", work))
    await work.entered.wait()
    stop = asyncio.create_task(flight.drain())
    await asyncio.sleep(0)
    tasks += started(flight.run("pay_2", "f", late))
    await late.entered.wait()
    work.go.set()
    await tasks[0]
    assert not stop.done(), "runs that started meanwhile count too"
    late.go.set()
    await stop
    assert late.ended == 1
    await tasks[1]
