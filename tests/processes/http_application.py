"""A server elsewhere as an ASGI application: what a browser in process sends goes over a socket."""

from __future__ import annotations

from urllib.parse import urlsplit

import aiohttp
from starlette.types import Receive, Scope, Send
from yarl import URL

# Set by the client for itself.
_OWN = frozenset({b"host", b"content-length"})


class HttpApplication:
    """Follows no redirect and keeps no cookie: the browser does. Raises aiohttp.ClientError."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name.decode(), value.decode()) for name, value in scope["headers"] if name not in _OWN]
        query = scope["query_string"].decode()
        target = URL(f"{self.url}{scope['path']}{f'?{query}' if query else ''}", encoded=True)
        body = (await receive())["body"]
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.request(scope["method"], target, data=body, headers=headers, allow_redirects=False) as response,
        ):
            raw = [(name.lower(), value) for name, value in response.raw_headers]
            await send({"type": "http.response.start", "status": response.status, "headers": raw})
            await send({"type": "http.response.body", "body": await response.read()})

    async def link(self, **fields: str) -> str:
        """Of a page, without the address of the service, which may be another one by then."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/v1/cashier-sessions", json=fields) as response,
        ):
            parts = urlsplit((await response.json())["url"])
            return f"{parts.path}?{parts.query}"
