"""The lines of a service's log."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from cashier.domain.money import Money
from cashier.logs import configure_logs


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What goes to standard error, which is no terminal."""
    before = structlog.get_config()
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    configure_logs()
    yield stream
    structlog.configure(**before)


def only_line(written: io.StringIO) -> dict[str, Any]:
    line, rest = written.getvalue().split("\n")
    assert rest == ""
    document: dict[str, Any] = json.loads(line)
    return document


def test_an_event_is_one_line_of_json_with_its_fields_in_order(written: io.StringIO) -> None:
    structlog.get_logger("cashier").warning("two\nlines", source="カード", share=0.5, faults=("a", "b"), last=None)
    line = only_line(written)
    common = ["timestamp", "level", "event", "logger", "pid"]
    assert list(line) == [*common, "source", "share", "faults", "last"]
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() is not None
    fields = {"source": "カード", "share": 0.5, "faults": ["a", "b"], "last": None}
    assert line == fields | {"event": "two\nlines", "level": "warning", "logger": "cashier", "pid": os.getpid()}


def test_a_traceback_has_no_local_variables(written: io.StringIO) -> None:
    secret = "s3cr3t"
    try:
        raise ZeroDivisionError(len(secret))
    except ZeroDivisionError:
        structlog.get_logger().exception("failed")
    line = only_line(written)
    assert line["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert secret not in written.getvalue()


@dataclass
class Credentials:
    password: str

    def __repr__(self) -> str:
        return "<Credentials>"


@pytest.mark.parametrize(
    ("value", "logged"),
    [
        (Credentials("s3cr3t"), "<Credentials>"),
        (Money("CNY", 1), repr(Money("CNY", 1))),
        (datetime(2026, 1, 1, tzinfo=UTC), repr(datetime(2026, 1, 1, tzinfo=UTC))),
        ({1: "a"}, {"1": "a"}),
        (2**70, 2**70),
        ("\udcff", "\udcff"),
    ],
)
def test_a_value_that_is_no_json_does_not_lose_the_line(written: io.StringIO, value: object, logged: object) -> None:
    structlog.get_logger().info("event", value=value)
    assert only_line(written)["value"] == logged


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
