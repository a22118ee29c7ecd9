"""`POST /v1/cashier-sessions`: gives a shop's back end the link of a cashier page."""

from __future__ import annotations

import msgspec
from starlette.requests import Request

from cashier.domain.page_session import PageSession, SessionRequest
from cashier.web import codec
from cashier.web.caller import TokenScope
from cashier.web.ports import PagesPort
from cashier.web.problem import ProblemCode, RequestRefused
from cashier.web.request_guard import RequestGuard

_decoder = msgspec.json.Decoder(SessionRequest)
_SESSION_REQUEST = msgspec.inspect.type_info(SessionRequest)


class SessionEndpoint:
    """Opens sessions of `pages`; None where the pages are not served."""

    def __init__(self, guard: RequestGuard, pages: PagesPort | None) -> None:
        self._guard = guard
        self._pages = pages

    def __repr__(self) -> str:
        return f"<SessionEndpoint {self._guard!r}>"

    async def __call__(self, request: Request) -> PageSession:
        """Raises `RequestRefused`."""
        headers: dict[bytes, bytes] = dict(request.scope["headers"])
        self._guard.service()
        caller = self._guard.admit(headers, TokenScope.SESSIONS)
        # The link is for a payer's browser, and no page of a browser may make one.
        self._guard.refuse_other_origins(headers)
        if self._pages is None:
            raise RequestRefused(ProblemCode.PAGES_NOT_CONFIGURED, "This service serves no cashier pages.")
        wanted = codec.decode(await self._guard.json(request, headers), _decoder, _SESSION_REQUEST)
        caller.require_own(wanted)
        return self._pages.open_session(wanted, request.scope)
