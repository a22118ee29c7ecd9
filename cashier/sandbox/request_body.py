"""Decodes request bodies and answers those that break the contract."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from cashier.sandbox.upstream_answer import UpstreamAnswer, error_answer

Shape = TypeVar("Shape")


async def read_body(request: web.Request, decoder: msgspec.json.Decoder[Shape]) -> Shape | UpstreamAnswer:
    """The decoded body, or the error answer: 400, or 413 above the server's limit."""
    try:
        return decoder.decode(await request.read())
    except msgspec.DecodeError as error:
        return error_answer(400, "MALFORMED", detail=str(error))
    except web.HTTPRequestEntityTooLarge:
        return error_answer(413, "TOO_LARGE")
