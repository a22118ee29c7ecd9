"""The HTTP endpoints of the upstreams, each under the weather of its source."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

import msgspec
from aiohttp import web

from cashier.sandbox.decline_rules import ReverseBody, SubmitBody
from cashier.sandbox.execution_faults import CLIENT_VIEW, Work, perform
from cashier.sandbox.read_sources import Reader, SourceReader
from cashier.sandbox.response_faults import deliver, json_response, respond_without_answer
from cashier.sandbox.risk import DecisionBody, ResendBody, VerifyBody
from cashier.sandbox.source_table import SOURCE_READS, SOURCES
from cashier.sandbox.upstream_answer import Shape, UpstreamAnswer, error_answer, read_body
from cashier.sandbox.weather import PaymentFault, Weather
from cashier.sandbox.world import World

_decode_reversal: msgspec.json.Decoder[ReverseBody] = msgspec.json.Decoder(ReverseBody)
EndpointFunction = Callable[[web.Request], Awaitable[web.StreamResponse]]


class UpstreamEndpoints:
    """The services of one world under one weather. Setting `closing` releases hanging calls."""

    def __init__(self, world: World, weather: Weather, reader: Reader | None = None) -> None:
        """`reader`: what the sources answer that are only read, in the place of the world."""
        self._world = world
        self._weather = weather
        self._reader = reader or SourceReader(world)
        self.closing = asyncio.Event()

    def routes(self, sources: Collection[str] = tuple(SOURCES)) -> list[web.RouteDef]:
        """`sources`: the services that are served."""
        served = {source: read for source, read in SOURCE_READS.items() if source in sources}
        reads = [web.get(read.path, self._read(source)) for source, read in served.items()]
        batches = [web.post(read.batch, self._batch(source)) for source, read in served.items() if read.batch]
        risk = self._risk_routes() if "risk" in sources else []
        engine = self._engine_routes() if "engine" in sources else []
        return [*reads, *batches, *risk, *engine]

    def _risk_routes(self) -> list[web.RouteDef]:
        risk = self._world.risk

        def decide(request: web.Request, body: DecisionBody, fault: PaymentFault | None) -> UpstreamAnswer:
            return UpstreamAnswer(200, risk.decide(body))

        def verify(request: web.Request, body: VerifyBody, fault: PaymentFault | None) -> UpstreamAnswer:
            verified = risk.verify(request.match_info["challenge_id"], body)
            return UpstreamAnswer(200, verified) if verified else error_answer(404, "CHALLENGE_UNKNOWN")

        def resend(request: web.Request, body: ResendBody, fault: PaymentFault | None) -> UpstreamAnswer:
            resent = risk.resend(request.match_info["challenge_id"], body)
            return UpstreamAnswer(200, resent) if resent else error_answer(404, "CHALLENGE_UNKNOWN")

        return [
            web.post("/risk/decisions", self._posted("risk", "decide", DecisionBody, decide)),
            web.post("/risk/challenges/{challenge_id}/verify", self._posted("risk", "verify", VerifyBody, verify)),
            web.post("/risk/challenges/{challenge_id}/resend", self._posted("risk", "resend", ResendBody, resend)),
        ]

    def _engine_routes(self) -> list[web.RouteDef]:
        engine = self._world.engine

        def submit(request: web.Request, submission: SubmitBody, fault: PaymentFault | None) -> UpstreamAnswer:
            return engine.submit(submission, request.headers.get("Idempotency-Key", ""), fault)

        async def look_up(request: web.Request) -> web.StreamResponse:
            return await self._answer(
                request, "engine", "look_up", lambda _: engine.look_up(request.match_info["payment_id"])
            )

        async def reverse(request: web.Request) -> web.StreamResponse:
            payment_id = request.match_info["payment_id"]
            body: ReverseBody | UpstreamAnswer = ReverseBody()
            if request.can_read_body:
                body = await read_body(request, _decode_reversal)
            return await self._answer(
                request,
                "engine",
                "reverse",
                lambda fault: (
                    body if isinstance(body, UpstreamAnswer) else engine.reverse(payment_id, fault, body.reason)
                ),
            )

        return [
            web.post("/payments", self._posted("engine", "submit", SubmitBody, submit)),
            web.get("/payments/{payment_id}", look_up),
            web.post("/payments/{payment_id}/reverse", reverse),
        ]

    def _read(self, source: str) -> EndpointFunction:
        look_up = self._reader.look_up

        async def read(request: web.Request) -> web.StreamResponse:
            parameters = {**request.query, **request.match_info} if request.query_string else request.match_info
            return await self._answer(request, source, "read", lambda _: look_up(source, parameters))

        return read

    def _batch(self, source: str) -> EndpointFunction:
        def look_up_many(request: web.Request, body: object, fault: PaymentFault | None) -> UpstreamAnswer:
            return self._reader.look_up_many(source, body)

        return self._posted(source, "read", object, look_up_many)

    def _posted(
        self,
        source: str,
        call: str,
        shape: type[Shape],
        do: Callable[[web.Request, Shape, PaymentFault | None], UpstreamAnswer],
    ) -> EndpointFunction:
        decoder = msgspec.json.Decoder(shape)

        async def post(request: web.Request) -> web.StreamResponse:
            body = await read_body(request, decoder)
            return await self._answer(
                request,
                source,
                call,
                lambda fault: body if isinstance(body, UpstreamAnswer) else do(request, body, fault),
            )

        return post

    async def _answer(self, request: web.Request, source: str, call: str, work: Work) -> web.StreamResponse:
        """Do the work first, so that a client that disconnects leaves it done; then wait."""
        conditions = self._weather.draw_call(source, call)
        answer = perform(self._world, conditions, work)
        if conditions.latency_s:
            await asyncio.sleep(conditions.latency_s)
        if answer is None:
            return await respond_without_answer(request, CLIENT_VIEW[conditions.fault], self.closing)
        return (
            json_response(answer)
            if conditions.fault is None
            else await deliver(request, source, answer, conditions, self.closing)
        )
