"""`POST /v1/invalidate`: drops cached answers of a source."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request

from cashier.fanout.l2.interface import Invalidated, SourceUnknown
from cashier.web import codec
from cashier.web.caller import TokenScope
from cashier.web.problem import FieldProblem, invalid
from cashier.web.request_guard import RequestGuard

# `(?![\s\S])` is the end of the text in Python and in JavaScript alike.
SourceName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?![\s\S])", description="1 to 64 of A-Za-z0-9_-")]
Key = Annotated[str, Meta(pattern=r"^[!-~]{1,256}(?![\s\S])", description="1 to 256 visible ASCII characters")]
Prefix = Annotated[str, Meta(pattern=r"^[!-~]{0,256}(?![\s\S])", description="0 to 256 visible ASCII characters")]


class Invalidation(Struct, frozen=True):
    """What to drop: the answer of one `key`, or of all keys with `prefix` (empty: all keys).

    A prefix that ends in `/` covers whole segments: `u_1/` covers `u_1` and `u_1/CNY`, not `u_10`.
    """

    source: SourceName
    key: Key | UnsetType = UNSET
    prefix: Prefix | UnsetType = UNSET


_decoder = msgspec.json.Decoder(Invalidation)
_INVALIDATION = msgspec.inspect.type_info(Invalidation)


class InvalidateEndpoint:
    """Serves invalidations, with the authentication and body limits of consultations."""

    def __init__(self, guard: RequestGuard) -> None:
        self._guard = guard

    def __repr__(self) -> str:
        return f"<InvalidateEndpoint {self._guard!r}>"

    async def __call__(self, request: Request) -> Invalidated:
        """Raises `RequestRefused`."""
        headers: dict[bytes, bytes] = dict(request.scope["headers"])
        service = self._guard.service()
        self._guard.admit(headers, TokenScope.INVALIDATE)
        self._guard.refuse_other_origins(headers)
        invalidation = decode_invalidation(await self._guard.json(request, headers))
        try:
            return await service.ainvalidate(
                invalidation.source, key=_or_none(invalidation.key), prefix=_or_none(invalidation.prefix)
            )
        except SourceUnknown as unknown:
            raise invalid(
                FieldProblem("source", "UNKNOWN_VALUE", f"must be one of {', '.join(unknown.known)}")
            ) from None


def decode_invalidation(body: bytes) -> Invalidation:
    """Requires exactly one of key and prefix.

    Raises `RequestRefused`: MALFORMED, or INVALID with every invalid field.
    """
    invalidation = codec.decode(body, _decoder, _INVALIDATION)
    if invalidation.key is UNSET and invalidation.prefix is UNSET:
        raise invalid(FieldProblem("key", "MISSING", "is required unless prefix is given"))
    if invalidation.key is not UNSET and invalidation.prefix is not UNSET:
        raise invalid(FieldProblem("prefix", "ONE_TOO_MANY", "must not be given together with key"))
    return invalidation


def _or_none(text: str | UnsetType) -> str | None:
    return None if text is UNSET else text
