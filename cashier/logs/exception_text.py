"""Exceptions as fields of a log line: types and places, and text only where it holds no values.

A bug is raised with anything: the text of a `KeyError` may be a user id, that of a `ValueError` a
body, and local variables hold tokens. Type and place lead to the bug without them.
"""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Any

# Types whose text the interpreter or this package writes, from names and types.
_TEXT_HAS_NO_VALUES = (
    ArithmeticError, AttributeError, ImportError, IndexError, MemoryError, NameError, NotImplementedError,
    RecursionError, SyntaxError, TypeError, Warning,
)  # fmt: skip
# A warning about an object that was left open holds its `repr`, such as a client's address.
_TEXT_HAS_VALUES = (UserWarning, ResourceWarning)
# Of each exception, the innermost ones: a line of a log should fit into one write.
_MOST_FRAMES = 20
_MOST_EXCEPTIONS = 5


def exception_text(error: BaseException) -> str:
    """Without values: empty for types that are raised with them.

    A type of ours whose text is fit for a log says so: `text_is_for_operators = True`.
    """
    if isinstance(error, OSError):
        return error.strerror or ""  # without the file name
    has_values = isinstance(error, _TEXT_HAS_VALUES) or not isinstance(error, _TEXT_HAS_NO_VALUES)
    return str(error) if getattr(error, "text_is_for_operators", not has_values) else ""


def exception_chain(raised: Any) -> list[dict[str, Any]]:
    """`raised`: an exception, an `exc_info` triple, or true for the present exception.

    The exception, then what caused it. Each has `exc_type`, `exc_value` and `frames`, innermost
    last, and an exception group its `exceptions`.
    """
    error = raised[1] if isinstance(raised, tuple) else raised
    if not isinstance(error, BaseException):
        error = sys.exception()
    chain: list[dict[str, Any]] = []
    while error is not None and len(chain) < _MOST_EXCEPTIONS:
        chain.append(_described(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return chain


def format_chain(chain: list[dict[str, Any]]) -> str:
    """For a terminal."""
    return "\n".join(
        "\n".join(
            [f"{error['exc_type']}: {error['exc_value']}".rstrip(": ")]
            + [f"  {frame['filename']}:{frame['lineno']} {frame['name']}" for frame in reversed(error["frames"])]
        )
        for error in chain
    )


def _described(error: BaseException) -> dict[str, Any]:
    described: dict[str, Any] = {
        "exc_type": type(error).__qualname__,
        "exc_value": exception_text(error),
        "frames": _frames(error.__traceback__),
    }
    if isinstance(error, BaseExceptionGroup):
        described["exceptions"] = [exception_chain(part) for part in error.exceptions[:_MOST_EXCEPTIONS]]
    return described


def _frames(end: TracebackType | None) -> list[dict[str, Any]]:
    frames = [
        {"filename": frame.f_code.co_filename, "lineno": line, "name": frame.f_code.co_qualname}
        for frame, line in traceback.walk_tb(end)
    ]
    return frames[-_MOST_FRAMES:]
