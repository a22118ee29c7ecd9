"""Sign-in by a bearer token that is pasted once, and sign-out. Only where the port needs tokens."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from cashier.ops.console.forms import FormRefused, cookie_name, cookie_of, is_on_loopback, read_form
from cashier.ops.console.rendering import Page
from cashier.ops.console.routes import Console
from cashier.ops.sessions import Sessions
from cashier.web.auth import BearerAuth
from cashier.web.caller import TokenScope
from cashier.web.problem import RequestRefused

PAGE = Page("sign-in", "/sign-in", "Sign in")
# A path of this port, and nothing that a browser would take for another site.
_PATH = re.compile(r"/(?:[A-Za-z0-9_-][A-Za-z0-9_./#-]*)?")


def sign_in_routes(console: Console, auth: BearerAuth, sessions: Sessions) -> Sequence[BaseRoute]:
    async def show(request: Request) -> Response:
        return page(request, 200, "", request.query_params.get("next", "/"))

    async def sign_in(request: Request) -> Response:
        client = request.client.host if request.client else ""
        if not sessions.may_try(client):
            return page(request, 429, "Too many attempts failed: wait a minute.", "/")
        fields: dict[str, str] = {}
        try:
            fields = await read_form(request, sessions)
            token = fields.get("token", "").strip().removeprefix("Bearer ").strip()
            caller = auth.admit(f"Bearer {token}".encode("latin-1", "replace"), TokenScope.OPERATIONS, time.time())
            if caller.is_bound:
                raise FormRefused(403, "This token is bound to a user, order or merchant: operators need another.")
        except FormRefused as refused:
            # Not a failed attempt: another site could send such forms, and lock its reader out.
            return page(request, refused.status, refused.text, fields.get("next", "/"))
        except RequestRefused as refused:
            sessions.note_failure(client)
            status = refused.problem.status
            return page(request, status, f"{refused.problem.detail}", fields.get("next", "/"))
        cookie, life_s = sessions.open(caller.expires_at)
        response = RedirectResponse(_safe_path(fields.get("next", "/")), 303)
        response.set_cookie(
            cookie_name(request),
            cookie,
            max_age=life_s,
            path="/",
            secure=not is_on_loopback(request),
            httponly=True,
            samesite="strict",
        )
        return response

    async def sign_out(request: Request) -> Response:
        try:
            await read_form(request, sessions)
        except FormRefused as refused:
            return page(request, refused.status, refused.text, "/")
        sessions.close(cookie_of(request))
        response = RedirectResponse(PAGE.path, 303)
        response.delete_cookie(
            cookie_name(request), path="/", secure=not is_on_loopback(request), httponly=True, samesite="strict"
        )
        return response

    def page(request: Request, status: int, error: str, path: str) -> Response:
        insecure = request.url.scheme != "https" and not is_on_loopback(request)
        return console.render(
            request, "sign_in.html", PAGE, status, pages=(), error=error, next=_safe_path(path), insecure=insecure
        )

    return (
        Route(PAGE.path, show, methods=["GET"]),
        Route(PAGE.path, sign_in, methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
    )


def _safe_path(path: str) -> str:
    return path if _PATH.fullmatch(path) else "/"
