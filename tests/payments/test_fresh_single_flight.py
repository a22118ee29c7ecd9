"""Fresh work: shared by all who ask before it begins, and by nobody who asks later."""

from __future__ import annotations

import asyncio

import pytest

from cashier.payments.coalescing import FreshSingleFlight, TooManyRuns


class Work:
    """Counts its beginnings; each is held until it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return number


@pytest.fixture
async def work() -> Work:
    return Work()


async def turn(times: int = 5) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_all_who_ask_before_it_begins_share_it(work: Work) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(10)
    work.go.set()
    assert await asyncio.gather(*(fresh.run("a", work) for _ in range(50))) == [1] * 50
    assert len(fresh) == 0


async def test_who_asks_while_it_is_under_way_gets_the_next_and_shares_that(work: Work) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(10)
    first = asyncio.create_task(fresh.run("a", work))
    await turn()
    later = [asyncio.create_task(fresh.run("a", work)) for _ in range(20)]
    await turn()
    assert work.begun == 1, "one at a time"
    work.go.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 20
    await fresh.drain()
    assert len(fresh) == 0


async def test_who_is_cancelled_goes_away_alone(work: Work) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(10)
    leaving, staying = (asyncio.create_task(fresh.run("a", work)) for _ in range(2))
    await turn()
    leaving.cancel()
    await turn()
    work.go.set()
    assert await staying == 1
    assert leaving.cancelled()


async def test_what_it_raises_is_raised_to_everybody_and_the_next_begins_all_the_same(work: Work) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(10)
    work.error = ValueError("no")
    both = [asyncio.create_task(fresh.run("a", work)) for _ in range(2)]
    await turn()
    after = asyncio.create_task(fresh.run("a", work))
    await turn()
    work.go.set()
    found = await asyncio.gather(*both, after, return_exceptions=True)
    assert [type(one) for one in found] == [ValueError] * 3
    assert work.begun == 2


async def test_as_many_keys_as_there_may_be_and_no_more(work: Work) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(1)
    first = asyncio.create_task(fresh.run("a", work))
    await turn()
    with pytest.raises(TooManyRuns):
        await fresh.run("b", work)
    joined = asyncio.create_task(fresh.run("a", work))
    work.go.set()
    assert (await first, await joined) == (1, 2)


async def test_a_failure_that_nobody_is_left_to_hear_is_no_alarm(work: Work) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(1)
    alarms: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: alarms.append(told))
    work.error = ValueError("no")
    alone = asyncio.create_task(fresh.run("a", work))
    await turn()
    alone.cancel()
    work.go.set()
    await fresh.drain()
    await turn()
    assert alarms == []


@pytest.mark.parametrize("turns", [0, 5])
async def test_work_that_is_cancelled_takes_those_who_wait_along_and_nothing_more_is_begun(
    work: Work, turns: int
) -> None:
    fresh: FreshSingleFlight[int] = FreshSingleFlight(1)
    before = asyncio.all_tasks()
    waiting = [asyncio.create_task(fresh.run("a", work)) for _ in range(2)]
    await asyncio.sleep(0)
    doing = asyncio.all_tasks() - before - set(waiting)
    if turns:
        await turn(turns)
        waiting.append(asyncio.create_task(fresh.run("a", work)))
        await turn()
    for task in doing:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert all(task.cancelled() for task in waiting)
    assert work.begun == (1 if turns else 0)
    assert len(fresh) == 0
