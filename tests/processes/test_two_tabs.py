"""Two workers and many tabs at once: one order is charged once, whoever asks, and everybody is told of the same payment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from .payer import ELSEWHERE, UNCHALLENGED, Payer, Told
from .services import Fleet, Service
from .upstreams import FOREVER_S, Call, Moment, Upstreams

pytestmark = pytest.mark.processes

MANY = 200


async def test_of_two_keys_for_one_order_a_hundred_times_each_one_is_charged_and_all_hear_of_it(
    upstreams: Upstreams, pair: Service, secrets: set[str]
) -> None:
    async with Payer(pair, secrets) as payer:
        await _both_serve(upstreams, payer)
        body = await payer.consult(ELSEWHERE)
        upstreams.ports.clear()
        told = await asyncio.gather(*(payer.submit(body, key) for _ in range(MANY // 2) for key in ("tab-a", "tab-b")))
        payments = [each for each in told if each.status == 202]
        busy = [each for each in told if each.code == "ORDER_BUSY"]
        assert len(payments) + len(busy) == MANY, {(each.status, each.code) for each in told}
        (lives,) = {each.body["payment_id"] for each in (*payments, *busy)}
        assert payments
        assert {each.body["status"] for each in payments} == {"ACTION_REQUIRED"}
        assert upstreams.world.engine.live == {lives}
        upstreams.world.engine.settle(lives, "SUCCEEDED")
        assert (await payer.go_on(payments[0].body))["status"] == "SUCCEEDED"
    upstreams.assert_paid_once(ELSEWHERE.order_id)


async def test_of_one_key_two_hundred_times_one_submit_reaches_the_engine_where_workers_hear_of_each_other(
    upstreams: Upstreams, pairs: dict[str, Service], secrets: set[str]
) -> None:
    service = await pairs["with a Valkey"].ready()
    async with Payer(service, secrets) as payer:
        await _both_serve(upstreams, payer)
        body = await payer.consult(UNCHALLENGED)
        submit = upstreams.meet(Call.SUBMIT, Moment.BEFORE)
        tabs = [asyncio.create_task(payer.submit(body, "one-key")) for _ in range(MANY)]
        await submit.reached()
        await _until_the_other_asks(upstreams, payer, submit.port, tabs, body)
        submit.let_go()
        await _all_succeed(payer, await asyncio.gather(*tabs))
    assert upstreams.calls.count(Call.SUBMIT) == 1
    upstreams.assert_paid_once(UNCHALLENGED.order_id)


async def test_of_one_key_with_two_bodies_the_first_counts_and_the_other_is_refused_to_each_that_sends_it(
    upstreams: Upstreams, pair: Service, secrets: set[str]
) -> None:
    async with Payer(pair, secrets) as payer:
        await _both_serve(upstreams, payer)
        body = await payer.consult(UNCHALLENGED)
        submit = upstreams.meet(Call.SUBMIT, Moment.AFTER)
        first = asyncio.create_task(payer.submit(body, "one-key"))
        await submit.reached()
        others = [body if tab % 10 else {**body, "return_url": "https://shop.example/elsewhere"} for tab in range(MANY)]
        tabs = [asyncio.create_task(payer.submit(other, "one-key")) for other in others]
        refused = await asyncio.gather(*(tab for tab, other in zip(tabs, others, strict=True) if other is not body))
        assert {(each.status, each.code) for each in refused} == {(422, "KEY_REUSED")}
        submit.let_go()
        same = await asyncio.gather(first, *(tab for tab, other in zip(tabs, others, strict=True) if other is body))
        assert len(refused) == MANY // 10
        await _all_succeed(payer, same)
    assert upstreams.calls.count(Call.SUBMIT) == 1
    upstreams.assert_paid_once(UNCHALLENGED.order_id)


@pytest.mark.parametrize("moment", Moment)
async def test_a_worker_that_is_killed_in_the_middle_of_a_submit_leaves_it_to_the_other_where_another_tab_asks(
    upstreams: Upstreams, pair: Service, secrets: set[str], moment: Moment
) -> None:
    async with Payer(pair, secrets) as payer:
        await _both_serve(upstreams, payer)
        body = await payer.consult(UNCHALLENGED)
        submit = upstreams.meet(Call.SUBMIT, moment)
        upstreams.calls.clear()
        tabs = [asyncio.create_task(payer.submit(body, "one-key"))]
        await submit.reached()
        await pair.kill(await _until_the_other_asks(upstreams, payer, submit.port, tabs, body))
        await _all_succeed(payer, await asyncio.gather(*tabs))
    assert payer.lost >= 1
    upstreams.assert_paid_once(UNCHALLENGED.order_id)


@pytest.mark.parametrize(
    ("other", "status", "said"), [({}, 200, "SUCCEEDED"), ({"return_url": "https://shop.example/"}, 422, "KEY_REUSED")]
)
async def test_a_payment_that_another_process_makes_after_the_look_for_it_is_told_and_not_taken_for_a_change_of_the_order(
    upstreams: Upstreams, fleet: Fleet, secrets: set[str], other: dict[str, str], status: int, said: str
) -> None:
    late, early = await fleet.take(), await fleet.take()
    async with Payer(late, secrets) as slow, Payer(early, secrets) as quick:
        body = await quick.consult(UNCHALLENGED)
        looked = upstreams.meet(Call.LOOK_UP, Moment.AFTER)
        waiting = asyncio.create_task(slow.submit({**body, **other}, "one-key"))
        await looked.reached()
        assert (await quick.submit(body, "one-key")).body["status"] == "SUCCEEDED"
        looked.let_go()
        told = await waiting
    assert (told.status, told.code or told.body["status"]) == (status, said)
    assert upstreams.calls.count(Call.SUBMIT) == 1
    upstreams.assert_paid_once(UNCHALLENGED.order_id)
    fleet.give_back(early)
    fleet.give_back(late)


async def _all_succeed(payer: Payer, told: Iterable[Told]) -> None:
    """In the end, by the same payment. A submit that was held up for longer than it is waited for is PROCESSING until somebody looks."""
    payments = [each.body for each in told if each.status in (200, 202)]
    assert [each for each in told if each.status not in (200, 202)] == []
    (payment_id,) = {payment["payment_id"] for payment in payments}
    assert {payment["status"] for payment in payments} <= {"SUCCEEDED", "PROCESSING"}
    for payment in {payment["status"]: payment for payment in payments}.values():
        last = await payer.go_on(payment)
        assert (last["payment_id"], last["status"]) == (payment_id, "SUCCEEDED")


def _owners(upstreams: Upstreams, service: Service) -> set[int]:
    return {pid for pid in map(service.owner, tuple(upstreams.ports)) if pid is not None}


async def _both_serve(upstreams: Upstreams, payer: Payer) -> None:
    """Workers get ready one after the other; connections go to whoever accepts first."""
    async with asyncio.timeout(FOREVER_S):
        while len(_owners(upstreams, payer.service)) < 2:
            await asyncio.gather(*(payer.consult(ELSEWHERE) for _ in range(8)))


async def _until_the_other_asks(
    upstreams: Upstreams, payer: Payer, port: int, tabs: list[asyncio.Task[Told]], body: dict[str, Any]
) -> int:
    """More tabs, until one has come to the worker that does not have the call from this port. Which one has it is returned."""
    upstreams.ports.clear()
    worker = None
    async with asyncio.timeout(FOREVER_S):
        while worker is None:
            worker = await asyncio.to_thread(payer.service.owner, port)
        while not _owners(upstreams, payer.service) - {worker}:
            tabs.append(asyncio.create_task(payer.submit(body, "one-key")))
            await asyncio.wait(tabs, timeout=0.02)  # a connection is taken by one worker or the other
    return worker
