"""Risk: the service gives a score, and the options say what follows. A step-up is a second call."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, urlencode

from cashier.payments.ports import Inquiry
from cashier.source_errors import WrongIdentity
from cashier.sources.adapter_settings import AdapterSettings
from cashier.wire.transport import Request, Response

from .times import from_epoch

MEANS = {"S": "SMS_OTP", "P": "PASSWORD", "B": "BIOMETRIC", "T": "THREE_DS"}
WORDS = {"OK": "PASSED", "WRONG": "FAILED", "LATE": "EXPIRED"}
FORM = (("Content-Type", "application/x-www-form-urlencoded"),)
Call = Callable[[Request], Awaitable[Response]]


class Scores:
    statuses = frozenset((200, 201))

    def __init__(self, settings: AdapterSettings) -> None:
        self._challenge_from: int = settings.options["challenge_from"]
        self._reject_from: int = settings.options["reject_from"]

    async def decide(self, inquiry: Inquiry, call: Call) -> dict[str, Any]:
        body = json.dumps({"features": features(inquiry)}).encode()
        # Scoring is free and may be repeated; the step-up below sends a message.
        scored = (await call(Request("/scores", "POST", body, read_only=True))).json()
        if scored["ref"] != inquiry.payment_id:
            raise WrongIdentity("a score of another payment")
        decision: dict[str, Any] = {"decision_id": scored["assessment"], "payment_id": scored["ref"]}
        score = range(1000).index(scored["score"])
        if score >= self._reject_from:
            return {**decision, "decision": "REJECT", "code": f"SCORE_{score}"}
        if score < self._challenge_from:
            return {**decision, "decision": "ACCEPT"}
        response = await call(Request(f"/assessments/{quote(scored['assessment'], safe='')}/step-up", "POST"))
        challenge_id, means, tries, until, shown = response.body.decode().split("|", 4)
        return {
            **decision,
            "decision": "CHALLENGE",
            "challenge": {
                "challenge_id": challenge_id,
                "type": MEANS[means],
                "render_value": shown,
                "attempts_left": int(tries),
                "expires_at": from_epoch(int(until)),
            },
        }

    async def verify(self, challenge_id: str, payment_id: str, value: str, call: Call) -> dict[str, Any] | None:
        response = await call(_step_up(challenge_id, "check", ref=payment_id, answer=value))
        word, _, left = response.body.decode("ascii").partition(" ")
        return None if word == "NONE" else {"status": WORDS[word], "attempts_left": int(left)}

    async def resend(self, challenge_id: str, payment_id: str, call: Call) -> dict[str, Any] | None:
        response = await call(_step_up(challenge_id, "nudge", ref=payment_id))
        word, _, wait_s = response.body.decode("ascii").partition(" ")
        return None if word == "NONE" else {"resend_after_s": int(wait_s), "sent": word == "SENT"}


def _step_up(challenge_id: str, action: str, **form: str) -> Request:
    path = f"/step-ups/{quote(challenge_id, safe='')}/{action}"
    return Request(path, "POST", urlencode(form).encode(), headers=FORM)


def features(inquiry: Inquiry) -> list[tuple[str, Any]]:
    named = [(name, getattr(inquiry, name)) for name in ("payment_id", "order_id", "user_id", "merchant_id", "kind")]
    amount = {"currency": inquiry.amount.currency, "value": inquiry.amount.value}
    device = {"ip": inquiry.device.ip, "device_id": inquiry.device.device_id}
    return [*named, ("instrument_id", inquiry.instrument_id), ("amount", amount), ("device", device)]
