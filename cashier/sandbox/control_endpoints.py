"""The sandbox's own endpoints: weather, cases, people's actions, ledger, clock. No faults apply.

`GET /weather`, `PUT /weather/{source}`, `DELETE /weather[/{source}]`, `GET /cases`,
`POST /payments/{payment_id}/settle` (the payer acts at a bank, in a wallet or at a counter; `paid`
for a sum other than the amount due), `POST /payments/{payment_id}/correct` (the bank finds money
after a failure), `PUT /channels/{channel_id}` (other terms or another status from now on),
`POST /orders/{order_id}/close` (the shop withdraws the order), `GET /ledger` (all entries and the
audit's violations), `GET /clock`, `POST /clock` (forward by `advance_s`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from cashier.sandbox.demo_cases import CASES
from cashier.sandbox.response_faults import json_response
from cashier.sandbox.risk import Amount
from cashier.sandbox.upstream_answer import UpstreamAnswer, error_answer, read_body
from cashier.sandbox.weather import Weather
from cashier.sandbox.weather_parser import BadWeather, parse_profile, parse_source
from cashier.sandbox.world import World

Bps = Annotated[int, msgspec.Meta(ge=0, le=10_000)]


class SettleBody(msgspec.Struct, frozen=True):
    """The body of `POST /payments/{payment_id}/settle`. `paid` in minor units."""

    result: Literal["SUCCEEDED", "FAILED"]
    paid: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None


class AdvanceBody(msgspec.Struct, frozen=True):
    """The body of `POST /clock`. At most a leap year per call."""

    advance_s: Annotated[int, msgspec.Meta(ge=0, le=366 * 86_400)]


class Term(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    term_id: str
    count: Annotated[int, msgspec.Meta(ge=2)]
    fee_bps: Bps
    apr_bps: Annotated[int, msgspec.Meta(ge=0)]


class ChannelBody(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The body of `PUT /channels/{channel_id}`. Absent fields stay as they are."""

    status: Literal["OPEN", "CLOSED", "MAINTENANCE"] | None = None
    fee_bps: Bps | None = None
    step: Annotated[int, msgspec.Meta(ge=1)] | None = None
    min: Amount | None = None
    max: Amount | None = None
    terms: tuple[Term, ...] | None = None


_decode_any = msgspec.json.Decoder(object)
_decode_settle = msgspec.json.Decoder(SettleBody)
_decode_channel = msgspec.json.Decoder(ChannelBody)
_decode_advance = msgspec.json.Decoder(AdvanceBody)


def weather_routes(weather: Weather) -> list[web.RouteDef]:
    async def show(request: web.Request) -> web.StreamResponse:
        return json_response(UpstreamAnswer(200, weather.to_json()))

    async def put(request: web.Request) -> web.StreamResponse:
        body = await read_body(request, _decode_any)
        return json_response(
            body if isinstance(body, UpstreamAnswer) else _change(weather, request.match_info["source"], body)
        )

    async def restore(request: web.Request) -> web.StreamResponse:
        return json_response(_restore(weather, request.match_info.get("source")))

    return [
        web.get("/weather", show),
        web.put("/weather/{source}", put),
        web.delete("/weather", restore),
        web.delete("/weather/{source}", restore),
    ]


def people_routes(world: World) -> list[web.RouteDef]:
    async def cases(request: web.Request) -> web.StreamResponse:
        return json_response(UpstreamAnswer(200, {name: case._asdict() for name, case in CASES.items()}))

    async def settle(request: web.Request) -> web.StreamResponse:
        body = await read_body(request, _decode_settle)
        world.catch_up()
        return json_response(
            body
            if isinstance(body, UpstreamAnswer)
            else world.engine.settle(request.match_info["payment_id"], body.result, body.paid)
        )

    async def correct(request: web.Request) -> web.StreamResponse:
        world.catch_up()
        return json_response(world.engine.correct(request.match_info["payment_id"]))

    async def change_channel(request: web.Request) -> web.StreamResponse:
        body = await read_body(request, _decode_channel)
        if isinstance(body, UpstreamAnswer):
            return json_response(body)
        changed = world.population.change_channel(request.match_info["channel_id"], **msgspec.to_builtins(body))
        return json_response(UpstreamAnswer(200, changed) if changed else error_answer(404, "CHANNEL_UNKNOWN"))

    async def close(request: web.Request) -> web.StreamResponse:
        order_id = request.match_info["order_id"]
        world.catch_up()
        closed = world.acquirer.close(order_id)
        return json_response(
            UpstreamAnswer(200, world.acquirer.result(order_id) or {})
            if closed
            else error_answer(409, "ORDER_NOT_OPEN")
        )

    return [
        web.get("/cases", cases),
        web.post("/payments/{payment_id}/settle", settle),
        web.post("/payments/{payment_id}/correct", correct),
        web.put("/channels/{channel_id}", change_channel),
        web.post("/orders/{order_id}/close", close),
    ]


def ledger_routes(world: World) -> list[web.RouteDef]:
    async def ledger(request: web.Request) -> web.StreamResponse:
        world.catch_up()
        return json_response(
            UpstreamAnswer(200, {"entries": msgspec.to_builtins(world.ledger.entries), "wrong": world.audit()})
        )

    async def clock(request: web.Request) -> web.StreamResponse:
        return json_response(_time(world))

    async def advance(request: web.Request) -> web.StreamResponse:
        body = await read_body(request, _decode_advance)
        if isinstance(body, UpstreamAnswer):
            return json_response(body)
        world.clock.advance(timedelta(seconds=body.advance_s))
        world.catch_up()
        return json_response(_time(world))

    return [web.get("/ledger", ledger), web.get("/clock", clock), web.post("/clock", advance)]


def _time(world: World) -> UpstreamAnswer:
    return UpstreamAnswer(200, {"now": world.clock().isoformat(timespec="seconds"), "ahead_s": world.clock.ahead_s})


def _change(weather: Weather, name: str, body: object) -> UpstreamAnswer:
    try:
        source = parse_source(name)
        weather.change(source, parse_profile(source, body, weather.start(source)))
    except BadWeather as bad:
        return _bad_weather(bad)
    return UpstreamAnswer(200, {source: weather.profile(source).to_json()})


def _restore(weather: Weather, name: str | None) -> UpstreamAnswer:
    try:
        weather.restore(parse_source(name) if name else None)
    except BadWeather as bad:
        return _bad_weather(bad)
    return UpstreamAnswer(200, weather.to_json())


def _bad_weather(bad: BadWeather) -> UpstreamAnswer:
    return error_answer(400, "BAD_WEATHER", field=bad.field, detail=bad.detail, nearest=bad.nearest)
