"""`POST /v1/cashier-sessions` and `POST /v1/till-sessions`: the links of pages, for a shop."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from starlette.requests import Request

from cashier.domain.page_session import PageSession, SessionRequest, TillRequest
from cashier.web import codec
from cashier.web.caller import Caller, TokenScope
from cashier.web.ports import PagesPort
from cashier.web.problem import ProblemCode, RequestRefused
from cashier.web.request_guard import RequestGuard

_decoder = msgspec.json.Decoder(SessionRequest)
_till_decoder = msgspec.json.Decoder(TillRequest)
_SESSION_REQUEST, _TILL_REQUEST = map(msgspec.inspect.type_info, (SessionRequest, TillRequest))
Wanted = TypeVar("Wanted", SessionRequest, TillRequest)


class SessionEndpoint:
    """Opens sessions of `pages`; None where the pages are not served."""

    def __init__(self, guard: RequestGuard, pages: PagesPort | None) -> None:
        self._guard = guard
        self._pages = pages

    def __repr__(self) -> str:
        return f"<SessionEndpoint {self._guard!r}>"

    async def open_session(self, request: Request) -> PageSession:
        """Raises `RequestRefused`."""
        pages, caller = self._admit(request)
        wanted = await self._read(request, _decoder, _SESSION_REQUEST)
        caller.require_own(wanted)
        return pages.open_session(wanted, request.scope)

    async def open_till(self, request: Request) -> PageSession:
        """Raises `RequestRefused`."""
        pages, caller = self._admit(request)
        wanted = await self._read(request, _till_decoder, _TILL_REQUEST)
        caller.require_merchant(wanted.merchant_id)
        return pages.open_till(wanted, request.scope)

    def _admit(self, request: Request) -> tuple[PagesPort, Caller]:
        headers = dict(request.scope["headers"])
        self._guard.service()
        caller = self._guard.admit(headers, TokenScope.SESSIONS)
        # The link is for one browser, and no page of a browser may make one.
        self._guard.refuse_other_origins(headers)
        if self._pages is None:
            raise RequestRefused(ProblemCode.PAGES_NOT_CONFIGURED, "This service serves no cashier pages.")
        return self._pages, caller

    async def _read(
        self, request: Request, decoder: msgspec.json.Decoder[Wanted], type_info: msgspec.inspect.Type
    ) -> Wanted:
        return codec.decode(await self._guard.json(request, dict(request.scope["headers"])), decoder, type_info)
