"""Who may come in, and with what, where it is not the hot route: an open engine, a known bearer, JSON of a bounded size within a bounded
time. Answers nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import time

from starlette.requests import ClientDisconnect, Request

from cashier.web.auth import BearerAuth
from cashier.web.consult_endpoint import ConsultService
from cashier.web.problem import ProblemCode, RequestRefused
from cashier.web.request_headers import declared_length_exceeds, is_json
from cashier.web.response import RETRY_AFTER_1

_ACCEPTED = ((b"accept", b"application/json"), (b"accept-encoding", b"identity"))


class RequestGuard:
    """The same for every route behind it. `engine` is asked for at each request."""

    def __init__(
        self,
        engine: Callable[[], ConsultService | None],
        doorkeeper: BearerAuth | None,
        body_limit_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self._engine = engine
        self._doorkeeper = doorkeeper
        self._body_limit_bytes = body_limit_bytes
        self._body_timeout_s = body_timeout_s

    def __repr__(self) -> str:
        return f"<Admission {'secured' if self.secured else 'for everybody'} body_limit_bytes={self._body_limit_bytes}>"

    @property
    def secured(self) -> bool:
        """Whether callers have to say who they are."""
        return self._doorkeeper is not None

    def admit(self, headers: Mapping[bytes, bytes]) -> ConsultService:
        """Raises `RequestRefused`: NOT_READY, UNAUTHENTICATED or FORBIDDEN."""
        engine = self._engine()
        if engine is None or not engine.ready:
            raise RequestRefused(ProblemCode.NOT_READY, "The engine is not open.", headers=RETRY_AFTER_1)
        if self._doorkeeper is not None:
            self._doorkeeper.admit(headers.get(b"authorization"), time())
        return engine

    async def json(self, request: Request, headers: Mapping[bytes, bytes]) -> bytes:
        """The body, said to be JSON. Raises `RequestRefused`: UNSUPPORTED_MEDIA_TYPE, or as `body` does."""
        if not _says_json(headers):
            raise self._not_json()
        return await self.body(request, headers)

    async def json_or_nothing(self, request: Request, headers: Mapping[bytes, bytes]) -> bytes:
        """The same where a body may be left out. Of none at all, some clients say that it is octets."""
        body = await self.body(request, headers)
        if body and not _says_json(headers):
            raise self._not_json()
        return body

    async def body(self, request: Request, headers: Mapping[bytes, bytes]) -> bytes:
        """Raises `RequestRefused`: TOO_LARGE, or BODY_TIMEOUT, which a client that has gone does not hear."""
        if declared_length_exceeds(headers, self._body_limit_bytes):
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                async for part in request.stream():
                    body += part
                    if len(body) > self._body_limit_bytes:
                        raise self._too_large()
        except (TimeoutError, ClientDisconnect):
            raise RequestRefused(
                ProblemCode.BODY_TIMEOUT, "The body was not whole in time.", headers=((b"connection", b"close"),)
            ) from None
        return bytes(body)

    def _not_json(self) -> RequestRefused:
        return RequestRefused(
            ProblemCode.UNSUPPORTED_MEDIA_TYPE, "The body must be JSON, and not compressed.", headers=_ACCEPTED
        )

    def _too_large(self) -> RequestRefused:
        return RequestRefused(
            ProblemCode.TOO_LARGE, f"The body must not be larger than {self._body_limit_bytes} bytes."
        )


def _says_json(headers: Mapping[bytes, bytes]) -> bool:
    return is_json(headers.get(b"content-type")) and headers.get(b"content-encoding", b"identity") == b"identity"
