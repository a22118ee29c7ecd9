"""Risk: only a score; what follows from it is the caller's business. Step-ups are a second call."""

from __future__ import annotations

from datetime import datetime

import msgspec
from aiohttp import web

from cashier.sandbox.records import Json
from cashier.sandbox.risk import DecisionBody, ResendBody, VerifyBody
from tests.company.services.records import Records

SCORES = {"ACCEPT": 120, "CHALLENGE": 640, "REJECT": 955}
MEANS = {"SMS_OTP": "S", "PASSWORD": "P", "BIOMETRIC": "B", "THREE_DS": "T"}
WORDS = {"PASSED": "OK", "FAILED": "WRONG", "EXPIRED": "LATE"}


def routes(records: Records) -> list[web.RouteDef]:
    risk = records.world.risk
    offered: dict[str, Json] = {}

    async def score(request: web.Request) -> web.Response:
        features = dict((await request.json())["features"])
        decision = risk.decide(msgspec.convert(features, DecisionBody))
        offered[decision["decision_id"]] = decision.get("challenge", {})
        ref = features["payment_id"] + ("x" if "risk" in records.mistaken else "")
        return web.json_response(
            {"ref": ref, "assessment": decision["decision_id"], "score": SCORES[decision["decision"]]}
        )

    async def step_up(request: web.Request) -> web.Response:
        challenge = offered[request.match_info["assessment"]]
        until = int(datetime.fromisoformat(challenge["expires_at"]).timestamp())
        fields = (challenge["challenge_id"], MEANS[challenge["type"]], challenge["attempts_left"], until)
        return web.Response(text="|".join(map(str, (*fields, challenge["render_value"]))), status=201)

    async def check(request: web.Request) -> web.Response:
        form = await request.post()
        answer = VerifyBody(payment_id=str(form["ref"]), value=str(form["answer"]))
        verified = risk.verify(request.match_info["step_up"], answer)
        if verified is None:
            return web.Response(text="NONE")
        return web.Response(text=f"{WORDS[verified['status']]} {verified['attempts_left']}")

    async def nudge(request: web.Request) -> web.Response:
        form = await request.post()
        resent = risk.resend(request.match_info["step_up"], ResendBody(payment_id=str(form["ref"])))
        if resent is None:
            return web.Response(text="NONE")
        return web.Response(text=f"{'SENT' if resent['sent'] else 'WAIT'} {resent['resend_after_s']}")

    return [
        web.post("/scores", score),
        web.post("/assessments/{assessment}/step-up", step_up),
        web.post("/step-ups/{step_up}/check", check),
        web.post("/step-ups/{step_up}/nudge", nudge),
    ]
