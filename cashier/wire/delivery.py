"""How a call ends, for every transport: the words for what happened, and handing them to whoever asked."""

from __future__ import annotations

import asyncio

from cashier.source_errors import SourceError
from cashier.wire.transport import OnResponse, Response


def describe_failure(error: BaseException | None) -> str:
    """For operators: what broke a connection, without anything that went over it. None is an orderly close."""
    if error is None:
        return "closed before a whole answer"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return type(error).__name__


def deliver(reply: OnResponse, outcome: Response | SourceError) -> None:
    """Calls `reply`. What it raises is a bug of the asker and goes to the loop's exception handler, as a bug in any callback does."""
    try:
        reply(outcome)
    except Exception as bug:  # noqa: BLE001 — raised on, it would end a connection or keep the other calls from being told
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"a reply raised {type(bug).__name__}", "exception": bug}
        )
