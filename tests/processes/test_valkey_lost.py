"""The shared store is a hint: without it other attempts are only refused later."""

from __future__ import annotations

import asyncio

import pytest

from tests.fanout.l2.valkey_server import valkey_server as valkey_served

from .conftest import Start
from .payer import ELSEWHERE, Payer, Reply
from .upstreams import Call, Moment, Upstreams

pytestmark = pytest.mark.processes

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
            assert Call.READ in upstreams.calls
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
