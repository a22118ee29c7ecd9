"""Logs of a service: one line per event to standard error, as JSON unless it is a terminal.

Importing this package changes nothing. A program that embeds the cashier configures structlog
itself. `README.md` has the table of events and fields.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
import structlog

from cashier.logs.exception_text import exception_chain, format_chain
from cashier.logs.line_writer import line_writer
from cashier.logs.standard_library import StructuredHandler

LogLevel = Literal["debug", "info", "warning", "error"]

_TERMINAL = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback, pad_event_to=0)
_LOST_LINES = "log lines were lost"


def configure_logs() -> None:
    """Send the records of this process to standard error, those of other libraries too.

    No caller waits for a slow or broken standard error: see `LineWriter`. Until `set_log_level`,
    the level is info.
    """
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    structlog.configure(
        processors=[_complete, _terminal_line if is_terminal else _json_line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=_LineLogger.factory(_line_sink()),
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, StructuredHandler)]
    root.addHandler(StructuredHandler())


def log_event(logger: Any, level: str, event: str, **fields: Any) -> None:
    """Log what is no trouble. Silent in a program that has not configured structlog."""
    if level in ("warning", "error") or structlog.is_configured():
        getattr(logger, level)(event, **fields)


def set_log_level(level: LogLevel) -> None:
    """Leave out events below `level`. Other libraries report warnings and errors at any level."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(threshold))


def _line_sink() -> Callable[[str], Any]:
    stream = sys.stderr
    if stream is None:
        return lambda _: None
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return lambda line: stream.write(line + "\n")  # no file: a test's buffer
    return line_writer(descriptor, _lost_lines).write


class _LineLogger:
    """What structlog calls with a rendered line, by the name of the level."""

    def __init__(self, sink: Callable[[str], Any], name: str) -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = sink

    @classmethod
    def factory(cls, sink: Callable[[str], Any]) -> Callable[..., _LineLogger]:
        return lambda name="": cls(sink, name)


def _complete(logger: _LineLogger, level: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """What each line has. A `pid` or `logger` among the fields of the event takes precedence."""
    common = {
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": level,
        "event": event.pop("event", ""),
        "logger": logger.name,
        "pid": os.getpid(),
    }
    raised = event.pop("exc_info", None)
    if raised:
        event["exception"] = exception_chain(raised)
    return {**common, **event}


def _terminal_line(logger: _LineLogger, level: str, event: structlog.types.EventDict) -> str:
    del event["pid"], event["logger"]
    if "exception" in event:
        event["exception"] = format_chain(event["exception"])
    return str(_TERMINAL(logger, level, event))


def _json_line(_logger: _LineLogger, _level: str, event: structlog.types.EventDict) -> str:
    return encode_line(event)


def encode_line(event: Mapping[str, Any]) -> str:
    """Raises nothing: no value may take the line, or a request, with it."""
    try:
        # A dataclass decides by its `repr` what may be logged.
        options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
        return orjson.dumps(event, _described, options).decode()
    except Exception:  # noqa: BLE001 - e.g. an integer over 64 bits, a lone surrogate, a key that is no string
        return _encode_odd(event)


def _encode_odd(event: Mapping[str, Any]) -> str:
    try:
        return json.dumps(event, default=_described, separators=(",", ":"))
    except Exception:  # noqa: BLE001 - e.g. a structure within itself
        return json.dumps({key: value if isinstance(value, str | int) else "?" for key, value in event.items()})


def _described(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - any object may be in a log call
        return f"<{type(value).__name__}>"


def _lost_lines(count: int) -> str:
    return encode_line(_complete(_LineLogger(str, "cashier.logs"), "error", {"event": _LOST_LINES, "lines": count}))
