"""Every endpoint of the contract on a real socket."""

from __future__ import annotations

import io
from typing import Any

import aiohttp
import msgspec
import pytest

from cashier.sandbox import serve

from . import contract

READS: list[tuple[str, str, str, str]] = [
    ("order", "/orders/o_1001", "/orders/o_404", ""),
    ("acquirer", "/orders/o_1001/result", "/orders/o_404/result", ""),
    ("merchant", "/merchants/m_1", "/merchants/m_404", ""),
    ("member", "/members/u_1", "/members/u_404", ""),
    ("card", "/members/u_1/cards", "/members/u_5/cards", ""),
    ("balance", "/members/u_1/balances", "/members/u_7/balances", ""),
    ("marketing", "/members/u_1/promotions", "/members/u_5/promotions", "?merchant_id=m_1&currency=CNY&value=12800"),
    ("quota", "/members/u_1/quotas", "/members/u_5/quotas", "?currency=CNY"),
]
INQUIRY = {
    "payment_id": "pay_1",
    "order_id": "o_1001",
    "user_id": "u_1",
    "merchant_id": "m_1",
    "amount": {"currency": "CNY", "value": 12_800},
    "kind": "QUICK_PAY",
    "instrument_id": "c_2",
    "device": {"ip": "192.0.2.1"},
}
PAYMENT: dict[str, Any] = {
    "payment_id": "pay_1",
    "order_id": "o_1001",
    "user_id": "u_1",
    "merchant_id": "m_1",
    "fingerprint": "f_1",
    "legs": [
        {
            "type": "CHANNEL",
            "id": "ch_quick_cmb",
            "channel_id": "ch_quick_cmb",
            "instrument_id": "c_2",
            "amount": INQUIRY["amount"],
        },
    ],
    "alternatives": [],
    "return_url": "https://shop.example/back",
}


async def post(
    client: aiohttp.ClientSession, path: str, body: object = None, **headers: str
) -> tuple[int, dict[str, Any]]:
    async with client.post(path, json=body, headers=headers) as response:
        return response.status, await response.json()


@pytest.mark.parametrize(("source", "known", "unknown", "query"), READS, ids=[row[0] for row in READS])
async def test_a_read_answers_200_in_its_shape_or_404(
    client: aiohttp.ClientSession, source: str, known: str, unknown: str, query: str
) -> None:
    async with client.get(known + query) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        msgspec.json.decode(await response.read(), type=contract.READ_TYPES[source])
    async with client.get(unknown + query) as response:
        assert (response.status, await response.json()) == (404, {"code": "NOT_FOUND", "source": source})


async def test_channels_depend_on_currency_and_country(client: aiohttp.ClientSession) -> None:
    async with client.get("/channels?currency=JPY&country=JP") as response:
        listed = msgspec.json.decode(await response.read(), type=contract.Channels)
    assert {channel.channel_id for channel in listed.channels} >= {"ch_otc_lawson", "ch_wallet_paypay"}


@pytest.mark.parametrize(
    "path", ["/channels?currency=CNY", "/members/u_1/quotas", "/orders/o%201", "/members/u_1/promotions?currency=CNY"]
)
async def test_a_malformed_read_gets_a_400_with_the_field(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get(path) as response:
        answer = await response.json()
        assert (response.status, answer["code"]) == (400, "MALFORMED")
        assert answer["field"] in ("country", "currency", "order_id", "merchant_id")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_path_gets_json_too(client: aiohttp.ClientSession, method: str) -> None:
    async with client.request(method, "/batch/cards") as response:
        assert (response.status, (await response.json())["code"]) == (404, "NO_SUCH_PATH")


@pytest.mark.parametrize("source", ["members", "cards", "balances", "promotions", "quotas"])
async def test_a_batch_answers_in_the_order_of_its_requests(client: aiohttp.ClientSession, source: str) -> None:
    requests = [
        {"user_id": user_id, "merchant_id": "m_1", "currency": "CNY", "value": 100}
        for user_id in ("u_100002", "u_404", "u_1")
    ]
    status, body = await post(client, f"/batch/{source}", {"requests": requests})
    assert status == 200
    assert body["answers"][0]["ok"]["user_id"] == "u_100002"
    assert body["answers"][1] == {"error": {"status": 404, "code": "NOT_FOUND"}}
    assert body["answers"][2]["ok"]["user_id"] == "u_1"


async def test_a_challenged_payment_goes_through_risk_and_engine_to_a_paid_order(client: aiohttp.ClientSession) -> None:
    _, decision = await post(client, "/risk/decisions", INQUIRY)
    challenge_id = decision["challenge"]["challenge_id"]
    verify = f"/risk/challenges/{challenge_id}/verify"
    assert await post(client, verify, {"payment_id": "pay_1", "value": "1"}) == (
        200,
        {"status": "FAILED", "attempts_left": 2},
    )
    assert await post(client, verify, {"payment_id": "pay_1", "value": "246810"}) == (
        200,
        {"status": "PASSED", "attempts_left": 2},
    )
    body = PAYMENT | {"decision_id": decision["decision_id"], "method_id": "QUICK_PAY:c_2"}
    answer = await post(client, "/payments", body, **{"Idempotency-Key": "pay_1"})
    names = ("payment_id", "order_id", "fingerprint", "user_id", "merchant_id", "method_id")
    submitted = {name: body[name] for name in names} | {"amount": body["legs"][0]["amount"]}
    assert answer == (200, {**submitted, "submitted_at": "2026-11-02T12:00:00.000+00:00", "status": "SUCCEEDED"})
    async with client.get("/payments/pay_1") as response:
        assert await response.json() == answer[1]
    assert await post(client, "/payments/pay_1/reverse") == answer
    async with client.get("/orders/o_1001/result") as response:
        assert (await response.json())["status"] == "PAID"


async def test_the_engine_refuses_a_reused_key_and_a_busy_order(client: aiohttp.ClientSession) -> None:
    body = PAYMENT | {"decision_id": "d_none", "order_id": "o_1006"}
    busy = await post(client, "/payments", body, **{"Idempotency-Key": "pay_1"})
    assert busy == (409, {"code": "ORDER_BUSY", "payment_id": "pay_o_1006"})
    body = PAYMENT | {"decision_id": "d_none"}
    status, failed = await post(client, "/payments", body, **{"Idempotency-Key": "pay_1"})
    assert (status, failed["failure"]["code"]) == (200, "RISK_NOT_CLEARED")
    assert await post(client, "/payments", body | {"fingerprint": "f_2"}, **{"Idempotency-Key": "pay_1"}) == (
        422,
        {"code": "KEY_REUSED"},
    )
    assert (await post(client, "/payments", body))[0] == 400


@pytest.mark.parametrize("path", ["/payments/pay_none/reverse", "/risk/challenges/none/verify"])
async def test_an_unknown_payment_or_challenge_is_404(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get("/payments/pay_none") as response:
        assert response.status == 404
    assert (await post(client, path, {"payment_id": "pay_none", "value": "1"}))[0] == 404


@pytest.mark.parametrize(
    "path", ["/risk/decisions", "/risk/challenges/x/verify", "/payments", "/batch/cards", "/payments/x/settle"]
)
@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"amount": {"currency": "cny"}}', b"\xff"])
async def test_a_body_that_breaks_the_contract_gets_a_400(
    client: aiohttp.ClientSession, path: str, body: bytes
) -> None:
    async with client.post(path, data=body) as response:
        assert (response.status, (await response.json())["code"]) == (400, "MALFORMED")


async def test_an_oversized_body_gets_a_413(client: aiohttp.ClientSession) -> None:
    async with client.post("/batch/cards", data=io.BytesIO(b" " * 2**21)) as response:
        assert (response.status, await response.json()) == (413, {"code": "TOO_LARGE"})


async def test_the_payer_can_settle_and_the_shop_can_close(client: aiohttp.ClientSession) -> None:
    _, decision = await post(client, "/risk/decisions", INQUIRY | {"kind": "WALLET"})
    leg = {"type": "CHANNEL", "id": "ch_wallet_alipay", "amount": INQUIRY["amount"]}
    body = PAYMENT | {"legs": [leg], "decision_id": decision["decision_id"]}
    _, waiting = await post(client, "/payments", body, **{"Idempotency-Key": "pay_1"})
    assert waiting["next_action"]["type"] == "REDIRECT"
    assert (await post(client, "/orders/o_1001/close"))[1]["status"] == "CLOSED"
    assert (await post(client, "/payments/pay_1/settle", {"result": "SUCCEEDED"}))[1]["status"] == "SUCCEEDED"
    async with client.get("/orders/o_1001/result") as response:
        assert (await response.json())["status"] == "CLOSED_REFUNDING"
    assert await post(client, "/orders/o_1001/close") == (409, {"code": "ORDER_NOT_OPEN"})


async def test_the_cases_can_be_read(client: aiohttp.ClientSession) -> None:
    async with client.get("/cases") as response:
        cases = await response.json()
    assert cases["chinese_shop"]["request"]["order_id"] == "o_1001"


async def test_a_sandbox_of_some_services_has_no_paths_of_the_others() -> None:
    calls = {"card": "/members/u_1/cards", "member": "/members/u_1", "engine": "/payments/pay_1", "ledger": "/ledger"}
    answers = {}
    async with serve(port=0, sources=("card", "engine")) as port, aiohttp.ClientSession() as session:
        for name, path in calls.items():
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                answers[name] = (response.status, (await response.json()).get("code"))
        async with session.post(f"http://127.0.0.1:{port}/risk/decisions", json=INQUIRY) as response:
            answers["risk"] = (response.status, (await response.json())["code"])
    assert answers == {
        "card": (200, None),
        "member": (404, "NO_SUCH_PATH"),
        "engine": (404, "PAYMENT_UNKNOWN"),
        "ledger": (200, None),
        "risk": (404, "NO_SUCH_PATH"),
    }
