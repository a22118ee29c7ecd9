"""Doubts about rows of usable answers: what cannot be understood, or can never apply.

A doubt says which field and code is odd, never whose it is.
"""

from __future__ import annotations

from typing import Any

import structlog

from cashier.fanout.failure_log import ReasonLog
from cashier.logs.code_word import is_code_word

_log = structlog.get_logger("cashier")


def _write(**fields: Any) -> None:
    _log.warning("a row of an answer cannot be used", **fields)


_reasons = ReasonLog(_write)


def doubt(source: str, row: str, field: str, value: str | None, effect: str) -> None:
    """Log once a minute that `field` of a `row` has this value (None: it is missing).

    A value that can be no code is not shown: it may be the payer's name or number.
    """
    given = "is missing" if value is None else f"is {value!r}" if is_code_word(value) else "is no code"
    _reasons.record(source, "", f"{row}: {field} {given}, so {effect}")
