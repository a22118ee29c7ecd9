"""Fetch: one question on its way for all who ask it, by the second level first where there is one, else by the guard.

Each who waits has a handle of their own: one who leaves takes nothing away from the others, and when all have left the answer still
warms the cache if it comes in time.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from cashier.fanout.ask import Known, OnOutcome, PendingCall, SourceStatus
from cashier.fanout.l2.interface import CachedAnswer
from cashier.source_errors import SourceError

if TYPE_CHECKING:
    from cashier.fanout.cache import Cache

_MS_NS = 1_000_000
_PART = "/"


def text(key: Hashable) -> str:
    """A question's key as operators and the second level write it: `u_1`, `CNY/CN`, `u_1/m_1/CNY/12800`. No part holds a "/"."""
    return _PART.join(key) if isinstance(key, tuple) else str(key)


def key_of_text(written: str) -> Hashable:
    parts = written.split(_PART)
    return written if len(parts) == 1 else tuple(parts)


class FetchWaiter:
    """One who waits for a fetch: an InFlight."""

    __slots__ = ("done", "fetch", "joined_ns")

    def __init__(self, fetch: Fetch, done: OnOutcome, joined_ns: int) -> None:
        self.fetch: Fetch | None = fetch
        self.done = done
        self.joined_ns = joined_ns

    def abandon(self) -> None:
        fetch, self.fetch = self.fetch, None
        if fetch is not None:
            fetch.leave(self)


class Fetch:
    """`outdated`: what is asked about has changed since, so the answer serves those who wait, and nobody after them."""

    __slots__ = (
        "_began_ns",
        "_cache",
        "_flight",
        "_looking",
        "_until_ns",
        "_waiters",
        "key",
        "known",
        "outdated",
        "call_headers",
    )

    def __init__(self, cache: Cache, key: Hashable, known: Known, call_headers: Any) -> None:
        self._cache = cache
        self.key = key
        self.known = known
        self.call_headers = call_headers
        self.outdated = False
        self._began_ns = cache.now_ns()
        self._waiters: dict[FetchWaiter, None] = {}
        self._flight: PendingCall | None = None
        self._until_ns = 0  # the longest that one of those who wait does
        self._looking = False  # in the second level

    @property
    def promising(self) -> bool:
        """Whether to join it. It is of no use to wait for what others have waited for too long already."""
        return self._cache.now_ns() - self._began_ns < self._cache.call_ms * _MS_NS

    def join(self, budget_ms: int, done: OnOutcome) -> FetchWaiter:
        now_ns = self._cache.now_ns()
        self._until_ns = max(self._until_ns, now_ns + budget_ms * _MS_NS)
        waiter = FetchWaiter(self, done, now_ns)
        self._waiters[waiter] = None
        return waiter

    def leave(self, waiter: FetchWaiter) -> None:
        self._waiters.pop(waiter, None)  # it is gone where they are being told
        if self._waiters:
            return
        self._cache.left(self)
        if self._looking:  # there is nothing to harvest
            self._cache.closed(self)
        if self._flight is not None:
            self._flight.abandon()

    def begin(self) -> None:
        cache = self._cache
        cache.opened(self)
        if cache.second is not None:
            self._looking = True
            self._flight = cache.second.get(cache.source, text(self.key), self._found)
        else:
            self._call()

    def _call(self) -> None:
        """Its own time, and not that of whoever asks first: others may wait for it, and the cache is glad of it in any case."""
        cache = self._cache
        now_ns = self._began_ns = cache.now_ns()
        budget_ms = cache.call_ms
        try:
            flight = cache.call(self, budget_ms, (self._until_ns - now_ns) // _MS_NS if self._waiters else budget_ms)
        except BaseException:
            cache.closed(self)  # a bug in the making of the call: nobody may join what will never be answered
            raise
        if isinstance(flight, SourceError):
            self.heard(flight)
            return
        if not self._waiters:
            flight.spent = True  # the budget of extra calls is for those who wait
        self._flight = flight

    def _found(self, kept: CachedAnswer | None) -> None:
        """What the second level has. What is too old to be served while it is fetched anew still serves if that fails."""
        self._flight = None
        self._looking = False
        cache = self._cache
        answer = None if kept is None else cache.read(kept, self.known)
        if kept is not None and not isinstance(answer, SourceError):
            now_ns = cache.now_ns()
            born_ns = now_ns - kept.age_ms * _MS_NS
            entry = None if cache.knows_as_young(self, born_ns) else cache.put(self, answer, born_ns, 0, none=kept.none)
            if entry is not None and now_ns < entry.stale_ns:
                fresh = now_ns < entry.fresh_ns
                if fresh:
                    cache.closed(self)
                self._tell(answer, SourceStatus.CACHED if fresh else SourceStatus.STALE, kept.age_ms)
                if fresh:
                    return
        self._call()

    def heard(self, outcome: Any, none: bool = False, body: bytes | None = None) -> None:
        """The outcome of the call."""
        cache = self._cache
        self._flight = None
        cache.closed(self)
        if not isinstance(outcome, SourceError):
            now_ns = cache.now_ns()
            entry = cache.put(self, outcome, self._began_ns, now_ns - self._began_ns, none=none)
            if entry is not None and body is not None and cache.second is not None:
                age_ms = (now_ns - self._began_ns) // _MS_NS
                kept_s = cache.settings.negative_s if none else cache.settings.longest_s
                cache.second.put(cache.source, text(self.key), CachedAnswer(none, body, age_ms), kept_s)
        self._tell(outcome, SourceStatus.FRESH)

    def _tell(self, outcome: Any, status: SourceStatus, age_ms: int | None = None) -> None:
        """Who joined a call under way is told how much older than their question it is."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if waiter.fetch is not None:  # one of those before may have ended what it belongs to
                waiter.fetch = None
                older_ms = max(0, waiter.joined_ns - self._began_ns) // _MS_NS
                waiter.done(outcome, status, older_ms if age_ms is None else age_ms)
