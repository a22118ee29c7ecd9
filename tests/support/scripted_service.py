"""A service with scripted replies about payments, on a real socket, that records the requests."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web

Json = dict[str, Any]


def cny(value: int) -> Json:
    return {"currency": "CNY", "value": value}


def amount(payable: int, fee: int = 0, **discounts: int) -> Json:
    off = [{"promotion_id": name, "title": name, "amount": cny(value)} for name, value in discounts.items()]
    return {
        "order": cny(payable - fee + sum(discounts.values())),
        "fee": cny(fee),
        "discounts": off,
        "payable": cny(payable),
    }


def method(method_id: str, payable: int = 11_800, *, availability: str = "AVAILABLE", **other: Any) -> Json:
    found: Json = {
        "method_id": method_id,
        "kind": method_id.partition(":")[0],
        "title": f"By {method_id}",
        "availability": availability,
        "reason": None
        if availability == "AVAILABLE"
        else {"code": "CARD_EXPIRED", "message": "This card has expired."},
        "amount": amount(payable, p_1=1_000),
        "options": [],
        "legs": [],
        "required_fields": [],
    }
    return found | other


def option(option_id: str, availability: str = "AVAILABLE", costs: Json | None = None) -> Json:
    return {"option_id": option_id, "title": option_id, "availability": availability, "reason": None, "amount": costs}


def consultation(*methods: Json, blocked: Json | None = None) -> Json:
    return {"consult_token": "c.t", "blocked": blocked, "payable": blocked is None, "methods": list(methods)}


def payment(status: str, text: str = "", **other: Any) -> Json:
    """With the token t_1; `other` overrides single fields."""
    found: Json = {
        "payment_id": "pay_1",
        "order_id": "o_1",
        "status": status,
        "amount": cny(11_800),
        "challenge": None,
        "next_action": None,
        "route": {"rule": "cheapest_healthy", "channel_id": "ch_1", "alternatives": ["ch_2"]},
        "message": {"code": status, "text": text or f"It is {status}."},
        "poll_after_ms": None,
        "payment_token": "t_1",
        "expires_at": "2036-11-02T12:00:00Z",
    }
    return found | other


def challenge(attempts_left: int = 3) -> Json:
    return {
        "challenge_id": "ch",
        "type": "SMS_OTP",
        "render_value": "138****1234",
        "trigger": "RISK",
        "attempts_left": attempts_left,
        "expires_at": "2036-11-02T12:00:00Z",
    }


def problem(status: int, code: str, **other: Any) -> Json:
    return {
        "type": "about:blank",
        "title": code,
        "status": status,
        "code": code,
        "detail": f"Because of {code}.",
    } | other


class RecordedRequest(NamedTuple):
    """`path`: below `/v1/payments`. `key`: the Idempotency-Key. `token`: of `X-Payment-Token`."""

    method: str
    path: str
    body: Any
    key: str | None
    token: str | None


class Script:
    """Replies to payment requests, in order. A payment that is not final has status 202.

    A request after the last reply waits for ever.
    """

    def __init__(self, consulted: Json, replies: Sequence[Json]) -> None:
        self.url = ""
        self.requests: list[RecordedRequest] = []
        self._consulted = consulted
        self._replies = list(replies)

    async def consult(self, request: web.Request) -> web.Response:
        return web.json_response(self._consulted, status=self._consulted.get("status", 200))

    async def reply(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        headers = request.headers
        path = request.path_qs.removeprefix("/v1/payments")
        key, token = headers.get("Idempotency-Key"), headers.get("X-Payment-Token")
        self.requests.append(RecordedRequest(request.method, path, body, key, token))
        if not self._replies:
            await asyncio.Event().wait()
        reply = self._replies.pop(0)
        if "code" in reply:
            return web.json_response(
                reply, status=reply["status"], headers={"Retry-After": "0"} if reply["status"] == 503 else {}
            )
        final = reply["status"] in ("SUCCEEDED", "FAILED", "CLOSED", "CLOSED_REFUNDING")
        return web.json_response(reply, status=200 if final else 202)


@asynccontextmanager
async def served(application: web.Application, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """An aiohttp application on this loop. Yields its URL."""
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024, ssl_context=tls).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving(consulted: Json, *replies: Json) -> AsyncIterator[Script]:
    script = Script(consulted, replies)
    app = web.Application()
    app.add_routes([web.post("/v1/consult", script.consult), web.route("*", "/v1/payments{rest:.*}", script.reply)])
    async with served(app) as script.url:
        yield script
