"""Transfers: 201 with ids of its own, numeric states, and a search by the beginning of a reference.

It has no reverse: an accepted transfer is cancelled by its own id, and a reference that was never
used can be barred.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec
from aiohttp import web

from cashier.sandbox.decline_rules import SubmitBody
from cashier.sandbox.records import Json
from tests.company.services.records import DIGITS, Records

STATES = {"PROCESSING": 10, "ACTION_REQUIRED": 20, "USER_PAYING": 21, "SUCCEEDED": 50, "FAILED": 60}


def routes(records: Records) -> list[web.RouteDef]:
    engine = records.world.engine
    references: list[str] = []

    def transfer(payment: Json) -> Json:
        reference = payment["payment_id"]
        if reference not in references:
            references.append(reference)
        made: Json = {"id": f"tr-{references.index(reference) + 1}", "reference": reference}
        made["state"] = STATES[payment["status"]]
        for ours, theirs in (
            ("order", "order_id"),
            ("digest", "fingerprint"),
            ("payer", "user_id"),
            ("payee", "merchant_id"),
        ):
            if theirs in payment:
                made[ours] = payment[theirs]
        for ours, theirs in (("acceptedAt", "submitted_at"), ("payUntil", "expires_at")):
            if theirs in payment:
                made[ours] = int(datetime.fromisoformat(payment[theirs]).timestamp() * 1000)
        if "method_id" in payment:
            made["way"] = [payment["method_id"], payment.get("option_id")]
        if "amount" in payment:
            made["total"] = f"{major(**payment['amount'])} {payment['amount']['currency']}"
        if "failure" in payment:
            made["why"] = [payment["failure"]["code"], payment["failure"]["text"]]
        if "next_action" in payment:
            action = dict(payment["next_action"])
            made["todo"] = {action.pop("type"): action}
        return made

    async def create(request: web.Request) -> web.Response:
        body = await request.json()
        submission = msgspec.convert(submission_of(body), SubmitBody)
        answer = records.about("engine", engine.submit(submission, submission.payment_id))
        match answer.status, answer.body.get("code"):
            case 200, _:
                made = transfer(answer.body)
                return web.json_response(made, status=201, headers={"Location": f"/transfers/{made['id']}"})
            case 409, _:
                return web.json_response({"problem": "order-locked", "by": answer.body["payment_id"]}, status=409)
            case _, "KEY_REUSED":
                return web.json_response({"problem": "reference-taken"}, status=409)
        return web.json_response({"problem": answer.body["code"]}, status=422)

    async def search(request: web.Request) -> web.Response:
        beginning = request.query["reference"]
        engine.expire()
        known = [reference for reference in references if reference.startswith(beginning)]
        answers = [records.about("engine", engine.look_up(reference)) for reference in known or [beginning]]
        return web.json_response({"found": [transfer(answer.body) for answer in answers if answer.status == 200]})

    async def cancel(request: web.Request) -> web.Response:
        reference = references[int(request.match_info["id"].removeprefix("tr-")) - 1]
        return web.json_response(transfer(records.about("engine", engine.reverse(reference)).body))

    async def bar(request: web.Request) -> web.Response:
        reference = request.match_info["reference"]
        if engine.attempt(reference) is not None:
            return web.json_response({"problem": "reference-taken"}, status=409)
        engine.reverse(reference)
        return web.json_response({"barred": reference})

    return [
        web.post("/transfers", create),
        web.get("/transfers", search),
        web.post("/transfers/{id}/cancellation", cancel),
        web.put("/barred/{reference}", bar),
    ]


def submission_of(body: Json) -> Json:
    legs = [
        {
            "type": part["from"].upper(),
            "id": part["id"],
            "amount": {"currency": body["currency"], "value": minor(part["sum"], body["currency"])},
            "channel_id": part.get("via"),
            "instrument_id": part.get("with"),
            "term_id": part.get("plan"),
        }
        for part in body["parts"]
    ]
    return {
        "payment_id": body["reference"],
        "order_id": body["order"],
        "user_id": body["payer"],
        "merchant_id": body["payee"],
        "fingerprint": body["digest"],
        "decision_id": body["clearance"],
        "legs": legs,
        "alternatives": body["fallbacks"],
        "auth_code": body.get("scanned"),
        "return_url": body.get("comeBackTo"),
        "method_id": body["way"][0],
        "option_id": body["way"][1],
    }


def major(value: int, currency: str) -> str:
    return f"{Decimal(value).scaleb(-DIGITS[currency]):f}"


def minor(text: str, currency: str) -> int:
    whole, _, part = text.partition(".")
    assert len(part) == DIGITS[currency]
    return int(whole + part)
