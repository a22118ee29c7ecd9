"""Refuses what pages of other sites have a browser send to the operations port.

They could not read a response, but keep the port and its streams busy: a page anywhere reaches a
port on loopback, where no token is needed. A link from another site, such as a dashboard, opens.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

_REFUSAL = b"Another site sent this request.\n"
# Of every browser of today. Programs send none of these headers.
_OWN = frozenset((None, b"same-origin", b"none"))


class SiteGuard:
    """ASGI middleware, by Fetch Metadata (https://www.w3.org/TR/fetch-metadata/)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_of_another_site(scope):
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": _REFUSAL})
            return
        await self._app(scope, receive, send)


def _is_of_another_site(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    if headers.get(b"sec-fetch-site") in _OWN:
        return False
    is_link = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
    return not (is_link and scope["method"] == "GET")
