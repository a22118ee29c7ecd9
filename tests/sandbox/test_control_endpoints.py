"""The sandbox's own endpoints for money and time: the ledger and the clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from cashier.sandbox.world import World
from cashier.sandbox.world_clock import WorldClock
from tests.sandbox.hand_clock import NOON, HandClock
from tests.sandbox.paying import balance, channel, result, submission, submit


async def call(client: aiohttp.ClientSession, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    async with client.request("GET" if body is None else "POST", path, json=body) as response:
        return response.status, await response.json()


async def test_the_ledger_is_shown_with_its_violations(client: aiohttp.ClientSession, world: World) -> None:
    assert await call(client, "/ledger") == (200, {"entries": [], "wrong": []})
    submit(world, submission(world, order_id="o_1002", legs=(balance("acc_1", 3_500),)))
    _, ledger = await call(client, "/ledger")
    assert ledger["entries"][0] == {
        "at": "2026-11-02T12:00:00Z",
        "payment_id": "pay_1",
        "order_id": "o_1002",
        "user_id": "u_1",
        "what": "TAKEN",
        "amount": {"currency": "CNY", "value": 3_500},
        "from": "BALANCE:acc_1",
    }
    assert ledger["wrong"] == []
    world.ledger.give_back(world.engine._attempts["pay_1"].parties, "REFUNDED")
    _, ledger = await call(client, "/ledger")
    assert ledger["wrong"]


async def test_advancing_the_clock_expires_attempts(client: aiohttp.ClientSession, world: World) -> None:
    submit(world, submission(world, legs=(channel("ch_wallet_alipay"),)))
    assert await call(client, "/clock", {"advance_s": 13 * 60}) == (
        200,
        {"now": "2026-11-02T12:13:00+00:00", "ahead_s": 780},
    )
    assert result(world).status == "PAYING"
    assert await call(client, "/clock", {"advance_s": 60}) == (
        200,
        {"now": "2026-11-02T12:14:00+00:00", "ahead_s": 840},
    )
    assert result(world).status == "PENDING"
    assert (await call(client, "/clock"))[1]["ahead_s"] == 840


@pytest.mark.parametrize("body", [{}, {"advance_s": -1}, {"advance_s": 1.5}, {"advance_s": 10**9}, []])
async def test_an_invalid_advance_of_the_clock_is_refused(client: aiohttp.ClientSession, body: object) -> None:
    assert (await call(client, "/clock", body))[0] == 400
    assert (await call(client, "/clock"))[1]["ahead_s"] == 0


def test_an_advanced_clock_still_runs() -> None:
    base = HandClock()
    clock = WorldClock(base)
    clock.advance(timedelta(hours=1))
    base.advance(timedelta(seconds=2))
    assert clock() - NOON == timedelta(hours=1, seconds=2)


async def test_a_bank_finds_money_after_a_failure(client: aiohttp.ClientSession, world: World) -> None:
    submit(world, submission(world, legs=(channel("ch_wallet_alipay"),)))
    assert (await call(client, "/payments/pay_1/correct", {})) == (409, {"code": "NOT_CORRECTABLE"})
    world.engine.settle("pay_1", "FAILED")
    status, corrected = await call(client, "/payments/pay_1/correct", {})
    assert (status, corrected["status"], "failure" in corrected) == (200, "SUCCEEDED", False)
    assert (result(world).status, result(world).payment_id, world.audit()) == ("PAID", "pay_1", [])
    assert (await call(client, "/payments/pay_2/correct", {}))[0] == 404


async def test_a_channel_gets_other_terms(client: aiohttp.ClientSession, world: World) -> None:
    submit(world, submission(world))
    async with client.put("/channels/ch_quick_cmb", json={"fee_bps": 50, "status": "CLOSED"}) as response:
        changed = await response.json()
    assert (changed["fee_bps"], changed["status"]) == (50, "CLOSED")
    _, read = await call(client, "/channels?currency=CNY&country=CN")
    assert changed in read["channels"]
    assert world.audit() == []


@pytest.mark.parametrize("body", [{"status": "BROKEN"}, {"fee_bps": -1}, {"step": 0}, {"colour": "red"}, []])
async def test_invalid_terms_of_a_channel_are_refused(client: aiohttp.ClientSession, body: object) -> None:
    async with client.put("/channels/ch_quick_cmb", json=body) as response:
        assert response.status == 400
    async with client.put("/channels/ch_unknown", json={}) as response:
        assert response.status == 404


async def test_a_transfer_can_be_settled_with_another_sum(client: aiohttp.ClientSession, world: World) -> None:
    leg = channel("ch_otc_lawson", value=4_980, currency="JPY")
    submit(world, submission(world, order_id="o_8101", user_id="u_81", merchant_id="m_81", legs=(leg,)))
    less = await call(client, "/payments/pay_1/settle", {"result": "SUCCEEDED", "paid": 4_979})
    assert (less[0], less[1]["status"]) == (200, "ACTION_REQUIRED")
    assert (await call(client, "/payments/pay_1/settle", {"result": "SUCCEEDED", "paid": -1}))[0] == 400
    more = await call(client, "/payments/pay_1/settle", {"result": "SUCCEEDED", "paid": 5_000})
    assert (more[1]["status"], world.audit()) == ("SUCCEEDED", [])
