"""The README has each event that the package logs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import cashier

PACKAGE = Path(cashier.__file__).parent
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
# Functions that take an event as their first argument and log it.
_LOGGING = {"log_step", "_info", "_warn", "warn"}


def events() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        if path.is_relative_to(PACKAGE / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                if node.args and _logs(node.func):
                    yield from _texts(node.args[0])
                yield from (
                    text for keyword in node.keywords if keyword.arg == "failure_log" for text in _texts(keyword.value)
                )


def _logs(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        is_logger = isinstance(function.value, ast.Name) and function.value.id == "_log"
        return (is_logger and function.attr in _LEVELS) or function.attr in _LOGGING
    return isinstance(function, ast.Name) and function.id in _LOGGING


def _texts(argument: ast.expr) -> Iterator[str]:
    if isinstance(argument, ast.IfExp):
        yield from _texts(argument.body)
        yield from _texts(argument.orelse)
    elif isinstance(argument, ast.Constant):
        yield str(argument.value)


def test_the_table_has_each_event() -> None:
    table = (PACKAGE / "logs" / "README.md").read_text("utf-8")
    found = set(events())
    assert len(found) > 50
    assert [event for event in sorted(found) if f"`{event}`" not in table] == []
