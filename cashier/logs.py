"""How a service of ours logs: one line an event to standard error, as JSON where no person is watching.

A program that embeds the engine configures structlog as it likes; nothing here happens on import.
"""

from __future__ import annotations

import sys

import structlog
from structlog.tracebacks import ExceptionDictTransformer

# Tracebacks without the values of variables, which may be tokens, and what payers prove themselves by.
_AS_JSON = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
_FOR_A_PERSON = structlog.dev.RichTracebackFormatter(show_locals=False)


def configure_logs() -> None:
    person = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if person else [_AS_JSON]),
            structlog.dev.ConsoleRenderer(exception_formatter=_FOR_A_PERSON)
            if person
            else structlog.processors.JSONRenderer(),
        ],
        # One write a line: workers share the file, and `print` writes the end of a line by itself.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
