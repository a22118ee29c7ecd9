"""The health of a server that is optional.

Pure: the caller passes the time and probes a lost server.
"""

from __future__ import annotations

# One slow answer is chance, or a pause of our own process.
SLOW_IN_A_ROW = 3


class ServerHealth:
    """`available` until one failure or three slow answers in a row; again after a recovery.

    Slow answers are in a row if each was requested after the previous one came: a hundred
    concurrent calls that are held up together count as one.
    """

    __slots__ = ("_last_slow_s", "_slow", "available")

    def __init__(self) -> None:
        self.available = False
        self._slow = 0
        self._last_slow_s = float("-inf")

    def __repr__(self) -> str:
        return f"<ServerHealth {'available' if self.available else 'lost'} slow={self._slow}>"

    def record_fast(self) -> None:
        self._slow = 0

    def record_slow(self, started_s: float, ended_s: float) -> bool:
        """Record a slow answer. Returns True if it loses the server."""
        if started_s >= self._last_slow_s:
            self._slow += 1
            self._last_slow_s = ended_s
        return self._slow >= SLOW_IN_A_ROW and self.record_failure()

    def record_failure(self) -> bool:
        """Record a failure. Returns True if it loses the server, False if it was lost before."""
        was_available, self.available = self.available, False
        return was_available

    def record_recovery(self) -> None:
        self.available = True
        self._slow = 0
