"""Members of the slow customer database: 202 and a place to ask again, until it has the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from cashier.source_errors import Garbled
from cashier.sources.adapter_settings import AdapterSettings
from cashier.wire.transport import Request, Response

LIFECYCLE = {1: "ACTIVE", 2: "FROZEN", 9: "CLOSED"}
LOOKS = 20


class Members:
    statuses = frozenset((200, 202))

    def __init__(self, settings: AdapterSettings) -> None:
        self._prefix = settings.path_prefix

    async def answer(
        self, asked: Mapping[str, Any], call: Callable[[Request], Awaitable[Response]]
    ) -> dict[str, Any] | None:
        response = await call(Request(f"/profiles/{quote(asked['user_id'], safe='')}"))
        for _ in range(LOOKS):
            if response.status == 200:
                return member(response.json())
            await asyncio.sleep(int(response.headers["X-Retry-Ms"]) / 1000)
            response = await call(Request(response.headers["Location"].removeprefix(self._prefix)))
        raise Garbled(f"not ready after {LOOKS} looks")


def member(reply: Any) -> dict[str, Any] | None:
    if reply["outcome"] == "noSuchCustomer":
        return None
    if reply["outcome"] != "found":
        raise Garbled("an outcome other than found and noSuchCustomer")
    field = dict(reply["profile"])
    last = dict(field.get("lastPayment", ()))
    return {
        "user_id": field["customerId"],
        "status": LIFECYCLE[field["lifecycle"]],
        "country": field["homeCountry"],
        "kyc_level": int(field["verificationTier"].removeprefix("T")),
        "usage": [{"kind": kind, "count": count} for kind, count in field["paymentHistory"]],
        "last_used": {"kind": last["means"], "instrument_id": last["with"]} if last else None,
    }
