"""A gateway in FastAPI and httpx as usually written: `gather`, `.json()`, a dict.

`python -m benchmarks.peers.programs.fastapi_httpx PORT '{"order": "http://127.0.0.1:1234", …}'`
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from httpx import AsyncClient, Limits
from pydantic import BaseModel

NAMES = ("order", "merchant", "member", "card", "balance", "channel", "quota", "marketing")


class Money(BaseModel):
    currency: str
    value: int


class Consultation(BaseModel):
    order_id: str
    user_id: str
    merchant_id: str
    amount: Money
    country: str


def urls(upstreams: Mapping[str, str], asked: Consultation) -> list[str]:
    user, merchant, amount = asked.user_id, asked.merchant_id, asked.amount
    return [
        f"{upstreams['order']}/orders/{asked.order_id}",
        f"{upstreams['merchant']}/merchants/{merchant}",
        f"{upstreams['member']}/members/{user}",
        f"{upstreams['card']}/members/{user}/cards",
        f"{upstreams['balance']}/members/{user}/balances",
        f"{upstreams['channel']}/channels?currency={amount.currency}&country={asked.country}",
        f"{upstreams['quota']}/members/{user}/quotas?currency={amount.currency}",
        f"{upstreams['marketing']}/members/{user}/promotions"
        f"?merchant_id={merchant}&currency={amount.currency}&value={amount.value}",
    ]


def gateway(upstreams: Mapping[str, str]) -> FastAPI:
    # A shared client searches all its connections for each call, which would be most of its work.
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limits = Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=3600)
        async with AsyncExitStack() as stack:
            app.state.clients = [await stack.enter_async_context(AsyncClient(limits=limits, timeout=10)) for _ in NAMES]
            yield

    app = FastAPI(lifespan=lifespan)

    async def get(at: int, url: str) -> Any:
        answer = await app.state.clients[at].get(url)
        return answer.json() if answer.status_code == 200 else None

    @app.post("/v1/consult")
    async def consult(asked: Consultation) -> JSONResponse:
        parts = await asyncio.gather(*[get(at, url) for at, url in enumerate(urls(upstreams, asked))])
        return JSONResponse(dict(zip(NAMES, parts, strict=True)))

    return app


if __name__ == "__main__":
    app = gateway(json.loads(sys.argv[2]))
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        http="httptools",
        loop="uvloop",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=3600,
    )
