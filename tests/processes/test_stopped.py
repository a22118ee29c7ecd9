"""SIGTERM: what was begun is brought to its end and told, who only waits is let go at once, and nothing of a payment is lost."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from .conftest import Start
from .payer import ELSEWHERE, Payer, Way
from .services import DRAIN_S, Fleet
from .upstreams import Call, Moment, Upstreams

pytestmark = pytest.mark.processes

POLLS, STREAMS = 50, 10
AT_ONCE = Way("scan_to_pay", "BALANCE:acc_1")


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stop_answers_the_submit_under_way_and_lets_go_of_all_who_wait(
    upstreams: Upstreams, start: Start, fleet: Fleet, secrets: set[str], workers: int
) -> None:
    service, other = start(workers=workers), await fleet.take()
    async with Payer(await service.ready(), secrets) as payer:
        lives = (await payer.submit(await payer.consult(ELSEWHERE), "waits")).body
        polls = await payer.connected(payer.look(lives, 30_000) for _ in range(POLLS))
        streams = await payer.connected(payer.follow(lives) for _ in range(STREAMS))
        body = await payer.consult(AT_ONCE)
        submit = upstreams.meet(Call.SUBMIT, Moment.BEFORE)
        paying = asyncio.create_task(payer.submit(body, "is-sent"))
        await submit.reached()

        service.stop()
        stopped_s = time.monotonic()
        assert {(told.status, told.body["status"]) for told in await asyncio.gather(*polls)} == {
            (202, "ACTION_REQUIRED")
        }
        for events in await asyncio.gather(*streams):
            assert [name for name, _ in events] == ["payment", "end"]
            assert "STOPPING" in events[-1][1]
        assert not paying.done()
        submit.let_go()
        told = await paying
        assert (told.status, told.body["status"]) == (200, "SUCCEEDED")
        assert await service.ended() in (0, -signal.SIGTERM)
        assert time.monotonic() - stopped_s < DRAIN_S
        assert payer.lost == 0

        payer.service = other
        upstreams.world.engine.settle(lives["payment_id"], "SUCCEEDED")
        assert (await payer.go_on(lives))["status"] == "SUCCEEDED"
        assert (await payer.go_on(told.body))["status"] == "SUCCEEDED"
    upstreams.assert_paid_once(ELSEWHERE.order_id)
    upstreams.assert_paid_once(AT_ONCE.order_id)
    fleet.give_back(other)
