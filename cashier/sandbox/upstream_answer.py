"""An upstream's answer before any weather has befallen it: a status and a body. Nothing of HTTP beyond the number."""

from __future__ import annotations

from typing import Any

import msgspec

from cashier.sandbox.contract_shapes import Json

_encode = msgspec.json.Encoder().encode


class UpstreamAnswer:
    """`body` is shared between all who ask the same: read it, do not change it. `encoded` is made once, when first wanted."""

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
            self._encoded = _encode(self.body)
        return self._encoded

    def with_wrong_identity(self, identity: str) -> UpstreamAnswer:
        """The same answer as if it were about somebody else: another value under the field `identity`, in a batch in every part."""
        if self.status != 200:
            return self
        if "answers" in self.body:
            return UpstreamAnswer(200, {"answers": [_mistaken_part(part, identity) for part in self.body["answers"]]})
        return UpstreamAnswer(200, _about_somebody_else(self.body, identity))


class BadInput(Exception):
    """A question that breaks the contract: the field at fault and what was expected of it. Ends as a 400."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: {expected}")
        self.field = field
        self.expected = expected

    def answer(self) -> UpstreamAnswer:
        return error_answer(400, "MALFORMED", field=self.field, detail=f"{self.field} must be {self.expected}")


def error_answer(status: int, code: str, **more: Any) -> UpstreamAnswer:
    """An answer that is not the thing asked for: `code` for machines, `more` beside it."""
    return UpstreamAnswer(status, {"code": code} | more)


def _mistaken_part(part: Json, identity: str) -> Json:
    return {"ok": _about_somebody_else(part["ok"], identity)} if "ok" in part else part


def _about_somebody_else(body: Json, identity: str) -> Json:
    return body | {identity: f"{body[identity]}_somebody_else"[-64:]} if identity in body else body
