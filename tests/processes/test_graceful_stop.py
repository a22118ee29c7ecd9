"""What survives around a payment: a stop is graceful, and the shared store is only a hint."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.fanout.l2.valkey_server import valkey_server as valkey_served

from .conftest import Start
from .payer import ELSEWHERE, Payer, PaymentCase, Reply
from .services import DRAIN_S, Fleet
from .upstreams import Call, Moment, Upstreams

pytestmark = pytest.mark.processes

POLLS, STREAMS = 50, 10
IMMEDIATE = PaymentCase("guest_order", "BALANCE:acc_1")


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stop_answers_the_running_submit_and_all_waiting_calls(
    upstreams: Upstreams, start: Start, fleet: Fleet, secrets: set[str], workers: int
) -> None:
    service, successor = start(workers=workers), await fleet.take()
    async with Payer(await service.ready(), secrets) as payer:
        pending = (await payer.submit(await payer.consult(ELSEWHERE), "waits")).body
        polls = await payer.start_connected(payer.look(pending, 30_000) for _ in range(POLLS))
        streams = await payer.start_connected(payer.follow(pending) for _ in range(STREAMS))
        body = await payer.consult(IMMEDIATE)
        submit = upstreams.hold(Call.SUBMIT, Moment.BEFORE)
        paying = asyncio.create_task(payer.submit(body, "is-sent"))
        await submit.reached()

        service.stop()
        stopped_s = time.monotonic()
        assert {(reply.status, reply.body["status"]) for reply in await asyncio.gather(*polls)} == {
            (202, "ACTION_REQUIRED")
        }
        for events in await asyncio.gather(*streams):
            assert [name for name, _ in events] == ["payment", "end"]
            assert "STOPPING" in events[-1][1]
        assert not paying.done()
        submit.release()
        reply = await paying
        assert (reply.status, reply.body["status"]) == (200, "SUCCEEDED")
        assert await service.ended() in (0, -signal.SIGTERM)
        assert time.monotonic() - stopped_s < DRAIN_S
        assert payer.lost == 0

        payer.service = successor
        upstreams.world.engine.settle(pending["payment_id"], "SUCCEEDED")
        assert (await payer.pay_to_end(pending))["status"] == "SUCCEEDED"
        assert (await payer.pay_to_end(reply.body))["status"] == "SUCCEEDED"
    upstreams.assert_paid_once(ELSEWHERE.order_id)
    upstreams.assert_paid_once(IMMEDIATE.order_id)
    fleet.retire(successor)


TABS = 20


async def test_killing_valkey_during_a_payment_only_delays_the_refusal_of_others(
    upstreams: Upstreams, start: Start, secrets: set[str]
) -> None:
    with valkey_served() as valkey:
        service = await start(workers=2, shared=valkey.url).ready()
        async with Payer(service, secrets) as payer:
            body = await payer.consult(ELSEWHERE)
            submit = upstreams.hold(Call.SUBMIT, Moment.AFTER)
            first = asyncio.create_task(payer.submit(body, "tab-a"))
            await submit.reached()
            upstreams.calls.clear()
            early = await payer.submit(body, "tab-b")
            assert Call.READ not in upstreams.calls

            valkey.kill()
            upstreams.calls.clear()
            late = await payer.submit(body, "tab-b")
            again = [asyncio.create_task(payer.submit(body, key)) for _ in range(TABS) for key in ("tab-a", "tab-b")]
            submit.release()
            live = (await first).body
            replies = await asyncio.gather(*again)
            assert upstreams.calls.count(Call.SUBMIT) == 0
            assert {_summary(reply) for reply in (early, late, *replies[1::2])} == {
                (409, "ORDER_BUSY", live["payment_id"])
            }
            assert {_summary(reply) for reply in replies[::2]} == {(202, "", live["payment_id"])}

            upstreams.world.engine.settle(live["payment_id"], "SUCCEEDED")
            assert (await payer.pay_to_end(live))["status"] == "SUCCEEDED"
            assert (await payer.submit(body, "tab-b")).code == "CONSULT_CHANGED"
    upstreams.assert_paid_once(ELSEWHERE.order_id)


def _summary(reply: Reply) -> tuple[int, str, str]:
    return reply.status, reply.code, reply.body["payment_id"]
