"""Cache: the answers of one source, for a while. A hit is a look-up in a dict: no coroutine, no task, no timer, nothing to decode.

On a miss one fetch serves all who ask meanwhile; a first-level miss asks the second level first, where there is one. What an answer may be
used for, and how long, is decided in `freshness`; which are kept when there are too many, in `store`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from random import Random
from typing import Any

from cashier.fanout.ask import Known, OnOutcome, PendingCall, SourceStatus
from cashier.fanout.fetch import Fetch, key_of_text, text
from cashier.fanout.guard import Guard
from cashier.fanout.l2.interface import CachedAnswer, SecondLevel
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.ttl import CacheSettings, lifetime

_MS_NS = 1_000_000
# The longest that a look into the second level takes (`shared.client.ValkeySettings.get_ms`).
_LOOK_MS = 20
# What another worker has is newer than what we have where it is younger by more than this.
_SKEW_NS = 100 * _MS_NS

# The texts that make a question's key, from what is known: one, or several as a tuple. Ids hold no "/".
KeyOf = Callable[[Known], str | tuple[str, ...]]


class CacheEntry:
    """One answer. It is changed in place when a newer one comes, so that a hot entry keeps its place in the store."""

    __slots__ = ("_home", "answer", "born_ns", "early_ns", "error_ns", "fresh_ns", "key", "stale_ns", "used")

    def __init__(self, home: dict[Hashable, CacheEntry], key: Hashable) -> None:
        self._home = home
        self.key = key
        self.used = False
        self.answer: Any = None
        self.born_ns = self.early_ns = self.fresh_ns = self.stale_ns = self.error_ns = 0

    def trace(self) -> Hashable:
        return id(self._home), self.key

    def evicted(self) -> None:
        del self._home[self.key]

    def __repr__(self) -> str:
        return f"<Entry {self.key!r}>"


class Cache:
    """The cache of one source, in front of its guard. `start` is what a scatter starts, `instead` what it falls back on.

    `hits`, `misses`, `joined` and `served_stale` count.
    """

    __slots__ = (
        "_clock_ns", "_entries", "_fetches", "_guard", "_key_of", "_live", "_random", "_store", "hits", "joined", "misses", "second",
        "served_stale", "settings",
    )  # fmt: skip

    def __init__(
        self,
        guard: Guard,
        key_of: KeyOf,
        settings: CacheSettings,
        store: S3FifoStore,
        *,
        second: SecondLevel | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        random: Random | None = None,
    ) -> None:
        self._guard = guard
        self._key_of = key_of
        self.settings = settings
        self._store = store
        self.second = second
        self._clock_ns = clock_ns
        self._random = random or Random()
        self._entries: dict[Hashable, CacheEntry] = {}
        self._fetches: dict[Hashable, Fetch] = {}  # those that may be joined
        self._live: set[Fetch] = set()  # those that may still bring an answer
        self.hits = 0
        self.misses = 0
        self.joined = 0
        self.served_stale = 0

    def start(self, known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> PendingCall | None:
        """See `Start`."""
        key = self._key_of(known)
        entry = self._entries.get(key)
        if entry is not None:
            now_ns = self._clock_ns()
            if now_ns < entry.early_ns:
                entry.used = True
                self.hits += 1
                done(entry.answer, SourceStatus.CACHED, (now_ns - entry.born_ns) // _MS_NS)
                return None
            if self._serve_older(entry, known, call_headers, now_ns, done):
                return None
        self.misses += 1
        fetch = self._fetches.get(key)
        if fetch is not None and fetch.promising:
            self.joined += 1
            return fetch.join(budget_ms, done)
        fetch = Fetch(self, key, known, call_headers)
        waiter = fetch.join(budget_ms, done)
        fetch.begin()
        return waiter

    def instead(self, known: Known) -> tuple[Any, int] | None:
        """See `Instead`: an answer that is old enough to need an excuse, and young enough to have one."""
        entry = self._entries.get(self._key_of(known))
        if entry is None:
            return None
        now_ns = self._clock_ns()
        if now_ns >= entry.error_ns:
            return None
        entry.used = True
        self.served_stale += 1
        return entry.answer, (now_ns - entry.born_ns) // _MS_NS

    def _serve_older(self, entry: CacheEntry, known: Known, call_headers: Any, now_ns: int, done: OnOutcome) -> bool:
        """Where one may be served that is about to end, or has: serve it, and fetch a new one in the background.

        While we ourselves have too much to do, what may serve on an error serves too, and nothing is fetched.
        """
        strained = self._guard.ladder.stale
        if now_ns >= (entry.error_ns if strained else entry.stale_ns):
            return False
        if not strained and entry.key not in self._fetches:
            Fetch(self, entry.key, known, call_headers).begin()
        entry.used = True
        fresh = now_ns < entry.fresh_ns
        if fresh:
            self.hits += 1
        else:
            self.served_stale += 1
        done(entry.answer, SourceStatus.CACHED if fresh else SourceStatus.STALE, (now_ns - entry.born_ns) // _MS_NS)
        return True

    # What fetches need

    def opened(self, fetch: Fetch) -> None:
        self._fetches[fetch.key] = fetch
        self._live.add(fetch)

    def left(self, fetch: Fetch) -> None:
        """Nobody waits for it: whoever asks now is better served by a call of their own."""
        if self._fetches.get(fetch.key) is fetch:
            del self._fetches[fetch.key]

    def closed(self, fetch: Fetch) -> None:
        self.left(fetch)
        self._live.discard(fetch)

    def knows_as_young(self, fetch: Fetch, born_ns: int) -> bool:
        """Whether the answer is there, from a call that began at `born_ns` or later; clocks of other machines differ a little."""
        entry = self._entries.get(fetch.key)
        return entry is not None and born_ns - entry.born_ns < _SKEW_NS

    def put(self, fetch: Fetch, answer: Any, born_ns: int, took_ns: int, *, none: bool) -> CacheEntry | None:
        """Keep an answer, unless what it was asked about has changed meanwhile, or a younger one is there. None: it is not kept.

        One that may not be kept still takes the place of an older one: what is known to be otherwise now serves nobody.
        """
        entry = self._entries.get(fetch.key)
        if fetch.outdated or (entry is not None and entry.born_ns > born_ns):
            return None
        until = lifetime(self.settings, born_ns, took_ns, none=none, random=self._random)
        if until.error_ns <= self._clock_ns():
            if entry is not None:
                del self._entries[fetch.key]
                self._store.remove(entry)
            return None
        if entry is None:
            entry = CacheEntry(self._entries, fetch.key)
            self._store.add(entry)
            self._entries[fetch.key] = entry
        entry.answer = answer
        entry.born_ns = born_ns
        entry.early_ns, entry.fresh_ns, entry.stale_ns, entry.error_ns = (
            until.early_ns,
            until.fresh_ns,
            until.stale_ns,
            until.error_ns,
        )
        return entry

    def call(self, fetch: Fetch, budget_ms: int, left_ms: int) -> Any:
        return self._guard.call(fetch.known, fetch.call_headers, budget_ms, left_ms, fetch.heard, keep=True)

    def now_ns(self) -> int:
        return self._clock_ns()

    @property
    def call_ms(self) -> int:
        """How long a call is waited for now."""
        return self._guard.patience.timeout_ms

    @property
    def timeout_ms(self) -> int:
        """See `Pace`: a look into the second level comes before the call, and is not what the source's figures are about."""
        patience = self._guard.patience
        return patience.timeout_ms if self.second is None else min(patience.ceiling_ms, patience.timeout_ms + _LOOK_MS)

    @property
    def source(self) -> str:
        return self._guard.name

    def read(self, kept: CachedAnswer, known: Known) -> Any:
        """What the second level has kept, checked as if it had just come. A `SourceError` where it is of no use."""
        return self._guard.upstream.read(kept.none, kept.body, known)

    # Invalidation

    def drop(self, *, key: str | None = None, prefix: str | None = None) -> int:
        """Forget the answer to one question, or to all whose key begins so; and whatever is on its way, which may be the old answer.

        `key` and `prefix` as in `text`. Returns how many answers were forgotten.
        """
        prefix = prefix or ""
        if key is not None:
            keys: Iterable[Hashable] = (key_of_text(key),)
        elif prefix:
            keys = [each for each in self._entries if text(each).startswith(prefix)]
        else:
            keys = tuple(self._entries)
        found = [entry for each in keys if (entry := self._entries.pop(each, None)) is not None]
        for entry in found:
            self._store.remove(entry)
        for fetch in self._live:
            written = text(fetch.key)
            if written == key if key is not None else written.startswith(prefix):
                fetch.outdated = True
                self.left(fetch)
        return len(found)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Cache of {self.source}: {len(self)} answers, {len(self._live)} on their way, {self.hits} hits, {self.misses} misses>"
