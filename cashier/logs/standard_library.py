"""Records of the standard library's logging and of uncaught exceptions, in the form of all lines.

Other libraries write values into their messages: addresses of clients, keys of a cache, texts of
exceptions. A line keeps the first line of a message, and of its arguments the numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import warnings
from types import TracebackType
from typing import Any, TextIO

import structlog

from cashier.logs.exception_text import exception_text

_HIDDEN = "…"
# asyncio names the callback after it, with its arguments.
_IN_CALLBACK = "Exception in callback"
_log = structlog.get_logger("cashier")


class StructuredHandler(logging.Handler):
    """Passes warnings and errors of other libraries on. Raises nothing."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            log = structlog.get_logger(record.name)
            level = max(logging.WARNING, min(record.levelno // 10 * 10, logging.CRITICAL))
            fields = {"exc_info": record.exc_info} if record.exc_info and record.exc_info[1] else {}
            log.log(level, _message(record), **fields)


def _message(record: logging.LogRecord) -> str:
    if isinstance(record.msg, BaseException):
        return f"{type(record.msg).__qualname__}: {exception_text(record.msg)}".rstrip(": ")
    message = str(record.msg)
    if isinstance(record.args, tuple) and record.args:
        shown = tuple(arg if isinstance(arg, int | float) else _HIDDEN for arg in record.args)
        with contextlib.suppress(TypeError, ValueError):
            message %= shown
    return message.strip().partition("\n")[0]


def log_uncaught() -> None:
    """Also log what would end a thread or the process, and warnings. For a process of our own."""
    sys.excepthook = _log_exception
    threading.excepthook = _log_thread_exception
    sys.unraisablehook = _log_unraisable
    warnings.showwarning = _log_warning


def log_loop_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception handler of an event loop: `loop.set_exception_handler`.

    asyncio's own writes the arguments of callbacks and the texts of exceptions.
    """
    message = str(context.get("message") or "unhandled exception in the event loop").partition("\n")[0]
    if message.startswith(_IN_CALLBACK):
        message = _IN_CALLBACK
    task = context.get("task") or context.get("future")
    coroutine = {"coroutine": _name(task.get_coro())} if isinstance(task, asyncio.Task) else {}
    structlog.get_logger("asyncio").error(message, **coroutine, exc_info=context.get("exception"))


def _log_exception(kind: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
    # Ctrl+C is an end as any other.
    if not issubclass(kind, KeyboardInterrupt):
        _log.critical("unhandled exception", exc_info=error)


def _log_thread_exception(raised: threading.ExceptHookArgs) -> None:
    _log.critical("unhandled exception in a thread", exc_info=raised.exc_value)


def _log_unraisable(raised: sys.UnraisableHookArgs) -> None:
    _log.error("exception ignored", where=_name(raised.object), exc_info=raised.exc_value)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = exception_text(message) if isinstance(message, Warning) else ""
    _log.warning("python warning", category=category.__qualname__, text=text, filename=filename, lineno=lineno)


def _name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", None) or type(thing).__qualname__)
