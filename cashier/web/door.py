"""The door as an ASGI application: the hot route first, everything else through Starlette. Mountable under any path, on any ASGI server.

Knows nothing of how the engine is built; it is handed one, or a way to open one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from starlette.types import Receive, Scope, Send

from cashier.web.auth import Doorkeeper
from cashier.web.consulting import Consulting, Engine
from cashier.web.pages import Readiness, pages

OpenCashier: TypeAlias = Callable[[], AbstractAsyncContextManager[Engine]]

CONSULT_PATH = "/v1/consult"
BODY_LIMIT_BYTES = 65_536
BODY_TIMEOUT_S = 10.0


class Door:
    """The ASGI application. `draining` is set by the server that stops: from then on `/readyz` says no."""

    def __init__(
        self,
        engine: Engine | None,
        open_cashier: OpenCashier | None,
        doorkeeper: Doorkeeper | None,
        body_limit_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self.draining = False
        self._engine = engine
        self._open_cashier = open_cashier
        self._consulting = Consulting(doorkeeper, body_limit_bytes, body_timeout_s)
        self._pages = pages(self._readiness, body_limit_bytes, secured=doorkeeper is not None)

    def __repr__(self) -> str:
        return f"<Door {self._readiness().value} {self._consulting!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            # Mounted, the path comes whole and `root_path` says how much of it is not ours.
            if path == CONSULT_PATH or path == scope.get("root_path", "") + CONSULT_PATH:
                await self._consulting.serve(self._engine, scope, receive, send)
                return
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        await self._pages(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """The server's life. An engine that was handed in open is its owner's to close."""
        await receive()
        if self._open_cashier is None:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        else:
            async with self._open_cashier() as engine:
                self._engine = engine
                await send({"type": "lifespan.startup.complete"})
                await receive()
                self._engine = None
        await send({"type": "lifespan.shutdown.complete"})

    def _readiness(self) -> Readiness:
        if self.draining:
            return Readiness.DRAINING
        if self._engine is None or not self._engine.ready:
            return Readiness.STARTING
        return Readiness.READY


def app(
    cashier: Engine,
    *,
    doorkeeper: Doorkeeper | None = None,
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    body_timeout_s: float = BODY_TIMEOUT_S,
) -> Door:
    """A door to an engine that is open, and stays its owner's: `app.mount("/pay", cashier.web.app(engine))`.

    No `doorkeeper`: everybody may ask. A body larger than `body_limit_bytes` is refused, one not whole after `body_timeout_s` too.
    """
    return Door(cashier, None, doorkeeper, body_limit_bytes, body_timeout_s)


def owning_app(
    open_cashier: OpenCashier,
    *,
    doorkeeper: Doorkeeper | None = None,
    body_limit_bytes: int = BODY_LIMIT_BYTES,
    body_timeout_s: float = BODY_TIMEOUT_S,
) -> Door:
    """A door that opens its engine when the server starts and closes it when the server has stopped (ASGI lifespan)."""
    return Door(None, open_cashier, doorkeeper, body_limit_bytes, body_timeout_s)
