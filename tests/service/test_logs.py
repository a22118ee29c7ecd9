"""The log lines of a service on a terminal."""

from __future__ import annotations

import io
import re
import sys

import pytest
import structlog

from cashier.logs import configure_logs


def test_a_terminal_shows_the_fields_right_after_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", written)
    before = structlog.get_config()
    configure_logs()
    try:
        structlog.get_logger().warning("reloaded", fault="none")
    finally:
        structlog.configure(**before)
    line = re.sub(r"\x1b\[[\d;]*m", "", written.getvalue())
    assert line.endswith(" reloaded fault=none\n")
