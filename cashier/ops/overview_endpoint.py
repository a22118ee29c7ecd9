"""`GET /api/overview`: the JSON of `Overview`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cashier.ops.live_state import LiveState


def overview_routes(live: LiveState) -> Sequence[BaseRoute]:
    async def overview(_request: Request) -> Response:
        return Response(msgspec.json.encode(live.overview()), media_type="application/json")

    return (Route("/api/overview", overview),)
