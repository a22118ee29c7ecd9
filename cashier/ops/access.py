"""Access to the operations port: for local users on loopback, beyond it by token and scope.

Programs send the token with each request. A browser signs in with it once and has a session.
"""

from __future__ import annotations

from time import time
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cashier.ops.console.forms import cookie_of
from cashier.ops.sessions import Sessions
from cashier.web.auth import BearerAuth
from cashier.web.caller import Caller, TokenScope
from cashier.web.problem import ProblemCode, RequestRefused, encode_problem

# A load balancer or kubelet has no token. The sign-in page takes one.
OPEN_PATHS = frozenset(("/healthz", "/sign-in", "/assets/console.css", "/assets/console.js", "/assets/icon.svg"))


class AccessGuard:
    """ASGI middleware in front of every route."""

    def __init__(self, app: ASGIApp, auth: BearerAuth | None, sessions: Sessions) -> None:
        self._app = app
        self._auth = auth
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                self.admit(Request(scope))
            except RequestRefused as refused:
                if _is_browser(Request(scope)):
                    await RedirectResponse(f"/sign-in?next={quote(scope['path'])}", 303)(scope, receive, send)
                else:
                    await _send_refusal(send, refused)
                return
        await self._app(scope, receive, send)

    def admit(self, request: Request) -> None:
        """Raises `RequestRefused`. A token counts before a session."""
        if self._auth is None:
            return
        authorization = request.headers.get("authorization")
        if authorization is None and self._sessions.is_open(cookie_of(request)):
            return
        token = None if authorization is None else authorization.encode("latin-1")
        _require_unbound(self._auth.admit(token, TokenScope.OPERATIONS, time()))


def _require_unbound(caller: Caller) -> None:
    """Operators see the payments of every merchant, so a token of one does not suffice."""
    if caller.is_bound:
        raise RequestRefused(ProblemCode.FORBIDDEN, "The bearer token is bound to a user, order or merchant.")


def _is_browser(request: Request) -> bool:
    """Whether a person looks at a page, who can sign in."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


async def _send_refusal(send: Send, refused: RequestRefused) -> None:
    headers = [(b"content-type", b"application/problem+json"), *refused.headers]
    await send({"type": "http.response.start", "status": refused.problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": encode_problem(refused.problem)})
