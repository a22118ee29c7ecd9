"""Routes of the weather page, where a sandbox is configured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from cashier.ops.console.forms import FormRefused, read_form
from cashier.ops.console.rendering import WEATHER
from cashier.ops.console.routes import Console
from cashier.ops.console.sandbox_weather import FAULTS, SHARES_BPS, SandboxWeather, WeatherRefused
from cashier.ops.sessions import Sessions

Fields = dict[str, str]


def weather_routes(console: Console, sandbox: SandboxWeather, sessions: Sessions) -> Sequence[BaseRoute]:
    async def page(request: Request, status: int = 200, error: str = "") -> Response:
        weather = await sandbox.show()
        return console.render(
            request, "weather.html", WEATHER, status, weather=weather, sandbox=sandbox.url, faults=FAULTS, error=error
        )

    async def show(request: Request) -> Response:
        return await page(request)

    def acting(action: Callable[[SandboxWeather, Fields], Awaitable[None]]) -> Callable[[Request], Awaitable[Response]]:
        """Do what a form asks for, and show the weather again."""

        async def act(request: Request) -> Response:
            try:
                await action(sandbox, await read_form(request, sessions))
            except FormRefused as refused:
                return await page(request, refused.status, refused.text)
            except WeatherRefused as refused:
                return await page(request, 502, str(refused))
            return RedirectResponse(WEATHER.path, 303)

        return act

    return (
        Route(WEATHER.path, show, methods=["GET"]),
        Route(WEATHER.path, acting(_change), methods=["POST"]),
        Route(f"{WEATHER.path}/restore", acting(_restore), methods=["POST"]),
    )


async def _change(sandbox: SandboxWeather, fields: Fields) -> None:
    fault, share_bps, ms = fields.get("fault", ""), _whole(fields, "share_bps"), _whole(fields, "ms")
    if fault not in FAULTS or share_bps not in SHARES_BPS or ms > 60_000:
        raise FormRefused(400, "Choose source, fault and share from the lists, and at most 60000 ms.")
    await sandbox.change(_source(fields), fault, share_bps, ms)


async def _restore(sandbox: SandboxWeather, fields: Fields) -> None:
    """One source, or all if the form names none."""
    await sandbox.restore(_source(fields) if "source" in fields else None)


def _source(fields: Fields) -> str:
    """A name that is safe in a path. The sandbox knows which ones there are."""
    source = fields.get("source", "")
    if not source.isascii() or not source.isidentifier():
        raise FormRefused(400, "There is no such source.")
    return source


def _whole(fields: Fields, name: str) -> int:
    text = fields.get(name, "")
    if not text.isascii() or not text.isdecimal() or len(text) > 6:
        raise FormRefused(400, "Shares and times are whole numbers.")
    return int(text)
