"""Key rotation: tokens of a retired key are refused, those of a rotated one continue."""

from __future__ import annotations

import asyncio

import pytest

from .conftest import Start
from .payer import CHALLENGED, Payer
from .upstreams import Call, Upstreams

pytestmark = pytest.mark.processes

OLD, NEW = "o" * 32, "n" * 32


async def test_tokens_of_a_retired_key_are_refused_and_those_of_a_rotated_key_continue(
    upstreams: Upstreams, start: Start, secrets: set[str]
) -> None:
    before, retired, rotated = await asyncio.gather(
        *(start(secrets=keys).ready() for keys in ((OLD,), (NEW,), (NEW, OLD)))
    )
    async with Payer(before, secrets) as payer:
        body = await payer.consult(CHALLENGED)
        payment = (await payer.submit(body, "k1")).body
        assert payment["status"] == "CHALLENGE"

        payer.service = retired
        upstreams.calls.clear()
        path, token = f"/v1/payments/{payment['payment_id']}", {"X-Payment-Token": payment["payment_token"]}
        for reply in (
            await payer.submit(body, "k1"),
            await payer.answer(payment),
            await payer.look(payment),
            await payer.request("POST", f"{path}/cancel", {}, token),
            await payer.request("GET", f"{path}/events", None, token),
        ):
            assert reply.code == "TOKEN_UNKNOWN_KEY", reply
            assert reply.status in (401, 403, 409, 422), reply
        assert upstreams.calls == []

        payer.service = rotated
        assert (await payer.submit(body, "k1")).body["payment_id"] == payment["payment_id"]
        paid = (await payer.answer(payment)).body
        assert paid["status"] == "SUCCEEDED"
        payer.service = retired
        assert (await payer.look(paid)).body["status"] == "SUCCEEDED"
        payer.service = before
        assert (await payer.look(paid)).code == "TOKEN_UNKNOWN_KEY"
    assert upstreams.calls.count(Call.SUBMIT) == 1
    upstreams.assert_paid_once(CHALLENGED.order_id)
