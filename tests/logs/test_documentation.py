"""The README has each event that the package logs, and each field of its lines."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cashier
from cashier import logs

PACKAGE = Path(cashier.__file__).parent
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
# Functions that take an event as their first argument and log it.
_LOGGING = {"log_step", "_info", "_warn", "warn"}
# Functions that take the level first, then the event.
_LOGGING_AT_A_LEVEL = {"log_event", "_log"}
_REASON_LOGS = {"_reasons"}
# An argument of those functions that is no field of the line: it becomes `exception`.
_NO_FIELDS = {"exc_info"}


def modules() -> Iterator[ast.Module]:
    for path in PACKAGE.rglob("*.py"):
        if not path.is_relative_to(PACKAGE / "cli"):
            yield ast.parse(path.read_text("utf-8"))


def events() -> Iterator[str]:
    for module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.Call):
                if node.args and _logs(node.func):
                    yield from _texts(node.args[0])
                if _name(node.func) in _LOGGING_AT_A_LEVEL:
                    yield from (text for argument in node.args[1:] for text in _texts(argument))
                yield from (
                    text for keyword in node.keywords if keyword.arg == "failure_log" for text in _texts(keyword.value)
                )


def fields() -> Iterator[str]:
    """Of all lines but those of other libraries."""
    try:
        raise ExceptionGroup("", [ValueError()])
    except ExceptionGroup as error:
        yield from line(logs._complete(logs._LineLogger(str, ""), "error", {"event": "", "exc_info": error}))
    yield from line(json.loads(logs._lost_lines(1)))
    for module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and _takes_fields(node):
                for keyword in node.keywords:
                    yield from _spread(keyword.value, module) if keyword.arg is None else (keyword.arg,)


def line(values: Any) -> Iterator[str]:
    """Names at any depth."""
    if isinstance(values, dict):
        yield from values
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from line(value)


def _takes_fields(call: ast.Call) -> bool:
    function = call.func
    if isinstance(function, ast.Attribute):
        owner = _name(function.value)
        if owner == "get_logger" and function.attr in _LEVELS:
            return True
        if function.attr == "record":
            return owner in _REASON_LOGS
    # Called with fields only: it adds the event.
    is_writer = _name(function) == "_write" and not call.args
    return _logs(function) or is_writer or _name(function) in _LOGGING_AT_A_LEVEL


def _spread(value: ast.expr, module: ast.Module) -> Iterator[str]:
    """The keys of `**value`: of what is assigned to it, or of what the called function makes.

    None of a parameter: its callers name them.
    """
    name = _name(value.func if isinstance(value, ast.Call) else value)
    for node in ast.walk(module):
        if isinstance(value, ast.Call) and isinstance(node, ast.FunctionDef) and node.name == name:
            yield from _keys(ast.Module(node.body, []))
        elif isinstance(node, ast.Assign) and name in map(_name, node.targets):
            yield from _keys(node.value)


def _keys(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Dict):
            yield from (key.value for key in part.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def _name(expression: ast.expr) -> str:
    """`c` of `a.b.c` and of `b.c(...)`."""
    match expression:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Call(func=function):
            return _name(function)
    return ""


def documented_fields() -> list[tuple[str, str]]:
    """Each field in the README's table, with its unit or form."""
    text = (PACKAGE / "logs" / "README.md").read_text("utf-8")
    table = text.partition("<!-- fields -->")[2].partition("<!-- end of fields -->")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.strip().splitlines()[2:]]
    return [(name, form) for names, form, _ in rows for name in re.findall(r"`(\w+)`", names)]


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


def test_the_table_has_each_field_and_no_other_one() -> None:
    found = set(fields()) - _NO_FIELDS
    assert {"payment_id", "elapsed_ms", "lineno", "lines", "verdicts", "times", "why", "coroutine"} <= found
    assert sorted(found) == sorted(name for name, _ in documented_fields())


def test_the_name_of_a_time_ends_with_its_unit() -> None:
    units = {name: re.search(r"_(ms|s)$", name) for name, _ in documented_fields()}
    assert units["elapsed_ms"] is not None
    for name, form in documented_fields():
        unit = units[name]
        assert form.partition(",")[0] == unit[1] if unit else form not in ("ms", "s"), name
