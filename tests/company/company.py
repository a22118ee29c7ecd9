"""The company in this process: each service a real HTTP server on a port of its own."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web

from cashier import Cashier
from cashier.sandbox import LocalUpstreams, World, weather_named
from cashier.settings.loader import configuration
from cashier.settings.schema import Configuration
from tests.company.services import (
    acquirer,
    balance,
    card,
    channel,
    engine,
    marketing,
    member,
    merchant,
    order,
    quota,
    risk,
)
from tests.company.services.records import Records

FOLDER = Path(__file__).parent
SERVICES = {
    "order": order, "merchant": merchant, "member": member, "card": card, "balance": balance, "channel": channel,
    "quota": quota, "marketing": marketing, "risk": risk, "engine": engine, "acquirer": acquirer,
}  # fmt: skip
KEYS = {"MERCHANT_PASSWORD": merchant.PASSWORD, "BALANCE_KEY": balance.SIGNING_KEY.decode()}

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]
# What a broken service does with a request, and with the function that would serve it.
Fault = Callable[[web.Request, Serve], Awaitable[web.StreamResponse]]


class Company:
    """`environ`: the variables of `cashier.toml`. `requests`: those of each service, so far."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.records = Records(world)
        self.environ = dict(KEYS)
        self.faults: dict[str, Fault] = {}
        self.requests: dict[str, list[str]] = {name: [] for name in SERVICES}
        self.closing = asyncio.Event()

    def configuration(self, change: Callable[[Any], object] = lambda table: None) -> Configuration:
        """`cashier.toml`, after `change` to its tables. A busy machine has time to connect."""
        table = tomllib.loads((FOLDER / "cashier.toml").read_text("utf-8"))
        change(table)
        for source in table["sources"].values():
            source.setdefault(source.get("transport", "http1"), {"connect_timeout_ms": 30_000})
        return configuration(table, "cashier.toml", FOLDER, self.environ)

    def over_the_contract(self, **replaced: Any) -> Cashier:
        """A cashier over services of the contract with the same records."""
        contract = LocalUpstreams(self.world, weather_named("still"))
        return Cashier(sources={**contract, **replaced}, config=patient_configuration())

    def application(self, name: str) -> web.Application:
        @web.middleware
        async def under_faults(request: web.Request, handler: Serve) -> web.StreamResponse:
            self.requests[name].append(f"{request.method} {request.path_qs}")
            fault = self.faults.get(name)
            return await handler(request) if fault is None else await fault(request, handler)

        made = web.Application(middlewares=[under_faults])
        made.add_routes(SERVICES[name].routes(self.records))
        return made

    async def hang(self, request: web.Request, serve: Serve) -> web.StreamResponse:
        """A fault: no answer until the company closes."""
        await self.closing.wait()
        return web.Response(status=500)


@cache
def patient_configuration() -> Configuration:
    """The times of `cashier.toml`, for functions. Reading it takes longer than a consultation."""
    table = tomllib.loads((FOLDER / "cashier.toml").read_text("utf-8"))
    times = {
        name: {"url": "http://127.0.0.1:9", "timeout_ms": source["timeout_ms"]}
        for name, source in table["sources"].items()
        if "timeout_ms" in source
    }
    return configuration({"consult": table["consult"], "sources": times}, "cashier.toml")


@asynccontextmanager
async def open_company(world: World) -> AsyncIterator[Company]:
    company = Company(world)
    async with AsyncExitStack() as stack:
        for name in SERVICES:
            runner = web.AppRunner(
                company.application(name), access_log=None, handler_cancellation=True, shutdown_timeout=0.2
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            company.environ[f"{name.upper()}_URL"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        stack.callback(company.closing.set)
        yield company
