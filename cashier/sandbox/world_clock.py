"""The world's clock: a base clock and how far the world is ahead of it. It never goes back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class WorldClock:
    """A callable clock that can be advanced. All parts of one world share it."""

    def __init__(self, base: Clock = utc_now) -> None:
        self._base = base
        self._ahead = timedelta()

    def __repr__(self) -> str:
        return f"WorldClock(ahead_s={self._ahead.total_seconds():g})"

    def __call__(self) -> datetime:
        return self._base() + self._ahead

    @property
    def ahead_s(self) -> int:
        """Whole seconds ahead of the base clock."""
        return self._ahead // timedelta(seconds=1)

    def advance(self, time: timedelta) -> None:
        assert time >= timedelta(), f"the clock cannot go back by {time}"  # noqa: S101  a bug of the caller
        self._ahead += time
