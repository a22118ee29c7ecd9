"""A reload that fails, or comes while the service stops, leaves the service running."""

from __future__ import annotations

import signal
from types import TracebackType
from typing import cast

from structlog.testing import capture_logs

from cashier.asgi import open_and_reload, reload
from cashier.core import Cashier
from cashier.settings.schema import Configuration
from cashier.web.cross_origin import AllowedOrigins


async def test_a_bug_in_a_reload_is_logged_and_contained() -> None:
    def read() -> Configuration:
        raise ZeroDivisionError

    url = "http://127.0.0.1:1"
    names = ("order", "merchant", "member", "card", "balance", "channel", "quota")
    cashier = Cashier(config={"sources": {name: {"url": url} for name in names}, "tokens": {"secrets": ["s" * 40]}})
    with capture_logs() as logs:
        await reload(cashier, AllowedOrigins({}), read)
    assert [(log["event"], log["log_level"]) for log in logs] == [("configuration not reloaded", "error")]


def hang_up_is_blocked() -> bool:
    return signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ())


class SlowToClose:
    """Stands for a cashier with payments under way."""

    def __init__(self) -> None:
        self.blocked_at_close = False

    async def __aenter__(self) -> SlowToClose:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.blocked_at_close = hang_up_is_blocked()


async def test_a_hang_up_while_payments_under_way_end_does_not_end_the_process() -> None:
    """Nothing handles the signal any more, and by default it ends a process."""

    def read() -> Configuration:
        raise AssertionError("no signal came")

    cashier = SlowToClose()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # as the server does
    try:
        async with open_and_reload(cast("Cashier", cashier), AllowedOrigins({}), read):
            assert not hang_up_is_blocked()
        assert cashier.blocked_at_close
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
