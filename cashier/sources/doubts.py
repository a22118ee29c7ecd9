"""Doubts about rows of usable answers: what cannot be understood, or can never apply.

A doubt says which field and value is odd, never whose it is.
"""

from __future__ import annotations

from typing import Any

import structlog

from cashier.fanout.failure_log import ReasonLog

_log = structlog.get_logger("cashier")
# Values are an upstream's own words.
_MAX_VALUE_CHARACTERS = 40


def _write(**fields: Any) -> None:
    _log.warning("a row of an answer cannot be used", **fields)


_reasons = ReasonLog(_write)


def doubt(source: str, row: str, field: str, value: str | None, effect: str) -> None:
    """Log once a minute that `field` of a `row` has this value (None: it is missing)."""
    given = "is missing" if value is None else f"is {value[:_MAX_VALUE_CHARACTERS]!r}"
    _reasons.record(source, "", f"{row}: {field} {given}, so {effect}")
