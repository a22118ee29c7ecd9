"""Doubts about rows of usable answers: what cannot be understood, or can never apply.

A doubt says which field and code is odd, never whose it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog

from cashier.fanout.failure_log import ReasonLog
from cashier.logs.code_word import is_code_word

_log = structlog.get_logger("cashier")


def _write(**fields: Any) -> None:
    _log.warning("a row of an answer cannot be used", **fields)


_reasons = ReasonLog(_write)
_collected: ContextVar[list[str] | None] = ContextVar("collected_doubts", default=None)


@contextmanager
def collected_doubts() -> Iterator[list[str]]:
    """The doubts of the block, each a sentence, instead of lines in the log."""
    doubts: list[str] = []
    token = _collected.set(doubts)
    try:
        yield doubts
    finally:
        _collected.reset(token)


def doubt(source: str, row: str, field: str, value: str | None, effect: str) -> None:
    """Log once a minute that `field` of a `row` has this value (None: it is missing).

    A value that can be no code is not shown: it may be the payer's name or number.
    """
    given = "is missing" if value is None else f"is {value!r}" if is_code_word(value) else "is no code"
    text = f"{row}: {field} {given}, so {effect}"
    collected = _collected.get()
    if collected is None:
        _reasons.record(source, "", text)
    else:
        collected.append(text)
