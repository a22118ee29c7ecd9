"""`POST /v1/invalidate`: somebody says that something changed, and what is remembered of it goes. Not a hot route: Starlette."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request

from cashier.fanout.l2.interface import Invalidated, SourceUnknown
from cashier.web import codec
from cashier.web.problem import FieldProblem, invalid
from cashier.web.request_guard import RequestGuard

# `(?![\s\S])` is the end of the text in Python and in JavaScript alike.
SourceName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?![\s\S])", description="1 to 64 of A-Za-z0-9_-")]
Key = Annotated[str, Meta(pattern=r"^[!-~]{1,256}(?![\s\S])", description="1 to 256 visible characters of ASCII")]
Prefix = Annotated[str, Meta(pattern=r"^[!-~]{0,256}(?![\s\S])", description="0 to 256 visible characters of ASCII")]


class Invalidation(Struct, frozen=True):
    """What changed: one answer of a source, `key`, or all whose keys begin with `prefix`, with an empty one all of the source."""

    source: SourceName
    key: Key | UnsetType = UNSET
    prefix: Prefix | UnsetType = UNSET


_decoder = msgspec.json.Decoder(Invalidation)
_INVALIDATION = msgspec.inspect.type_info(Invalidation)


class InvalidateEndpoint:
    """Serves invalidations, to whom and of what size and patience consultations are served too."""

    def __init__(self, admission: RequestGuard) -> None:
        self._admission = admission

    def __repr__(self) -> str:
        return f"<Invalidating {self._admission!r}>"

    async def __call__(self, request: Request) -> Invalidated:
        """Raises `Refused`."""
        headers: dict[bytes, bytes] = dict(request.scope["headers"])
        engine = self._admission.admit(headers)
        told = decode_invalidation(await self._admission.json(request, headers))
        try:
            return engine.invalidate(told.source, key=_or_none(told.key), prefix=_or_none(told.prefix))
        except SourceUnknown as unknown:
            raise invalid(
                FieldProblem("source", "UNKNOWN_VALUE", f"must be one of {', '.join(unknown.known)}")
            ) from None


def decode_invalidation(body: bytes) -> Invalidation:
    """With exactly one of key and prefix. Raises `Refused`: MALFORMED, or INVALID, which names every field at fault."""
    told = codec.decode(body, _decoder, _INVALIDATION)
    if told.key is UNSET and told.prefix is UNSET:
        raise invalid(FieldProblem("key", "MISSING", "is required, or prefix in its place"))
    if told.key is not UNSET and told.prefix is not UNSET:
        raise invalid(FieldProblem("prefix", "ONE_TOO_MANY", "must not be given beside key"))
    return told


def _or_none(text: str | UnsetType) -> str | None:
    return None if text is UNSET else text
