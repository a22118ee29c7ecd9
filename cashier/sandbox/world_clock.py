"""The world's clock: the real time, or a test's, and how far the world has been moved ahead of it. It only ever goes forward."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class WorldClock:
    """A clock like any other, called for the time, that can be advanced. Every part of one world reads the same one."""

    def __init__(self, base: Clock = utc_now) -> None:
        self._base = base
        self._ahead = timedelta()

    def __repr__(self) -> str:
        return f"WorldClock(ahead_s={self._ahead.total_seconds():g})"

    def __call__(self) -> datetime:
        return self._base() + self._ahead

    @property
    def ahead_s(self) -> int:
        """How far it is ahead of its base, in whole seconds."""
        return self._ahead // timedelta(seconds=1)

    def advance(self, time: timedelta) -> None:
        assert time >= timedelta(), f"the clock goes forward, not by {time}"  # noqa: S101  a bug of the caller
        self._ahead += time
