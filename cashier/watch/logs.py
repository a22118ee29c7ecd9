"""How a service of ours logs: one line an event to standard error, as JSON where no person is watching.

A program that embeds the engine configures structlog as it likes; nothing here happens on import.
"""

from __future__ import annotations

import sys

import structlog


def configure_logs() -> None:
    person = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if person else [structlog.processors.dict_tracebacks]),
            structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer(),
        ],
        # One write a line: workers share the file, and `print` writes the end of a line by itself.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
