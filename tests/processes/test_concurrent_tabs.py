"""Two workers and many tabs: one order is charged once, and every tab gets the same payment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from .payer import ELSEWHERE, UNCHALLENGED, Payer, Reply
from .services import Fleet, Service
from .upstreams import TIMEOUT_S, Call, Moment, Upstreams

pytestmark = pytest.mark.processes

MANY = 200


async def test_of_two_keys_for_one_order_one_is_charged_and_all_tabs_get_its_id(
    upstreams: Upstreams, pair: Service, secrets: set[str]
) -> None:
    async with Payer(pair, secrets) as payer:
        await _both_serve(upstreams, payer)
        body = await payer.consult(ELSEWHERE)
        upstreams.ports.clear()
        replies = await asyncio.gather(
            *(payer.submit(body, key) for _ in range(MANY // 2) for key in ("tab-a", "tab-b"))
        )
        payments = [reply for reply in replies if reply.status == 202]
        busy = [reply for reply in replies if reply.code == "ORDER_BUSY"]
        assert len(payments) + len(busy) == MANY, {(reply.status, reply.code) for reply in replies}
        (live_id,) = {reply.body["payment_id"] for reply in (*payments, *busy)}
        assert payments
        assert {reply.body["status"] for reply in payments} == {"ACTION_REQUIRED"}
        assert upstreams.world.engine.live == {live_id}
        upstreams.world.engine.settle(live_id, "SUCCEEDED")
        assert (await payer.pay_to_end(payments[0].body))["status"] == "SUCCEEDED"
    upstreams.assert_paid_once(ELSEWHERE.order_id)


async def test_with_a_store_two_hundred_submits_of_one_key_reach_the_engine_once(
    upstreams: Upstreams, pairs: dict[str, Service], secrets: set[str]
) -> None:
    service = await pairs["with a Valkey"].ready()
    async with Payer(service, secrets) as payer:
        await _both_serve(upstreams, payer)
        body = await payer.consult(UNCHALLENGED)
        submit = upstreams.hold(Call.SUBMIT, Moment.BEFORE)
        tabs = [asyncio.create_task(payer.submit(body, "one-key")) for _ in range(MANY)]
        await submit.reached()
        await _wait_for_the_other_worker(upstreams, payer, submit.port, tabs, body)
        submit.release()
        await _all_succeed(payer, await asyncio.gather(*tabs))
    assert upstreams.calls.count(Call.SUBMIT) == 1
    upstreams.assert_paid_once(UNCHALLENGED.order_id)


async def test_of_two_bodies_under_one_key_the_first_is_accepted_and_the_other_refused(
    upstreams: Upstreams, pair: Service, secrets: set[str]
) -> None:
    async with Payer(pair, secrets) as payer:
        await _both_serve(upstreams, payer)
        body = await payer.consult(UNCHALLENGED)
        submit = upstreams.hold(Call.SUBMIT, Moment.AFTER)
        first = asyncio.create_task(payer.submit(body, "one-key"))
        await submit.reached()
        bodies = [body if tab % 10 else {**body, "return_url": "https://shop.example/elsewhere"} for tab in range(MANY)]
        tabs = [asyncio.create_task(payer.submit(sent, "one-key")) for sent in bodies]
        refused = await asyncio.gather(*(tab for tab, sent in zip(tabs, bodies, strict=True) if sent is not body))
        assert {(reply.status, reply.code) for reply in refused} == {(422, "KEY_REUSED")}
        submit.release()
        same = await asyncio.gather(first, *(tab for tab, sent in zip(tabs, bodies, strict=True) if sent is body))
        assert len(refused) == MANY // 10
        await _all_succeed(payer, same)
    assert upstreams.calls.count(Call.SUBMIT) == 1
    upstreams.assert_paid_once(UNCHALLENGED.order_id)


@pytest.mark.parametrize("moment", Moment)
async def test_after_a_worker_is_killed_during_a_submit_the_other_worker_finishes_it(
    upstreams: Upstreams, pair: Service, secrets: set[str], moment: Moment
) -> None:
    async with Payer(pair, secrets) as payer:
        await _both_serve(upstreams, payer)
        body = await payer.consult(UNCHALLENGED)
        submit = upstreams.hold(Call.SUBMIT, moment)
        upstreams.calls.clear()
        tabs = [asyncio.create_task(payer.submit(body, "one-key"))]
        await submit.reached()
        await pair.kill(await _wait_for_the_other_worker(upstreams, payer, submit.port, tabs, body))
        await _all_succeed(payer, await asyncio.gather(*tabs))
    assert payer.lost >= 1
    upstreams.assert_paid_once(UNCHALLENGED.order_id)


@pytest.mark.parametrize(
    ("changed", "status", "expected"),
    [({}, 200, "SUCCEEDED"), ({"return_url": "https://shop.example/"}, 422, "KEY_REUSED")],
)
async def test_a_payment_made_by_another_process_after_the_look_up_is_no_order_change(
    upstreams: Upstreams, fleet: Fleet, secrets: set[str], changed: dict[str, str], status: int, expected: str
) -> None:
    late, early = await fleet.take(), await fleet.take()
    async with Payer(late, secrets) as slow, Payer(early, secrets) as quick:
        body = await quick.consult(UNCHALLENGED)
        look_up = upstreams.hold(Call.LOOK_UP, Moment.AFTER)
        waiting = asyncio.create_task(slow.submit({**body, **changed}, "one-key"))
        await look_up.reached()
        assert (await quick.submit(body, "one-key")).body["status"] == "SUCCEEDED"
        look_up.release()
        reply = await waiting
    assert (reply.status, reply.code or reply.body["status"]) == (status, expected)
    assert upstreams.calls.count(Call.SUBMIT) == 1
    upstreams.assert_paid_once(UNCHALLENGED.order_id)
    fleet.retire(early)
    fleet.retire(late)


async def _all_succeed(payer: Payer, replies: Iterable[Reply]) -> None:
    """All replies are of one payment that succeeds.

    After a submit held beyond its timeout it is PROCESSING at first.
    """
    payments = [reply.body for reply in replies if reply.status in (200, 202)]
    assert [reply for reply in replies if reply.status not in (200, 202)] == []
    (payment_id,) = {payment["payment_id"] for payment in payments}
    assert {payment["status"] for payment in payments} <= {"SUCCEEDED", "PROCESSING"}
    for payment in {payment["status"]: payment for payment in payments}.values():
        last = await payer.pay_to_end(payment)
        assert (last["payment_id"], last["status"]) == (payment_id, "SUCCEEDED")


def _owners(upstreams: Upstreams, service: Service) -> set[int]:
    return {pid for pid in map(service.owner, tuple(upstreams.ports)) if pid is not None}


async def _both_serve(upstreams: Upstreams, payer: Payer) -> None:
    """Wait until both workers accept connections: they become ready one after the other."""
    async with asyncio.timeout(TIMEOUT_S):
        while len(_owners(upstreams, payer.service)) < 2:
            await asyncio.gather(*(payer.consult(ELSEWHERE) for _ in range(8)))


async def _wait_for_the_other_worker(
    upstreams: Upstreams, payer: Payer, port: int, tabs: list[asyncio.Task[Reply]], body: dict[str, Any]
) -> int:
    """Open tabs until one reaches the other worker.

    Returns the worker with the call from this port.
    """
    upstreams.ports.clear()
    worker = None
    async with asyncio.timeout(TIMEOUT_S):
        while worker is None:
            worker = await asyncio.to_thread(payer.service.owner, port)
        while not _owners(upstreams, payer.service) - {worker}:
            tabs.append(asyncio.create_task(payer.submit(body, "one-key")))
            await asyncio.wait(tabs, timeout=0.02)  # either worker may accept a connection
    return worker
