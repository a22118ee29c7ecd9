"""The sandbox as an HTTP server: one application on one port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from cashier.sandbox.bank_endpoints import bank_routes
from cashier.sandbox.control_endpoints import ledger_routes, people_routes, weather_routes
from cashier.sandbox.read_sources import Reader
from cashier.sandbox.response_faults import json_response
from cashier.sandbox.shop_endpoints import shop_routes, vault_routes
from cashier.sandbox.source_table import SOURCES
from cashier.sandbox.storefront_endpoints import storefront_routes
from cashier.sandbox.upstream_answer import error_answer
from cashier.sandbox.upstream_endpoints import UpstreamEndpoints
from cashier.sandbox.weather import Weather
from cashier.sandbox.weather_presets import weather_named
from cashier.sandbox.world import World

# Responses still delayed by the weather are cut off this long after the server stops.
_SHUTDOWN_S = 0.2


# By path, made when it is asked for: headers and body.
Documents = Mapping[str, Callable[[], tuple[Mapping[str, str], bytes]]]
_NO_DOCUMENTS: Documents = {}


def create_app(
    world: World,
    weather: Weather,
    sources: Collection[str] = tuple(SOURCES),
    documents: Documents = _NO_DOCUMENTS,
    reader: Reader | None = None,
) -> web.Application:
    """The upstreams, a shop, the pages of bank and vault, and the sandbox's own endpoints.

    `sources`: the upstreams that it serves; the paths of others do not exist. `documents`: served
    as they are, such as those of the contract. `reader`: answers for the upstreams that are only
    read, such as recorded ones, in the place of the world.

    Run it with `handler_cancellation=True`, as `serve` does. Otherwise a hanging call outlives its
    client until the server stops.
    """
    upstreams = UpstreamEndpoints(world, weather, reader)

    async def release_hanging(app: web.Application) -> None:
        upstreams.closing.set()

    app = web.Application()
    controls = (
        *weather_routes(weather),
        *people_routes(world),
        *ledger_routes(world),
        *bank_routes(world.engine, world.acquirer, world.population),
        *shop_routes(world.shop),
        *vault_routes(),
        *storefront_routes(world.storefront),
        *(web.get(path, _serve_document(document)) for path, document in documents.items()),
    )
    app.add_routes([*upstreams.routes(sources), *controls, web.route("*", "/{path:.*}", _no_such_path)])
    app.on_shutdown.append(release_hanging)
    return app


@asynccontextmanager
async def serve(
    host: str = "127.0.0.1",
    port: int = 9100,
    *,
    world: World | None = None,
    weather: Weather | None = None,
    sources: Collection[str] = tuple(SOURCES),
    documents: Documents = _NO_DOCUMENTS,
    reader: Reader | None = None,
) -> AsyncIterator[int]:
    """Run the sandbox for the block: `async with serve(port=0) as port`. Yields the bound port.

    Port 0 takes a free one. Default: the world of seed 1 in calm weather. While it runs, payers are
    sent to its own bank pages. `sources`, `documents`, `reader`: see `create_app`. Raises OSError
    if the port is taken.
    """
    world = world or World()
    app = create_app(world, weather or weather_named("calm"), sources, documents, reader)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
        bound: int = runner.addresses[0][1]
        # A browser cannot call the wildcard address, so the pages name the loopback address.
        name = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host  # noqa: S104  compared, not bound
        world.engine.address = f"http://{name}:{bound}"
        yield bound
    finally:
        world.engine.address = None
        await runner.cleanup()


def _serve_document(
    document: Callable[[], tuple[Mapping[str, str], bytes]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve_document(request: web.Request) -> web.StreamResponse:
        headers, body = await asyncio.to_thread(document)
        return web.Response(body=body, headers=headers)

    return serve_document


async def _no_such_path(request: web.Request) -> web.StreamResponse:
    return json_response(
        error_answer(404, "NO_SUCH_PATH", detail=f"{request.method} {request.path} is not a path of the contract")
    )
