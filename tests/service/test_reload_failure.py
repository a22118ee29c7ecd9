"""A reload that fails leaves the service running."""

from __future__ import annotations

from typing import cast

from structlog.testing import capture_logs

from cashier.asgi import reload
from cashier.core import Cashier
from cashier.settings.schema import Configuration
from cashier.web.cross_origin import AllowedOrigins


async def test_a_bug_in_a_reload_is_logged_and_contained() -> None:
    def read() -> Configuration:
        raise ZeroDivisionError

    with capture_logs() as logs:
        await reload(cast("Cashier", None), AllowedOrigins({}), read)
    assert [(log["event"], log["log_level"]) for log in logs] == [("configuration not reloaded", "error")]
