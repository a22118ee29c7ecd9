"""`GET /metrics`: the numbers of all workers in Prometheus' text format."""

from __future__ import annotations

import gzip
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cashier.metrics.exposition import CONTENT_TYPE, render
from cashier.ops.aggregation import WorkerStores


def metrics_routes(stores: WorkerStores) -> Sequence[BaseRoute]:
    async def metrics(request: Request) -> Response:
        body = render(stores.snapshot()).encode()
        headers = {"content-type": CONTENT_TYPE, "vary": "accept-encoding", "cache-control": "no-store"}
        if _takes_gzip(request.headers.get("accept-encoding", "")):
            body = gzip.compress(body, compresslevel=1, mtime=0)
            headers["content-encoding"] = "gzip"
        return Response(body, headers=headers)

    return (Route("/metrics", metrics),)


def _takes_gzip(accept: str) -> bool:
    """Whether an Accept-Encoding header permits gzip."""
    for part in accept.split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip().lower() == "gzip":
            return parameters.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
