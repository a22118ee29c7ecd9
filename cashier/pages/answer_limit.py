"""A bound on the answers to challenges per session: a code has six digits, and a robot patience.

The risk service counts attempts per challenge. This counts over all of them, per worker.
"""

from __future__ import annotations

from collections.abc import Callable

MOST_ANSWERS = 20
WINDOW_S = 600.0
_MOST_SESSIONS = 10_000


class AnswerLimit:
    """`now_s`: a monotonic clock."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._counts: dict[str, tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"<AnswerLimit sessions={len(self._counts)}>"

    def admits(self, session_id: str) -> bool:
        """Whether this answer may be checked. Counts it."""
        now_s = self._now_s()
        since_s, count = self._counts.pop(session_id, (now_s, 0))
        if now_s - since_s >= WINDOW_S:
            since_s, count = now_s, 0
        if len(self._counts) >= _MOST_SESSIONS:
            del self._counts[next(iter(self._counts))]
        self._counts[session_id] = (since_s, count + 1)
        return count < MOST_ANSWERS
