"""Of those who ask for the same thing at flight one has it done, and all get what came of it. Order is forced by events."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from cashier.payments.coalescing import FingerprintMismatch, RunCancelled, SingleFlight, TooManyRuns


class Work:
    """Ends when it is told to, and counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.entered, self.go = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> str:
        self.begun += 1
        self.entered.set()
        await self.go.wait()
        self.ended += 1
        if self.error is not None:
            raise self.error
        return f"result {self.begun}"


def asking(*calls: Coroutine[Any, Any, str]) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(call) for call in calls]


def complaints() -> list[dict[str, Any]]:
    """What the loop is told of from here on."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    return told


async def test_many_at_once_are_done_once_and_all_get_the_result() -> None:
    flight, work = SingleFlight[str](), Work()
    tasks = asking(*(flight.run("pay_1", "f", work) for _ in range(50)))
    await work.entered.wait()
    tasks += asking(flight.run("pay_1", "f", work))
    work.go.set()
    assert set(await asyncio.gather(*tasks)) == {"result 1"}
    assert work.begun == 1


async def test_each_key_has_its_own() -> None:
    flight, one, other = SingleFlight[str](), Work(), Work()
    tasks = asking(flight.run("pay_1", "f", one), flight.run("pay_2", "f", other))
    await one.entered.wait()
    await other.entered.wait()
    assert len(flight) == 2
    other.go.set()
    assert await tasks[1] == "result 1"
    assert len(flight) == 1
    one.go.set()
    await tasks[0]


async def test_an_error_is_everybody_s() -> None:
    flight, work, told = SingleFlight[str](), Work(), complaints()
    work.error = ZeroDivisionError("ours")
    tasks = asking(*(flight.run("pay_1", "f", work) for _ in range(3)))
    await work.entered.wait()
    work.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found == [work.error] * 3
    assert told == []


async def test_nothing_is_kept_when_it_is_done() -> None:
    flight, work = SingleFlight[str](), Work()
    work.go.set()
    assert await flight.run("pay_1", "f", work) == "result 1"
    assert len(flight) == 0
    assert await flight.run("pay_1", "another", work) == "result 2"


async def test_another_body_under_the_same_key_is_told_apart_and_disturbs_nobody() -> None:
    flight, work, never = SingleFlight[str](), Work(), Work()
    (first,) = asking(flight.run("pay_1", "f", work))
    await work.entered.wait()
    with pytest.raises(FingerprintMismatch):
        await flight.run("pay_1", "another", never)
    work.go.set()
    assert await first == "result 1"
    assert never.begun == 0


async def test_one_who_goes_away_ends_nobody_s() -> None:
    flight, work = SingleFlight[str](), Work()
    tasks = asking(*(flight.run("pay_1", "f", work) for _ in range(3)))
    await work.entered.wait()
    tasks[0].cancel()  # the one whose call began it
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    work.go.set()
    assert await asyncio.gather(*tasks[1:]) == ["result 1"] * 2


async def test_when_all_have_gone_it_still_runs_to_its_end() -> None:
    flight, work = SingleFlight[str](), Work()
    tasks = asking(*(flight.run("pay_1", "f", work) for _ in range(2)))
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
    assert (work.begun, work.ended) == (1, 1)


async def test_an_error_that_nobody_waited_for_is_loud() -> None:
    flight, work, told = SingleFlight[str](), Work(), complaints()
    work.error = ZeroDivisionError("ours")
    (task,) = asking(flight.run("pay_1", "f", work))
    await work.entered.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    work.go.set()
    await flight.drain()
    assert [context["exception"] for context in told] == [work.error]
    assert len(flight) == 0


async def test_work_that_is_cut_off_from_outside_is_no_cancellation_of_who_waits() -> None:
    flight, work = SingleFlight[str](), Work()
    tasks = asking(*(flight.run("pay_1", "f", work) for _ in range(2)))
    await work.entered.wait()
    flight._runs["pay_1"].task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [RunCancelled, RunCancelled]
    assert len(flight) == 0


async def test_there_are_only_so_many_at_a_time() -> None:
    flight, work = SingleFlight[str](max_runs=1), Work()
    (first,) = asking(flight.run("pay_1", "f", work))
    await work.entered.wait()
    with pytest.raises(TooManyRuns):
        await flight.run("pay_2", "f", work)
    (joined,) = asking(flight.run("pay_1", "f", work))
    await asyncio.sleep(0)
    assert "waiters=2" in repr(flight)
    work.go.set()
    assert {await first, await joined} == {"result 1"}
    assert await flight.run("pay_2", "f", work) == "result 2"


async def test_a_stop_can_wait_for_all_that_is_under_way() -> None:
    flight, work, late = SingleFlight[str](), Work(), Work()
    tasks = asking(flight.run("pay_1", "f", work))
    await work.entered.wait()
    stop = asyncio.create_task(flight.drain())
    await asyncio.sleep(0)
    tasks += asking(flight.run("pay_2", "f", late))
    await late.entered.wait()
    work.go.set()
    await tasks[0]
    assert not stop.done(), "what came meanwhile is waited for as well"
    late.go.set()
    await stop
    assert late.ended == 1
    await tasks[1]
