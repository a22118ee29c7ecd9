"""An upstream's answer before any fault is applied: a status code and a JSON body."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import orjson
from aiohttp import web

from cashier.sandbox.records import Json


class UpstreamAnswer:
    """`body` is shared between equal requests: do not change it. `encoded` is made on demand."""

    __slots__ = ("_encoded", "body", "status")

    def __init__(self, status: int, body: Json) -> None:
        self.status = status
        self.body = body
        self._encoded: bytes | None = None

    def __repr__(self) -> str:
        return f"Answer({self.status}, {self.body!r})"

    @property
    def encoded(self) -> bytes:
        if self._encoded is None:
            self._encoded = orjson.dumps(self.body)
        return self._encoded

    def with_wrong_identity(self, identity: str | None) -> UpstreamAnswer:
        """The same answer about another entity: another value in the field `identity`, if any.

        In a batch answer this applies to every part.
        """
        if self.status != 200 or identity is None:
            return self
        if "answers" in self.body:
            return UpstreamAnswer(
                200, {"answers": [_part_with_wrong_identity(part, identity) for part in self.body["answers"]]}
            )
        return UpstreamAnswer(200, _body_with_wrong_identity(self.body, identity))


class BadInput(Exception):
    """A request that breaks the contract: the wrong field and what it must be. Becomes a 400."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: {expected}")
        self.field = field
        self.expected = expected

    def answer(self) -> UpstreamAnswer:
        return error_answer(400, "MALFORMED", field=self.field, detail=f"{self.field} must be {self.expected}")


def error_answer(status: int, code: str, **fields: Any) -> UpstreamAnswer:
    """An error answer: `code` for programs and further fields."""
    return UpstreamAnswer(status, {"code": code} | fields)


def _part_with_wrong_identity(part: Json, identity: str) -> Json:
    return {"ok": _body_with_wrong_identity(part["ok"], identity)} if "ok" in part else part


def _body_with_wrong_identity(body: Json, identity: str) -> Json:
    return body | {identity: f"{body[identity]}_somebody_else"[-64:]} if identity in body else body


Shape = TypeVar("Shape")


async def read_body(request: web.Request, decoder: msgspec.json.Decoder[Shape]) -> Shape | UpstreamAnswer:
    """The decoded body, or the error answer: 400, or 413 above the server's limit."""
    try:
        return decoder.decode(await request.read())
    except msgspec.DecodeError as error:
        return error_answer(400, "MALFORMED", detail=str(error))
    except web.HTTPRequestEntityTooLarge:
        return error_answer(413, "TOO_LARGE")
