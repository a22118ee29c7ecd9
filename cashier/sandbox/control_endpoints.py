"""The sandbox's own paths: its weather, its cases, and what people do outside of any upstream. No weather befalls these.

`GET /weather`, `PUT /weather/{source}`, `DELETE /weather[/{source}]`, `GET /cases`, `POST /payments/{payment_id}/settle` (the payer acts
at a bank, in a wallet, at a counter; `paid` for another sum than asked), `POST /orders/{order_id}/close` (the shop withdraws the order),
`GET /ledger` (every entry, and what the audit finds wrong), `GET /clock`, `POST /clock` (forward by `advance_s`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from cashier.sandbox.demo_cases import CASES
from cashier.sandbox.fault_injection import json_response
from cashier.sandbox.request_body import read_body
from cashier.sandbox.upstream_answer import UpstreamAnswer, error_answer
from cashier.sandbox.weather import Weather
from cashier.sandbox.weather_parser import BadWeather, parse_profile, parse_source
from cashier.sandbox.world import World


class SettleBody(msgspec.Struct, frozen=True):
    """What the payer did."""

    result: Literal["SUCCEEDED", "FAILED"]
    paid: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None


class AdvanceBody(msgspec.Struct, frozen=True):
    """How far time is to go. A year at most: whoever wants more asks again."""

    advance_s: Annotated[int, msgspec.Meta(ge=0, le=366 * 86_400)]


_anything = msgspec.json.Decoder(object)
_settlement = msgspec.json.Decoder(SettleBody)
_advance = msgspec.json.Decoder(AdvanceBody)


def weather_routes(weather: Weather) -> list[web.RouteDef]:
    async def show(request: web.Request) -> web.StreamResponse:
        return json_response(UpstreamAnswer(200, weather.to_json()))

    async def put(request: web.Request) -> web.StreamResponse:
        body = await read_body(request, _anything)
        return json_response(
            body if isinstance(body, UpstreamAnswer) else _changed(weather, request.match_info["source"], body)
        )

    async def restore(request: web.Request) -> web.StreamResponse:
        return json_response(_restored(weather, request.match_info.get("source")))

    return [
        web.get("/weather", show),
        web.put("/weather/{source}", put),
        web.delete("/weather", restore),
        web.delete("/weather/{source}", restore),
    ]


def outside_routes(world: World) -> list[web.RouteDef]:
    async def cases(request: web.Request) -> web.StreamResponse:
        return json_response(UpstreamAnswer(200, {name: case._asdict() for name, case in CASES.items()}))

    async def settle(request: web.Request) -> web.StreamResponse:
        body = await read_body(request, _settlement)
        world.catch_up()
        return json_response(
            body
            if isinstance(body, UpstreamAnswer)
            else world.engine.settle(request.match_info["payment_id"], body.result, body.paid)
        )

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
        web.post("/orders/{order_id}/close", close),
    ]


def ledger_routes(world: World) -> list[web.RouteDef]:
    async def ledger(request: web.Request) -> web.StreamResponse:
        world.catch_up()
        return json_response(UpstreamAnswer(200, {"entries": world.ledger.entries, "wrong": world.audit()}))

    async def clock(request: web.Request) -> web.StreamResponse:
        return json_response(_time(world))

    async def advance(request: web.Request) -> web.StreamResponse:
        body = await read_body(request, _advance)
        if isinstance(body, UpstreamAnswer):
            return json_response(body)
        world.clock.advance(timedelta(seconds=body.advance_s))
        world.catch_up()
        return json_response(_time(world))

    return [web.get("/ledger", ledger), web.get("/clock", clock), web.post("/clock", advance)]


def _time(world: World) -> UpstreamAnswer:
    return UpstreamAnswer(200, {"now": world.clock().isoformat(timespec="seconds"), "ahead_s": world.clock.ahead_s})


def _changed(weather: Weather, name: str, told: object) -> UpstreamAnswer:
    try:
        source = parse_source(name)
        weather.change(source, parse_profile(source, told, weather.start(source)))
    except BadWeather as bad:
        return _bad(bad)
    return UpstreamAnswer(200, {source: weather.profile(source).to_json()})


def _restored(weather: Weather, name: str | None) -> UpstreamAnswer:
    try:
        weather.restore(parse_source(name) if name else None)
    except BadWeather as bad:
        return _bad(bad)
    return UpstreamAnswer(200, weather.to_json())


def _bad(bad: BadWeather) -> UpstreamAnswer:
    return error_answer(400, "BAD_WEATHER", field=bad.field, detail=bad.detail, nearest=bad.nearest)
