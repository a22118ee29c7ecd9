"""`FreshSingleFlight`: callers share a run that has not begun, and never one that has."""

from __future__ import annotations

import asyncio

import pytest

from cashier.payments.coalescing import FreshSingleFlight, TooManyRuns


class Work:
    """Counts its runs; each waits for `go`."""

    def __init__(self) -> None:
        self.runs = 0
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.runs += 1
        run = self.runs
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return run


@pytest.fixture
async def work() -> Work:
    return Work()


async def turn(times: int = 5) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_callers_before_the_start_share_one_run(work: Work) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(10)
    work.go.set()
    assert await asyncio.gather(*(fresh.run("a", work) for _ in range(50))) == [1] * 50
    assert len(fresh) == 0


async def test_callers_during_a_run_share_the_next_one(work: Work) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(10)
    first = asyncio.create_task(fresh.run("a", work))
    await turn()
    later = [asyncio.create_task(fresh.run("a", work)) for _ in range(20)]
    await turn()
    assert work.runs == 1, "one run at a time"
    work.go.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 20
    await fresh.drain()
    assert len(fresh) == 0


async def test_a_cancelled_caller_does_not_cancel_the_run(work: Work) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(10)
    leaving, staying = (asyncio.create_task(fresh.run("a", work)) for _ in range(2))
    await turn()
    leaving.cancel()
    await turn()
    work.go.set()
    assert await staying == 1
    assert leaving.cancelled()


async def test_an_error_reaches_every_caller_and_the_next_run_starts(work: Work) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(10)
    work.error = ValueError("no")
    callers = [asyncio.create_task(fresh.run("a", work)) for _ in range(2)]
    await turn()
    after = asyncio.create_task(fresh.run("a", work))
    await turn()
    work.go.set()
    results = await asyncio.gather(*callers, after, return_exceptions=True)
    assert [type(result) for result in results] == [ValueError] * 3
    assert work.runs == 2


async def test_the_number_of_keys_is_bounded(work: Work) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(1)
    first = asyncio.create_task(fresh.run("a", work))
    await turn()
    with pytest.raises(TooManyRuns):
        await fresh.run("b", work)
    joined = asyncio.create_task(fresh.run("a", work))
    work.go.set()
    assert (await first, await joined) == (1, 2)


async def test_an_error_without_a_caller_is_not_reported(work: Work) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(1)
    reports: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    work.error = ValueError("no")
    caller = asyncio.create_task(fresh.run("a", work))
    await turn()
    caller.cancel()
    work.go.set()
    await fresh.drain()
    await turn()
    assert reports == []


@pytest.mark.parametrize("turns", [0, 5])
async def test_cancelled_work_cancels_its_callers_and_starts_nothing_more(work: Work, turns: int) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(1)
    before = asyncio.all_tasks()
    waiting = [asyncio.create_task(fresh.run("a", work)) for _ in range(2)]
    await asyncio.sleep(0)
    running = asyncio.all_tasks() - before - set(waiting)
    if turns:
        await turn(turns)
        waiting.append(asyncio.create_task(fresh.run("a", work)))
        await turn()
    for task in running:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert all(task.cancelled() for task in waiting)
    assert work.runs == (1 if turns else 0)
    assert len(fresh) == 0
