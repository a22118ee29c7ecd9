"""The shared store is a hint: when it is killed nothing is different, but that it is later found out who else is there."""

from __future__ import annotations

import asyncio

import pytest

from tests.fanout.l2.valkey_server import valkey_server as valkey_served

from .conftest import Start
from .payer import ELSEWHERE, Payer, Told
from .upstreams import Call, Moment, Upstreams

pytestmark = pytest.mark.processes

TABS = 20


async def test_a_valkey_that_is_killed_in_the_middle_of_a_payment_changes_nothing_but_how_early_others_are_refused(
    upstreams: Upstreams, start: Start, secrets: set[str]
) -> None:
    with valkey_served() as valkey:
        service = await start(workers=2, shared=valkey.url).ready()
        async with Payer(service, secrets) as payer:
            body = await payer.consult(ELSEWHERE)
            submit = upstreams.meet(Call.SUBMIT, Moment.AFTER)
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
            submit.let_go()
            lives = (await first).body
            told = await asyncio.gather(*again)
            assert upstreams.calls.count(Call.SUBMIT) == 0
            assert {_told(each) for each in (early, late, *told[1::2])} == {(409, "ORDER_BUSY", lives["payment_id"])}
            assert {_told(each) for each in told[::2]} == {(202, "", lives["payment_id"])}

            upstreams.world.engine.settle(lives["payment_id"], "SUCCEEDED")
            assert (await payer.go_on(lives))["status"] == "SUCCEEDED"
            assert (await payer.submit(body, "tab-b")).code == "CONSULT_CHANGED"
    upstreams.assert_paid_once(ELSEWHERE.order_id)


def _told(told: Told) -> tuple[int, str, str]:
    return told.status, told.code, told.body["payment_id"]
