"""Logs of a service: one line per event to standard error, as JSON unless it is a terminal.

Importing this module changes nothing. A program that embeds the cashier configures structlog
itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer

# Tracebacks without local variables: these may hold tokens and answers to challenges.
_JSON_TRACEBACKS = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
_TERMINAL_TRACEBACKS = structlog.dev.RichTracebackFormatter(show_locals=False)


def configure_logs() -> None:
    timestamps = structlog.processors.TimeStamper(fmt="iso", utc=True)
    renderers: list[structlog.types.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=_TERMINAL_TRACEBACKS, pad_event_to=0)]
        if sys.stderr.isatty()
        else [_JSON_TRACEBACKS, structlog.processors.JSONRenderer(_encode)]
    )
    structlog.configure(
        processors=[structlog.processors.add_log_level, timestamps, *renderers],
        # One write per line: workers share the file, and `print` writes the line end separately.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


def _encode(event: Any, default: Callable[[Any], Any]) -> str:
    """`default`: what to write for a value that JSON cannot carry."""
    try:
        # A dataclass decides by its `repr` what may be logged.
        options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
        return orjson.dumps(event, default, options).decode()
    except orjson.JSONEncodeError:
        # An integer over 64 bits, a lone surrogate, a key that is no string: no line is lost.
        return json.dumps(event, default=default, separators=(",", ":"))
