"""Restarted with other keys: what a retired one has signed is refused, and what one that still verifies has signed goes on."""

from __future__ import annotations

import asyncio

import pytest

from .conftest import Start
from .payer import CHALLENGED, Payer
from .upstreams import Call, Upstreams

pytestmark = pytest.mark.processes

OLD, NEW = "o" * 32, "n" * 32


async def test_tokens_of_a_retired_key_are_refused_and_those_of_one_that_still_verifies_go_on(
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
        one, token = f"/v1/payments/{payment['payment_id']}", {"X-Payment-Token": payment["payment_token"]}
        for told in (
            await payer.submit(body, "k1"),
            await payer.answer(payment),
            await payer.look(payment),
            await payer.ask("POST", f"{one}/cancel", {}, token),
            await payer.ask("GET", f"{one}/events", None, token),
        ):
            assert told.code == "TOKEN_UNKNOWN_KEY", told
            assert told.status in (401, 403, 409, 422), told
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
