"""The sandbox as a server: one application, one port, and nothing left behind when it stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from cashier.sandbox.bank_endpoints import bank_routes
from cashier.sandbox.control_endpoints import ledger_routes, outside_routes, weather_routes
from cashier.sandbox.fault_injection import json_response
from cashier.sandbox.upstream_answer import error_answer
from cashier.sandbox.upstream_endpoints import UpstreamEndpoints
from cashier.sandbox.weather import Weather
from cashier.sandbox.weather_presets import weather_named
from cashier.sandbox.world import World

# What still waits out its weather when the server stops is cut off after this.
_SHUTDOWN_S = 0.2


def create_app(world: World, weather: Weather) -> web.Application:
    """The ten upstreams, the bank's pages and the sandbox's own paths.

    Give it a runner with `handler_cancellation=True` (`serve` does), else a hang lasts beyond its client, until the server stops.
    """
    upstreams = UpstreamEndpoints(world, weather)

    async def let_go(app: web.Application) -> None:
        upstreams.closing.set()

    app = web.Application()
    own = (
        *weather_routes(weather),
        *outside_routes(world),
        *ledger_routes(world),
        *bank_routes(world.engine, world.acquirer, world.population),
    )
    app.add_routes([*upstreams.routes(), *own, web.route("*", "/{path:.*}", _no_such_path)])
    app.on_shutdown.append(let_go)
    return app


@asynccontextmanager
async def serve(
    host: str = "127.0.0.1", port: int = 9100, *, world: World | None = None, weather: Weather | None = None
) -> AsyncIterator[int]:
    """Run the sandbox while the block lasts: `async with serve(port=0) as port`. Yields the bound port; 0 takes a free one.

    Without a world and a weather: the world of seed 1 in calm weather. Raises OSError where the port cannot be had. While it runs, payers
    are sent to its own pages.
    """
    world = world or World()
    app = create_app(world, weather or weather_named("calm"))
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
        bound: int = runner.addresses[0][1]
        # Nobody can call on all interfaces at once: a browser of this machine is told one of them.
        world.engine.address = f"http://{'127.0.0.1' if host in ('', '0.0.0.0', '::') else host}:{bound}"  # noqa: S104  compared, not bound
        yield bound
    finally:
        world.engine.address = None
        await runner.cleanup()


async def _no_such_path(request: web.Request) -> web.StreamResponse:
    return json_response(
        error_answer(404, "NO_SUCH_PATH", detail=f"{request.method} {request.path} is not a path of the contract")
    )
