"""Access to the operations port: for local users on loopback, beyond it by token and scope."""

from __future__ import annotations

from time import time

from starlette.types import ASGIApp, Receive, Scope, Send

from cashier.web.auth import BearerAuth
from cashier.web.caller import Caller, TokenScope
from cashier.web.problem import ProblemCode, RequestRefused, encode_problem

# A load balancer or kubelet has no token.
OPEN_PATHS = frozenset(("/healthz",))


class AccessGuard:
    """ASGI middleware in front of every route."""

    def __init__(self, app: ASGIApp, auth: BearerAuth | None) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                self.admit(dict(scope["headers"]))
            except RequestRefused as refused:
                await _send_refusal(send, refused)
                return
        await self._app(scope, receive, send)

    def admit(self, headers: dict[bytes, bytes]) -> None:
        """Raises `RequestRefused`."""
        if self._auth is not None:
            _require_unbound(self._auth.admit(headers.get(b"authorization"), TokenScope.OPERATIONS, time()))


def _require_unbound(caller: Caller) -> None:
    """Operators see the payments of every merchant, so a token of one does not suffice."""
    if caller.is_bound:
        raise RequestRefused(ProblemCode.FORBIDDEN, "The bearer token is bound to a user, order or merchant.")


async def _send_refusal(send: Send, refused: RequestRefused) -> None:
    headers = [(b"content-type", b"application/problem+json"), *refused.headers]
    await send({"type": "http.response.start", "status": refused.problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": encode_problem(refused.problem)})
