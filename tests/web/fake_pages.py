"""Fake pages: they serve `/cashier/` and open sessions."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.types import Receive, Scope, Send

from cashier.domain.page_session import PageSession, SessionRequest, TillRequest

SESSION = PageSession("https://pay.example/cashier/o_1001?token=t", datetime(2026, 5, 1, 12, 10, tzinfo=UTC))


class FakePages:
    """`wanted`: the sessions that were asked for."""

    def __init__(self) -> None:
        self.wanted: list[SessionRequest | TillRequest] = []
        self.closed = 0

    def serves(self, path: str) -> bool:
        return path.startswith("/cashier/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    async def close(self) -> None:
        self.closed += 1

    def open_session(self, wanted: SessionRequest, scope: Scope) -> PageSession:
        self.wanted.append(wanted)
        return SESSION

    def open_till(self, wanted: TillRequest, scope: Scope) -> PageSession:
        self.wanted.append(wanted)
        return SESSION
