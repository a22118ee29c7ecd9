"""Admission of requests other than consultations.

Checks that the service is open, the caller, the page, and the body's type, size and time limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import time

from starlette.requests import ClientDisconnect, Request

from cashier.web.auth import BearerAuth
from cashier.web.caller import ANYONE, Caller, Owned, TokenScope, payer_of
from cashier.web.cross_origin import AllowedOrigins
from cashier.web.ports import ConsultService
from cashier.web.problem import Headers, Problem, ProblemCode, RequestRefused
from cashier.web.problem_text import localized
from cashier.web.rate_limit import CallerLimits
from cashier.web.request_headers import declared_length_exceeds, is_json
from cashier.web.response import ACCEPTED, CLOSE, RETRY_AFTER_1


class RequestGuard:
    """Shared by all endpoints behind it. Calls `service` for each request.

    `trusts_named_payers`: a caller without a token may say which payer it is.
    """

    def __init__(
        self,
        service: Callable[[], ConsultService | None],
        bearer_auth: BearerAuth | None,
        origins: AllowedOrigins,
        body_limit_bytes: int,
        body_timeout_s: float,
        *,
        trusts_named_payers: bool,
        limits: CallerLimits | None = None,
    ) -> None:
        self._service = service
        self._bearer_auth = bearer_auth
        self._origins = origins
        self._body_limit_bytes = body_limit_bytes
        self._body_timeout_s = body_timeout_s
        self._trusts_named_payers = trusts_named_payers
        self._limits = limits

    def __repr__(self) -> str:
        return f"<RequestGuard {'secured' if self.secured else 'open'} body_limit_bytes={self._body_limit_bytes}>"

    @property
    def secured(self) -> bool:
        """Whether callers need a bearer token."""
        return self._bearer_auth is not None

    def service(self) -> ConsultService:
        """Raises `RequestRefused`: NOT_READY."""
        service = self._service()
        if service is None or not service.ready:
            raise RequestRefused(ProblemCode.NOT_READY, "The service is not open.", headers=RETRY_AFTER_1)
        return service

    def localized(
        self, problem: Problem, wanted: str | None, headers: Mapping[bytes, bytes]
    ) -> tuple[Problem, Headers]:
        """As `problem_text.localized`."""
        return localized(problem, self._service(), wanted, headers)

    def admit(self, headers: Mapping[bytes, bytes], scope: TokenScope) -> Caller:
        """Raises `RequestRefused`: UNAUTHENTICATED or FORBIDDEN."""
        if self._bearer_auth is None:
            return ANYONE
        return self._bearer_auth.admit(headers.get(b"authorization"), scope, time())

    def admit_operator(self, headers: Mapping[bytes, bytes]) -> Caller:
        """The caller, which has the scope `operations`. Without authentication: a local program.

        A page has an origin, and no page asks: one from elsewhere may have rebound its name to this
        address. Raises `RequestRefused`: UNAUTHENTICATED, FORBIDDEN or ORIGIN_NOT_ALLOWED.
        """
        if self._bearer_auth is None and b"origin" in headers:
            raise RequestRefused(ProblemCode.ORIGIN_NOT_ALLOWED, "No web page may use this without a bearer token.")
        if self._bearer_auth is None and not self._trusts_named_payers:
            raise RequestRefused(
                ProblemCode.FORBIDDEN, "Without authentication this is served on loopback addresses only."
            )
        return self.admit(headers, TokenScope.OPERATIONS)

    def payer_of(self, caller: Caller, named: str | None) -> str:
        """The user that the caller is. Raises `RequestRefused`: see `caller.payer_of`."""
        return payer_of(caller, named, trusts_named=self._trusts_named_payers)

    def require_own(self, caller: Caller, headers: Mapping[bytes, bytes], owned: Callable[[], Owned]) -> None:
        """Refuse another's user, order or merchant, to the caller and to the page that it uses.

        Calls `owned` only for a bound caller or a page. Raises what it raises and `RequestRefused`:
        CALLER_MISMATCH, ORIGIN_NOT_ALLOWED.
        """
        if caller.is_bound or (self._origins.configured and b"origin" in headers):
            subject = owned()
            caller.require_own(subject)
            self._origins.require(headers, subject.merchant_id)

    def limit(self, owned: Owned) -> None:
        """Raises `RequestRefused`: RATE_LIMITED."""
        if self._limits is not None:
            self._limits.admit(owned)

    def refuse_other_origins(self, headers: Mapping[bytes, bytes]) -> None:
        """For what concerns all merchants. Raises `RequestRefused`: ORIGIN_NOT_ALLOWED."""
        self._origins.require(headers, None)

    async def json(self, request: Request, headers: Mapping[bytes, bytes]) -> bytes:
        """A body declared as JSON. Raises like `body`, and UNSUPPORTED_MEDIA_TYPE."""
        if not _declares_json(headers):
            raise self._not_json()
        return await self.body(request, headers)

    async def json_or_empty(self, request: Request, headers: Mapping[bytes, bytes]) -> bytes:
        """Like `json` for an optional body. Some clients label an empty body as an octet stream."""
        body = await self.body(request, headers)
        if body and not _declares_json(headers):
            raise self._not_json()
        return body

    async def body(self, request: Request, headers: Mapping[bytes, bytes]) -> bytes:
        """Raises `RequestRefused`: TOO_LARGE, or BODY_TIMEOUT, also if the client disconnected."""
        if declared_length_exceeds(headers, self._body_limit_bytes):
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._body_limit_bytes:
                        raise self._too_large()
        except (TimeoutError, ClientDisconnect):
            raise RequestRefused(
                ProblemCode.BODY_TIMEOUT, "The body was not complete in time.", headers=CLOSE
            ) from None
        return bytes(body)

    def _not_json(self) -> RequestRefused:
        return RequestRefused(
            ProblemCode.UNSUPPORTED_MEDIA_TYPE, "The body must be uncompressed JSON.", headers=ACCEPTED
        )

    def _too_large(self) -> RequestRefused:
        return RequestRefused(ProblemCode.TOO_LARGE, f"The body must not exceed {self._body_limit_bytes} bytes.")


def _declares_json(headers: Mapping[bytes, bytes]) -> bool:
    return is_json(headers.get(b"content-type")) and headers.get(b"content-encoding", b"identity") == b"identity"
