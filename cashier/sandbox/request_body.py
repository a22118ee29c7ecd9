"""Reads what clients send in a body, and refuses what is not what was agreed."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from cashier.sandbox.upstream_answer import UpstreamAnswer, error_answer

Shape = TypeVar("Shape")


async def read_body(request: web.Request, decoder: msgspec.json.Decoder[Shape]) -> Shape | UpstreamAnswer:
    """The body in its shape, or the answer that refuses it: 400, or 413 for one past the server's limit."""
    try:
        return decoder.decode(await request.read())
    except msgspec.DecodeError as broken:
        return error_answer(400, "MALFORMED", detail=str(broken))
    except web.HTTPRequestEntityTooLarge:
        return error_answer(413, "TOO_LARGE")
