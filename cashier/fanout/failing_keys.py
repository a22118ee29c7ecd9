"""The keys whose calls failed lately: one bad record must not count as a sick source. Pure."""

from __future__ import annotations

from collections.abc import Hashable

_SECOND_NS = 1_000_000_000
# A failure of a key counts once in this time.
WINDOW_S = 10
# Beyond this number of failing keys, every failure counts.
_MAX_KEYS = 1024


class FailingKeys:
    """A key is what a failure may be specific to, such as a user; None: nothing."""

    __slots__ = ("_failed_at",)

    def __init__(self) -> None:
        # The second of its counted failure, the oldest first.
        self._failed_at: dict[Hashable, int] = {}

    def counts(self, key: Hashable, now_ns: int) -> bool:
        """Whether a failure of `key` counts: the first in ten seconds, or one without a key."""
        if key is None:
            return True
        failed_at = self.of(now_ns)
        if key in failed_at:
            return False
        if len(failed_at) < _MAX_KEYS:
            failed_at[key] = now_ns // _SECOND_NS
        return True

    def of(self, now_ns: int) -> dict[Hashable, int]:
        """The keys that failed in the last ten seconds."""
        second, failed_at = now_ns // _SECOND_NS, self._failed_at
        while failed_at and next(iter(failed_at.values())) <= second - WINDOW_S:
            del failed_at[next(iter(failed_at))]
        return failed_at

    def __len__(self) -> int:
        return len(self._failed_at)

    def __repr__(self) -> str:
        return f"<FailingKeys {len(self)}>"
