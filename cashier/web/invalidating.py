"""`POST /v1/invalidate`: somebody says that something changed, and what is remembered of it goes. Not a hot route: Starlette."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import ClientDisconnect, Request

from cashier.fanout.second_level import Invalidated, SourceUnknown
from cashier.web.auth import Doorkeeper
from cashier.web.codec import refusal_of
from cashier.web.consulting import Engine
from cashier.web.headers import declares_more_than, is_json
from cashier.web.problem import Code, Fault, Refused

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


class Invalidating:
    """Serves invalidations, to whom and of what size and patience consultations are served too."""

    def __init__(
        self, engine: Callable[[], Engine | None], doorkeeper: Doorkeeper | None, body_limit_bytes: int, body_timeout_s: float
    ) -> None:
        self._engine = engine
        self._doorkeeper = doorkeeper
        self._body_limit_bytes = body_limit_bytes
        self._body_timeout_s = body_timeout_s

    def __repr__(self) -> str:
        return f"<Invalidating {'secured' if self._doorkeeper else 'for everybody'} body_limit_bytes={self._body_limit_bytes}>"

    async def __call__(self, request: Request) -> Invalidated:
        """Raises `Refused`."""
        engine = self._engine()
        if engine is None or not engine.ready:
            raise Refused(Code.NOT_READY, "The engine is not open.", headers=((b"retry-after", b"1"),))
        headers: dict[bytes, bytes] = dict(request.scope["headers"])
        if self._doorkeeper is not None:
            self._doorkeeper.admit(headers.get(b"authorization"), time())
        if not is_json(headers.get(b"content-type")) or headers.get(b"content-encoding", b"identity") != b"identity":
            accepted = ((b"accept", b"application/json"), (b"accept-encoding", b"identity"))
            raise Refused(Code.UNSUPPORTED_MEDIA_TYPE, "The body must be JSON, and not compressed.", headers=accepted)
        if declares_more_than(headers, self._body_limit_bytes):
            raise self._too_large()
        told = decoded(await self._body(request))
        try:
            return engine.invalidate(told.source, key=_or_none(told.key), prefix=_or_none(told.prefix))
        except SourceUnknown as unknown:
            raise _invalid(Fault("source", "UNKNOWN_VALUE", f"must be one of {', '.join(unknown.known)}")) from None

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                async for part in request.stream():
                    body += part
                    if len(body) > self._body_limit_bytes:
                        raise self._too_large()
        except (TimeoutError, ClientDisconnect):
            raise Refused(Code.BODY_TIMEOUT, "The body was not whole in time.", headers=((b"connection", b"close"),)) from None
        return bytes(body)

    def _too_large(self) -> Refused:
        return Refused(Code.TOO_LARGE, f"The body must not be larger than {self._body_limit_bytes} bytes.")


def decoded(body: bytes) -> Invalidation:
    """With exactly one of key and prefix. Raises `Refused`: MALFORMED, or INVALID, which names every field at fault."""
    try:
        if not body.isascii():
            body.decode()
        told = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal_of(body, error, _INVALIDATION) from None
    if told.key is UNSET and told.prefix is UNSET:
        raise _invalid(Fault("key", "MISSING", "is required, or prefix in its place"))
    if told.key is not UNSET and told.prefix is not UNSET:
        raise _invalid(Fault("prefix", "ONE_TOO_MANY", "must not be given beside key"))
    return told


def _or_none(text: str | UnsetType) -> str | None:
    return None if text is UNSET else text


def _invalid(fault: Fault) -> Refused:
    return Refused(Code.INVALID, f"{fault.field} {fault.message}", errors=(fault,))
