"""The cache of one source, with single-flight fetches and an optional second level (L2).

A hit is a dict look-up: no coroutine, task, timer or decoding. On a miss one fetch serves all
concurrent asks for the key: from the second level first, else by the guard. `cache_lifetime`
decides how long an answer may be used and for what; `s3fifo` decides which answers stay when the
store is full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from random import Random
from typing import Any

from cashier.fanout.ask import AskCall, CurrentTimeout, Known, OnOutcome, PendingCall, SourceStatus
from cashier.fanout.cache_lifetime import CacheSettings, lifetime
from cashier.fanout.guard import Guard
from cashier.fanout.hedged_call import HedgedCall, HedgedFetch
from cashier.fanout.key_index import KeyIndex, key_text, parse_key_text
from cashier.fanout.l2.interface import CachedAnswer, SecondLevel
from cashier.fanout.l2.invalidation import covers_key
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.upstream_protocol import OnAnswer
from cashier.metrics.store import Counter
from cashier.source_errors import SourceError

_MS_NS = 1_000_000
# The longest read of the second level (`l2.valkey_client.ValkeySettings.get_ms`).
_L2_READ_MS = 20
# Clocks of workers differ: another worker's answer is newer only if younger by more than this.
_CLOCK_SKEW_NS = 100 * _MS_NS
# While invalidations of other workers do not arrive, no answer is served for longer, but on error.
CUT_OFF_S = 2.0

# The texts that make a request's key: one, or several as a tuple.
KeyOf = Callable[[Known], str | tuple[str, ...]]


class CacheEntry:
    """One answer. A newer one changes it in place: a hot entry keeps its position in the store."""

    __slots__ = (
        "_entries", "_index", "answer", "born_ns", "early_ns", "error_ns", "fresh_ns", "key", "stale_ns", "used",
    )  # fmt: skip

    def __init__(self, entries: dict[Hashable, CacheEntry], index: KeyIndex, key: Hashable) -> None:
        self._entries = entries
        self._index = index
        self.key = key
        self.used = False
        self.answer: Any = None
        self.born_ns = self.early_ns = self.fresh_ns = self.stale_ns = self.error_ns = 0

    def ghost_key(self) -> Hashable:
        return id(self._entries), self.key

    def evicted(self) -> None:
        del self._entries[self.key]
        self._index.discard(self.key)

    def __repr__(self) -> str:
        return f"<CacheEntry {self.key!r}>"


class Cache:
    """The cache of one source, in front of its guard.

    `start` is a `Start`, `fallback` a `Fallback`.

    Each ask counts in one of `hits`, `served_stale`, `joined` (it waits for the fetch of another
    one), `found_in_l2` and `misses`; and in `fallbacks` if an old answer had to do after all.
    """

    __slots__ = (
        "_entries", "_fetches", "_index", "_joinable", "_key_of", "_random", "_store",
        "clock_ns", "fallbacks", "found_in_l2", "guard", "hits", "joined", "l2", "misses", "served_stale", "settings",
    )  # fmt: skip

    def __init__(
        self,
        guard: Guard,
        key_of: KeyOf,
        settings: CacheSettings,
        store: S3FifoStore,
        *,
        l2: SecondLevel | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        random: Random | None = None,
    ) -> None:
        self.guard = guard
        self._key_of = key_of
        self.settings = settings
        self._store = store
        self.l2 = l2
        self.clock_ns = clock_ns
        self._random = random or Random()
        self._entries: dict[Hashable, CacheEntry] = {}
        self._index = KeyIndex()
        self._joinable: dict[Hashable, Fetch] = {}
        self._fetches: set[Fetch] = set()  # all that may still bring an answer
        requests = partial(guard.metrics.counter, "cashier_cache_requests_total", guard.name)
        self.hits = requests("hit")
        self.misses = requests("miss")
        self.joined = requests("joined")
        self.served_stale = requests("stale")
        self.found_in_l2 = requests("shared")
        self.fallbacks = requests("fallback")

    def start(self, known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall | None:
        """See `Start`."""
        key = self._key_of(known)
        entry = self._entries.get(key)
        if entry is not None:
            now_ns = self.clock_ns()
            if now_ns < entry.early_ns:
                entry.used = True
                hits = self.hits
                hits.cells[hits.index] += 1
                done(entry.answer, SourceStatus.CACHED, (now_ns - entry.born_ns) // _MS_NS)
                return None
            if self._serve_older(entry, known, call_headers, now_ns, done):
                return None
        fetch = self._joinable.get(key)
        if fetch is not None and fetch.worth_joining:
            self.joined.add()
            return fetch.join(budget_ms, done, shared=True)
        fetch = Fetch(self, key, known, call_headers)
        waiter = fetch.join(budget_ms, done)
        fetch.start()
        return waiter

    def fallback(self, known: Known) -> tuple[Any, int] | None:
        """See `Fallback`: an answer that is still within `error_s`."""
        entry = self._entries.get(self._key_of(known))
        if entry is None:
            return None
        now_ns = self.clock_ns()
        if now_ns >= entry.error_ns:
            return None
        entry.used = True
        self.fallbacks.add()
        return entry.answer, (now_ns - entry.born_ns) // _MS_NS

    def _serve_older(self, entry: CacheEntry, known: Known, call_headers: Any, now_ns: int, done: OnOutcome) -> bool:
        """Serve an answer that is stale, or about to be, and refresh it in the background.

        False if it is too old. Under load, serve any answer within `error_s` and fetch nothing.
        """
        overloaded = self.guard.ladder.serve_stale
        if now_ns >= (entry.error_ns if overloaded else entry.stale_ns):
            return False
        if not overloaded and entry.key not in self._joinable:
            Fetch(self, entry.key, known, call_headers).start()
        entry.used = True
        fresh = now_ns < entry.fresh_ns
        if fresh:
            self.hits.add()
        else:
            self.served_stale.add()
            if overloaded:
                self.guard.ladder.served_stale.add()
        done(entry.answer, SourceStatus.CACHED if fresh else SourceStatus.STALE, (now_ns - entry.born_ns) // _MS_NS)
        return True

    # Used by fetches

    def opened(self, fetch: Fetch) -> None:
        self._joinable[fetch.key] = fetch
        self._fetches.add(fetch)

    def stop_joining(self, fetch: Fetch) -> None:
        """Let no further ask join this fetch: a call of its own serves it better."""
        if self._joinable.get(fetch.key) is fetch:
            del self._joinable[fetch.key]

    def closed(self, fetch: Fetch) -> None:
        self.stop_joining(fetch)
        self._fetches.discard(fetch)

    def has_as_young(self, fetch: Fetch, born_ns: int) -> bool:
        """True if the cache has an answer about as young as one born at `born_ns`."""
        entry = self._entries.get(fetch.key)
        return entry is not None and born_ns - entry.born_ns < _CLOCK_SKEW_NS

    def put(self, fetch: Fetch, answer: Any, born_ns: int, took_ns: int, *, not_found: bool) -> CacheEntry | None:
        """Store an answer, unless it was invalidated meanwhile or a younger one is present.

        None: not stored.

        An uncacheable answer still evicts the older entry, which is now known to be stale.
        """
        entry = self._entries.get(fetch.key)
        if fetch.outdated or (entry is not None and entry.born_ns > born_ns):
            return None
        settings = self.settings if self.l2 is None or self.l2.coherent else self.settings.at_most(CUT_OFF_S)
        until = lifetime(settings, born_ns, took_ns, not_found=not_found, random=self._random)
        if until.error_ns <= self.clock_ns():
            if entry is not None:
                self._remove(entry)
            return None
        if entry is None:
            entry = CacheEntry(self._entries, self._index, fetch.key)
            self._store.add(entry)
            self._entries[fetch.key] = entry
            self._index.add(fetch.key)
        entry.answer = answer
        entry.born_ns = born_ns
        entry.early_ns, entry.fresh_ns = until.early_ns, until.fresh_ns
        entry.stale_ns, entry.error_ns = until.stale_ns, until.error_ns
        return entry

    @property
    def call_timeout_ms(self) -> int:
        return self.guard.adaptive_timeout.timeout_ms

    @property
    def current_timeout(self) -> CurrentTimeout:
        return self.guard.adaptive_timeout if self.l2 is None else self

    @property
    def timeout_ms(self) -> int:
        """See `CurrentTimeout`. A read of the second level comes first and adds its own time."""
        timeout = self.guard.adaptive_timeout
        return min(timeout.ceiling_ms, timeout.timeout_ms + _L2_READ_MS)

    # Invalidation

    def drop(self, *, key: str | None = None, prefix: str | None = None) -> int:
        """Drop one key, all keys with a prefix, or everything.

        Fetches in progress for them are not stored.

        `key` and `prefix` as in `key_text`; a prefix covers keys as in `covers_key`. Costs what it
        drops. Returns the number of dropped answers.
        """
        if key is not None:
            dropped_key = parse_key_text(key)
            keys: Iterable[Hashable] = (dropped_key,)
            fetches = [fetch for fetch in self._fetches if fetch.key == dropped_key]
        else:
            prefix = prefix or ""
            keys = self._index.covered(prefix)
            fetches = [fetch for fetch in self._fetches if not prefix or covers_key(prefix, key_text(fetch.key))]
        dropped = [entry for each in keys if (entry := self._entries.get(each)) is not None]
        for entry in dropped:
            self._remove(entry)
        for fetch in fetches:
            fetch.outdated = True
            self.stop_joining(fetch)
        return len(dropped)

    def distrust(self) -> None:
        """Keep what is cached for errors only: it may have been invalidated, unknown to us."""
        now_ns = self.clock_ns()
        for entry in self._entries.values():
            entry.early_ns = min(entry.early_ns, now_ns)
            entry.fresh_ns = min(entry.fresh_ns, now_ns)
            entry.stale_ns = min(entry.stale_ns, now_ns)

    def _remove(self, entry: CacheEntry) -> None:
        self._store.remove(entry)
        entry.evicted()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return (
            f"<Cache of {self.guard.name}: {len(self)} answers, {len(self._fetches)} fetches,"
            f" {self.hits.value} hits, {self.misses.value} misses>"
        )


class FetchWaiter:
    """One ask that waits for a fetch.

    `done`: None after delivery or `abandon`. `shared`: another ask started the fetch.
    """

    __slots__ = ("done", "fetch", "joined_ns", "shared")

    def __init__(self, fetch: Fetch, done: OnOutcome, joined_ns: int, shared: bool) -> None:
        self.fetch = fetch
        self.done: OnOutcome | None = done
        self.joined_ns = joined_ns
        self.shared = shared

    def abandon(self) -> None:
        if self.done is not None:
            self.done = None
            self.fetch.leave(self, timed_out=False)

    def time_out(self) -> None:
        if self.done is not None:
            self.done = None
            self.fetch.leave(self, timed_out=True)


class Fetch:
    """One request in progress, shared by all asks for its key.

    A waiter that leaves does not disturb the others. When all have left, the call may run on as a
    late call, and its answer still fills the cache. `outdated`: the key was invalidated meanwhile,
    so the answer goes to the present waiters and is not stored. `call`: the call of the source;
    None if there was none.
    """

    __slots__ = (
        "_cache",
        "_looks_up",
        "_pending",
        "_reading_l2",
        "_started_ns",
        "_version",
        "_waiters",
        "_wanted_until_ns",
        "call",
        "call_headers",
        "key",
        "known",
        "outdated",
    )  # fmt: skip

    def __init__(self, cache: Cache, key: Hashable, known: Known, call_headers: Any) -> None:
        self._cache = cache
        self.key = key
        self.known = known
        self.call_headers = call_headers
        self.outdated = False
        self._started_ns = cache.clock_ns()
        self._waiters: dict[FetchWaiter, None] = {}
        self._pending: PendingCall | None = None
        self.call: HedgedCall[OnAnswer] | None = None
        self._wanted_until_ns = 0  # the latest moment until which a waiter waits
        self._reading_l2 = False
        self._looks_up = False  # for an ask that has not been counted yet
        self._version: bytes | None = None  # of the key in the second level, before the call

    @property
    def worth_joining(self) -> bool:
        """False for a fetch that is older than its timeout."""
        return self._cache.clock_ns() - self._started_ns < self._cache.call_timeout_ms * _MS_NS

    def join(self, budget_ms: int, done: OnOutcome, *, shared: bool = False) -> FetchWaiter:
        now_ns = self._cache.clock_ns()
        self._wanted_until_ns = max(self._wanted_until_ns, now_ns + budget_ms * _MS_NS)
        waiter = FetchWaiter(self, done, now_ns, shared)
        self._waiters[waiter] = None
        return waiter

    def leave(self, waiter: FetchWaiter, *, timed_out: bool) -> None:
        self._waiters.pop(waiter, None)  # absent during delivery
        if self._waiters:
            return
        self._cache.stop_joining(self)
        if self._reading_l2:  # no call that could run on
            self._cache.closed(self)
            self._count(self._cache.misses)
        if self._pending is None:
            return
        if timed_out and self._pending is self.call:
            self.call.time_out()
        else:
            self._pending.abandon()

    def start(self) -> None:
        cache = self._cache
        cache.opened(self)
        self._looks_up = bool(self._waiters)
        if cache.l2 is not None:
            self._reading_l2 = True
            self._pending = cache.l2.get(cache.guard.name, key_text(self.key), self._on_stored)
        else:
            self._call()

    def _count(self, result: Counter) -> None:
        """Count the ask that opened this fetch, once."""
        if self._looks_up:
            self._looks_up = False
            result.add()

    def _call(self) -> None:
        """Call the source, with the full timeout: later waiters and the cache profit too."""
        cache = self._cache
        self._count(cache.misses)
        now_ns = self._started_ns = cache.clock_ns()
        budget_ms = cache.call_timeout_ms
        try:
            left_ms = (self._wanted_until_ns - now_ns) // _MS_NS if self._waiters else budget_ms
            call = cache.guard.call(HedgedFetch, self.known, self.call_headers, budget_ms, left_ms, self.on_answer)
        except BaseException:
            cache.closed(self)  # a bug in building the call: no ask may join a fetch without end
            raise
        if isinstance(call, SourceError):
            self.on_answer(call)
            return
        if not self._waiters:
            call.no_extra = True  # the retry budget is for calls that have waiters
        self._pending = self.call = call

    def _on_stored(self, stored: CachedAnswer | None, version: bytes | None) -> None:
        """Deliver a stored answer if it is young enough. Unless it is fresh, call the source too.

        An answer past `stale_s` stays in the cache as the fallback.
        """
        self._pending = None
        self._reading_l2 = False
        self._version = version
        cache = self._cache
        answer = (
            None if stored is None else cache.guard.upstream.parse_stored(stored.not_found, stored.body, self.known)
        )
        if stored is not None and not isinstance(answer, SourceError):
            now_ns = cache.clock_ns()
            born_ns = now_ns - stored.age_ms * _MS_NS
            present = cache.has_as_young(self, born_ns)
            entry = None if present else cache.put(self, answer, born_ns, 0, not_found=stored.not_found)
            if entry is not None and now_ns < entry.stale_ns:
                fresh = now_ns < entry.fresh_ns
                if fresh:
                    cache.closed(self)
                self._count(cache.found_in_l2)
                self._deliver(answer, SourceStatus.CACHED if fresh else SourceStatus.STALE, stored.age_ms)
                if fresh:
                    return
        self._call()

    def on_answer(self, outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        cache = self._cache
        self._pending = None
        cache.closed(self)
        if not isinstance(outcome, SourceError):
            now_ns = cache.clock_ns()
            entry = cache.put(self, outcome, self._started_ns, now_ns - self._started_ns, not_found=not_found)
            if entry is not None and body is not None and cache.l2 is not None and self._version is not None:
                age_ms = (now_ns - self._started_ns) // _MS_NS
                ttl_s = cache.settings.negative_s if not_found else cache.settings.longest_s
                cache.l2.put(
                    cache.guard.name, key_text(self.key), CachedAnswer(not_found, body, age_ms), ttl_s, self._version
                )
        self._deliver(outcome, SourceStatus.FRESH)

    def _deliver(self, outcome: Any, status: SourceStatus, age_ms: int | None = None) -> None:
        """Call all waiters.

        By default the age is the time from the call's start to their joining.
        """
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            done, waiter.done = waiter.done, None
            if done is not None:  # an earlier waiter's callback may have abandoned this one
                older_ms = max(0, waiter.joined_ns - self._started_ns) // _MS_NS
                done(outcome, status, older_ms if age_ms is None else age_ms)
