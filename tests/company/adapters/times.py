"""Times of the company's services as RFC 3339."""

from __future__ import annotations

from datetime import UTC, datetime


def from_epoch(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
