"""The sandbox's own paths: its weather, its cases, and what people do outside of any upstream. No weather befalls these.

`GET /weather`, `PUT /weather/{source}`, `DELETE /weather[/{source}]`, `GET /cases`, `POST /payments/{payment_id}/settle` (the payer acts
at a bank, in a wallet, at a counter), `POST /orders/{order_id}/close` (the shop withdraws the order).
"""

from __future__ import annotations

from typing import Literal

import msgspec
from aiohttp import web

from cashier.sandbox.answers import Answer, refusal
from cashier.sandbox.bodies import read_body
from cashier.sandbox.cases import CASES
from cashier.sandbox.storm import plain
from cashier.sandbox.weather import Weather
from cashier.sandbox.weather_reading import BadWeather, read_forecast, source_named
from cashier.sandbox.world import World


class Settlement(msgspec.Struct, frozen=True):
    """What the payer did."""

    result: Literal["SUCCEEDED", "FAILED"]


_anything = msgspec.json.Decoder(object)
_settlement = msgspec.json.Decoder(Settlement)


def weather_routes(weather: Weather) -> list[web.RouteDef]:
    async def show(request: web.Request) -> web.StreamResponse:
        return plain(Answer(200, weather.told()))

    async def put(request: web.Request) -> web.StreamResponse:
        body = await read_body(request, _anything)
        return plain(body if isinstance(body, Answer) else _changed(weather, request.match_info["source"], body))

    async def restore(request: web.Request) -> web.StreamResponse:
        return plain(_restored(weather, request.match_info.get("source")))

    return [
        web.get("/weather", show),
        web.put("/weather/{source}", put),
        web.delete("/weather", restore),
        web.delete("/weather/{source}", restore),
    ]


def outside_routes(world: World) -> list[web.RouteDef]:
    async def cases(request: web.Request) -> web.StreamResponse:
        return plain(Answer(200, {name: case._asdict() for name, case in CASES.items()}))

    async def settle(request: web.Request) -> web.StreamResponse:
        body = await read_body(request, _settlement)
        return plain(body if isinstance(body, Answer) else world.engine.settle(request.match_info["payment_id"], body.result))

    async def close(request: web.Request) -> web.StreamResponse:
        order_id = request.match_info["order_id"]
        closed = world.acquirer.close(order_id)
        return plain(Answer(200, world.acquirer.result(order_id) or {}) if closed else refusal(409, "ORDER_NOT_OPEN"))

    return [
        web.get("/cases", cases),
        web.post("/payments/{payment_id}/settle", settle),
        web.post("/orders/{order_id}/close", close),
    ]


def _changed(weather: Weather, name: str, told: object) -> Answer:
    try:
        source = source_named(name)
        weather.change(source, read_forecast(source, told, weather.start(source)))
    except BadWeather as bad:
        return _bad(bad)
    return Answer(200, {source: weather.forecast(source).told()})


def _restored(weather: Weather, name: str | None) -> Answer:
    try:
        weather.restore(source_named(name) if name else None)
    except BadWeather as bad:
        return _bad(bad)
    return Answer(200, weather.told())


def _bad(bad: BadWeather) -> Answer:
    return refusal(400, "BAD_WEATHER", field=bad.field, detail=bad.detail, nearest=bad.nearest)
