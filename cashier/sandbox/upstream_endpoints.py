"""The ten upstreams' paths, exactly as the contract has them, each under its source's weather. No rule of any service lives here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from cashier.sandbox.engine_rules import Submission
from cashier.sandbox.fault_effects import SEEN_AS, Work, carried_out
from cashier.sandbox.fault_injection import deliver, plain, unanswered
from cashier.sandbox.read_sources import READINGS, Lookups
from cashier.sandbox.request_body import Shape, read_body
from cashier.sandbox.risk import Inquiry, Verification
from cashier.sandbox.upstream_answer import Answer, refusal
from cashier.sandbox.weather import Mishap, Weather
from cashier.sandbox.world import World

READING_PATHS = {
    "order": "/orders/{order_id}",
    "acquirer": "/orders/{order_id}/result",
    "merchant": "/merchants/{merchant_id}",
    "member": "/members/{user_id}",
    "card": "/members/{user_id}/cards",
    "balance": "/members/{user_id}/balances",
    "marketing": "/members/{user_id}/promotions",
    "channel": "/channels",
    "quota": "/members/{user_id}/quotas",
}

Route = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Upstreams:
    """The services of one world under one weather. `closing` is set when the server stops, and lets go of what hangs."""

    def __init__(self, world: World, weather: Weather) -> None:
        self._world = world
        self._weather = weather
        self._lookups = Lookups(world)
        self.closing = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        readings = [web.get(path, self._reading(source)) for source, path in READING_PATHS.items()]
        batches = [
            web.post(reading.batch, self._batch(source)) for source, reading in READINGS.items() if reading.batch
        ]
        return [*readings, *batches, *self._risk_routes(), *self._engine_routes()]

    def _risk_routes(self) -> list[web.RouteDef]:
        risk = self._world.risk

        def decide(request: web.Request, inquiry: Inquiry, mishap: Mishap | None) -> Answer:
            return Answer(200, risk.decide(inquiry))

        def verify(request: web.Request, verification: Verification, mishap: Mishap | None) -> Answer:
            told = risk.verify(request.match_info["challenge_id"], verification)
            return Answer(200, told) if told else refusal(404, "CHALLENGE_UNKNOWN")

        return [
            web.post("/risk/decisions", self._posted("risk", "decide", Inquiry, decide)),
            web.post("/risk/challenges/{challenge_id}/verify", self._posted("risk", "verify", Verification, verify)),
        ]

    def _engine_routes(self) -> list[web.RouteDef]:
        engine = self._world.engine

        def submit(request: web.Request, submission: Submission, mishap: Mishap | None) -> Answer:
            return engine.submit(submission, request.headers.get("Idempotency-Key", ""), mishap)

        async def look_up(request: web.Request) -> web.StreamResponse:
            return await self._answer(
                request, "engine", "look_up", lambda _: engine.look_up(request.match_info["payment_id"])
            )

        async def reverse(request: web.Request) -> web.StreamResponse:
            payment_id = request.match_info["payment_id"]
            return await self._answer(request, "engine", "reverse", lambda mishap: engine.reverse(payment_id, mishap))

        return [
            web.post("/payments", self._posted("engine", "submit", Submission, submit)),
            web.get("/payments/{payment_id}", look_up),
            web.post("/payments/{payment_id}/reverse", reverse),
        ]

    def _reading(self, source: str) -> Route:
        look_up = self._lookups.look_up

        async def read(request: web.Request) -> web.StreamResponse:
            given = {**request.query, **request.match_info} if request.query_string else request.match_info
            return await self._answer(request, source, "read", lambda _: look_up(source, given))

        return read

    def _batch(self, source: str) -> Route:
        def look_up_many(request: web.Request, body: object, mishap: Mishap | None) -> Answer:
            return self._lookups.look_up_many(source, body)

        return self._posted(source, "read", object, look_up_many)

    def _posted(
        self, source: str, call: str, shape: type[Shape], do: Callable[[web.Request, Shape, Mishap | None], Answer]
    ) -> Route:
        decoder = msgspec.json.Decoder(shape)

        async def post(request: web.Request) -> web.StreamResponse:
            body = await read_body(request, decoder)
            return await self._answer(
                request, source, call, lambda mishap: body if isinstance(body, Answer) else do(request, body, mishap)
            )

        return post

    async def _answer(self, request: web.Request, source: str, call: str, work: Work) -> web.StreamResponse:
        """Do the work at once, so that a client that leaves leaves it done; then wait as long as the weather has it."""
        spell = self._weather.spell(source, call)
        answer = carried_out(self._world, spell, work)
        if spell.latency_s:
            await asyncio.sleep(spell.latency_s)
        if answer is None:
            return await unanswered(request, SEEN_AS[spell.fault], self.closing)
        return plain(answer) if spell.fault is None else await deliver(request, source, answer, spell, self.closing)
