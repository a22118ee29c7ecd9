"""The health of one connection among its siblings: suspicion, error streaks, echoed ids. Pure.

Behind a balancer that pins connections, a connection is as good as the backend at its other end:
the connection fails, not the address. A suspect connection is used last. It is closed after errors
for different keys only, so that one bad record closes nothing, and at a bounded rate, so that a
service that is down as a whole causes no storm of connects.
"""

from __future__ import annotations

from cashier.wire.transport import Request

# As many 5xx answers in a row, each for another key, close a connection. As many broken answers in
# a row, on any connections, mean that the address breaks them.
MAX_FAILED_KEYS = 3
# After this many errors in a row, on any connections, the address fails as a whole.
MAX_ERRORS_IN_ROW = 3
# At most this share of a pool is closed or replaced in a second, and at least one connection.
_CLOSED_SHARE = 0.1
# A connection that took this much longer than its sibling is used after it: as of replicas.
SLOW_FACTOR = 3
SLOW_MARGIN_S = 0.005
_MAX_TRUST = 64
_FIRST_DOUBT = 8
_MAX_DOUBT = 1024
_MAX_SHIFTS = 8


class FailureStreak:
    """Requests that failed in a row. One bad record, however often, is no more than one of them."""

    __slots__ = ("_keys", "_times")

    def __init__(self) -> None:
        self._keys: tuple[int, ...] = ()
        self._times = 0

    def add(self, request: Request) -> None:
        key = _key(request)
        self._times += 1
        if key not in self._keys:
            self._keys = (*self._keys, key)[-MAX_FAILED_KEYS:]

    def clear(self) -> None:
        self._keys = ()
        self._times = 0

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def full(self) -> bool:
        """Whether the number of failed requests has reached the bound: any other may fail too."""
        return len(self._keys) == MAX_FAILED_KEYS

    def covers(self, request: Request) -> bool:
        """Whether this one is expected to fail."""
        return self.full or (self._times >= MAX_FAILED_KEYS and _key(request) in self._keys)


def _key(request: Request) -> int:
    return hash((request.target, request.body))


class ConnectionHealth:
    """`suspect`: its last answer was an error."""

    __slots__ = ("_failed_keys", "suspect")

    def __init__(self) -> None:
        self.suspect = False
        self._failed_keys = FailureStreak()

    @property
    def failing(self) -> bool:
        """It failed, other than by asking for less load."""
        return bool(self._failed_keys)

    def record_success(self) -> None:
        self.suspect = False
        self._failed_keys.clear()

    def record_failure(self, request: Request) -> bool:
        """Return whether this was the last of a streak that should close the connection."""
        self.suspect = True
        self._failed_keys.add(request)
        return self._failed_keys.full


class SickClosings:
    """Bounds how often connections of a pool are closed or opened because some are sick."""

    __slots__ = ("_next_s",)

    def __init__(self) -> None:
        self._next_s = 0.0

    def allow(self, connections: int, now_s: float) -> bool:
        if now_s < self._next_s:
            return False
        self._next_s = now_s + 1 / max(1.0, connections * _CLOSED_SHARE)
        return True


class RequestIdEcho:
    """Whether an upstream echoes `X-Request-Id`, learned from its answers.

    An upstream that sets ids of its own, always or now and then, must not be cut off, nor a proxy
    that stores answers with their ids. A foreign id counts as wrong identity only after an unbroken
    run of echoes, and each such verdict doubles the run that the next one needs. The id of the
    request before, on a connection that has echoed rightly, shows a shift by one: several such
    verdicts need a long run of echoes before there are more.
    """

    __slots__ = ("_doubt", "_shifts", "_trust")

    def __init__(self) -> None:
        self._trust = 0
        self._doubt = _FIRST_DOUBT
        self._shifts = _MAX_SHIFTS

    def matches(self, expected: bytes, received: tuple[bytes, ...], previous: bytes, echoed: int) -> bool:
        """Judge an answer with ids.

        `previous`: the id of the request before on this connection. `echoed`: how many different
        ids the connection has echoed.
        """
        if expected in received:
            self._trust += 1
            if self._trust >= _MAX_TRUST:
                self._trust = _MAX_TRUST
                self._shifts = _MAX_SHIFTS
            return True
        if previous in received and echoed > 1 and self._shifts:
            self._shifts -= 1
            self._trust = min(self._trust, 0)
            return False
        trusted = self._trust > 0
        if trusted:
            self._doubt = min(_MAX_DOUBT, self._doubt * 2)
        self._trust = -self._doubt
        return not trusted
