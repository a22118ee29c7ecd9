"""One worker's caches on a simulated clock: cashier's store, lifetimes and early refresh.

A look-up works as in `cashier.fanout.cache`. Hits, calls and operations on the shared cache are
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from random import Random
from typing import Any, TypeAlias

from msgspec import Struct, field

from benchmarks.capacity.traffic import SimulatedConsultation
from benchmarks.lab.upstream import SOURCE_NAMES
from cashier.consultation.source_table import SOURCE_SPECS
from cashier.fanout.cache_lifetime import CacheSettings, lifetime
from cashier.fanout.s3fifo import S3FifoStore

S_NS = 1_000_000_000
DEFAULTS: Mapping[str, CacheSettings] = {
    spec.source.name: spec.cache for spec in SOURCE_SPECS if spec.source.name in SOURCE_NAMES
}
# An answer of another worker is newer than ours if it is younger by more than this.
_SKEW_NS = S_NS // 10
# Freshness ends up to a tenth early, at random; of many copies the first one to end causes a fetch.
_SHORTEST = 0.9

RateOfKey: TypeAlias = Callable[[Any], float]

# Cache keys. A user's member and cards share one, as in cashier; merchants and markets must differ
# from users.
KEYS: Mapping[str, Callable[[SimulatedConsultation], Hashable]] = {
    "order": lambda consultation: consultation.checkout,
    "merchant": lambda consultation: -1 - consultation.merchant,
    "member": lambda consultation: consultation.user,
    "card": lambda consultation: consultation.user,
    "balance": lambda consultation: consultation.user,
    "channel": lambda consultation: ("market", consultation.market),
    "quota": lambda consultation: consultation.user,
    "marketing": lambda consultation: (consultation.user, consultation.checkout),
}


class Mechanisms(Struct, frozen=True):
    """Mechanisms that are on.

    `lifetimes`: by source, others are not cached. `entries`: per worker.
    """

    lifetimes: Mapping[str, CacheSettings] = field(default_factory=lambda: DEFAULTS)
    entries: int = 50_000
    shared: bool = True
    single_flight: bool = True
    batch: bool = True
    hedge: bool = True
    sticky: bool = False


class CacheCounts(Struct):
    """Of one source. `hits` + `stale` + `misses` = `asked`; `joined`: misses that shared a call."""

    asked: int = 0
    hits: int = 0
    stale: int = 0
    misses: int = 0
    joined: int = 0
    calls: int = 0
    gets: int = 0
    found: int = 0
    puts: int = 0


class SharedCacheModel:
    """One source's answers in the shared cache, as one worker sees it: their keys and times.

    Bounded by the time to live of each answer, and by memory. If memory is the bound, the least
    recently written entries leave, so that it holds what was written in the last `holds_s` (Che's
    approximation, good for very many keys). `others_per_s(key)`: rate of other workers for a shared
    key; None if one user owns it.
    """

    def __init__(
        self, settings: CacheSettings, holds_s: float, random: Random, others_per_s: RateOfKey | None = None
    ) -> None:
        self._others_per_s = others_per_s
        self._fresh_ns = round(settings.fresh_s * S_NS)
        self._kept_ns = round(min(settings.longest_s, holds_s) * S_NS)
        self._random = random
        self._born_ns: dict[Hashable, int] = {}
        self._swept_ns = 0

    def born_ns(self, key: Hashable, now_ns: int) -> int | None:
        """The time at which the cached answer was requested, or None without one."""
        born_ns = self._born_ns.get(key)
        if self._others_per_s is not None and (others_per_s := self._others_per_s(key)):
            born_ns = self._born_ns[key] = self._renewed(born_ns, now_ns, others_per_s)
        return None if born_ns is None or now_ns - born_ns >= self._kept_ns else born_ns

    def put(self, key: Hashable, born_ns: int) -> None:
        self._born_ns[key] = born_ns
        if born_ns - self._swept_ns > self._kept_ns:
            self._swept_ns = born_ns
            self._born_ns = {each: at_ns for each, at_ns in self._born_ns.items() if born_ns - at_ns < self._kept_ns}

    def left(self, key: Hashable, born_ns: int) -> None:
        """Set the time of an answer left by an earlier, uncounted visit."""
        if self._born_ns.get(key, born_ns - 1) < born_ns:
            self._born_ns[key] = born_ns

    def elsewhere(self, key: Hashable, now_ns: int) -> None:
        """Another worker asks. It fetches unless the cached answer is fresh."""
        born_ns = self._born_ns.get(key)
        if born_ns is None or now_ns - born_ns >= self._fresh_ns * self._random.uniform(_SHORTEST, 1):
            self.put(key, now_ns)

    def _renewed(self, born_ns: int | None, now_ns: int, others_per_s: float) -> int:
        """Other workers fetch when the first of them asks after freshness has ended."""
        gap_ns, random = S_NS / others_per_s, self._random
        if born_ns is None:
            born_ns = now_ns - round(random.random() * (self._fresh_ns + gap_ns))
        while True:
            next_ns = born_ns + round(self._fresh_ns * random.uniform(_SHORTEST, 1) + random.expovariate(1) * gap_ns)
            if next_ns > now_ns:
                return born_ns
            born_ns = next_ns


class Entry:
    """An answer available from `lands_ns` on. `awaited`: no older answer serves until then."""

    __slots__ = ("_home", "awaited", "born_ns", "early_ns", "fresh_ns", "key", "lands_ns", "stale_ns", "used")

    def __init__(self, home: dict[Hashable, Entry], key: Hashable) -> None:
        self._home = home
        self.key = key
        self.used = False
        self.awaited = False
        self.born_ns = self.early_ns = self.fresh_ns = self.stale_ns = self.lands_ns = 0

    def ghost_key(self) -> Hashable:
        return id(self._home), self.key

    def evicted(self) -> None:
        del self._home[self.key]


class SimulatedCache:
    """One source's cache in one worker."""

    def __init__(
        self,
        settings: CacheSettings,
        store: S3FifoStore,
        shared_cache: SharedCacheModel | None,
        took_ns: int,
        random: Random,
        *,
        single_flight: bool = True,
    ) -> None:
        self.counts = CacheCounts()
        self.shared_cache = shared_cache
        self._settings = settings
        self._store = store
        self._took_ns = took_ns
        self._random = random
        self._single_flight = single_flight
        self._entries: dict[Hashable, Entry] = {}

    def ask(self, key: Hashable, now_ns: int) -> None:
        counts = self.counts
        counts.asked += 1
        entry = self._entries.get(key)
        under_way = entry is not None and now_ns < entry.lands_ns
        if entry is None or (entry.awaited if under_way else now_ns >= entry.stale_ns):
            counts.misses += 1
            if under_way and self._single_flight:
                counts.joined += 1
            else:
                self._fetch(key, entry, now_ns, awaited=True)
            return
        entry.used = True
        if now_ns < entry.fresh_ns:
            counts.hits += 1
        else:
            counts.stale += 1
        if not self._single_flight if under_way else now_ns >= entry.early_ns:
            self._fetch(key, entry, now_ns, awaited=False)

    def _fetch(self, key: Hashable, entry: Entry | None, now_ns: int, *, awaited: bool) -> None:
        if self.shared_cache is not None:
            self.counts.gets += 1
            born_ns = self.shared_cache.born_ns(key, now_ns)
            self.counts.found += born_ns is not None
            if born_ns is not None and (entry is None or born_ns - entry.born_ns >= _SKEW_NS):
                entry = self._keep(key, entry, born_ns, 0, now_ns)
                if now_ns < entry.fresh_ns:
                    return
                awaited = awaited and now_ns >= entry.stale_ns
        self.counts.calls += 1
        # Of several calls for one key the first to return serves.
        lands_ns = entry.lands_ns if entry is not None and entry.lands_ns > now_ns else now_ns + self._took_ns
        entry = self._keep(key, entry, now_ns, self._took_ns, lands_ns)
        entry.awaited = awaited
        if self.shared_cache is not None:
            self.counts.puts += 1
            self.shared_cache.put(key, now_ns)

    def _keep(self, key: Hashable, entry: Entry | None, born_ns: int, took_ns: int, lands_ns: int) -> Entry:
        if entry is None:
            entry = self._entries[key] = Entry(self._entries, key)
            self._store.add(entry)
        until = lifetime(self._settings, born_ns, took_ns, not_found=False, random=self._random)
        entry.born_ns, entry.lands_ns, entry.awaited = born_ns, lands_ns, False
        entry.early_ns, entry.fresh_ns, entry.stale_ns = until.early_ns, until.fresh_ns, until.stale_ns
        return entry


class SimulatedWorker:
    """All sources of one worker. Times are arguments and never decrease.

    `others_per_s`: for sources whose answers many users share, the rate of other workers for a key.
    `holds_s`: see `SharedCacheModel`.
    """

    def __init__(
        self,
        mechanisms: Mechanisms,
        took_ms: float,
        random: Random,
        others_per_s: Mapping[str, RateOfKey],
        holds_s: float,
    ) -> None:
        store, took_ns = S3FifoStore(mechanisms.entries), round(took_ms * S_NS / 1000)
        self.consultations = 0
        self._cached: dict[str, SimulatedCache] = {}
        shared: dict[str, SharedCacheModel] = {}
        for name in SOURCE_NAMES:
            settings = mechanisms.lifetimes.get(name)
            if settings is not None and settings.on:
                if mechanisms.shared:
                    shared[name] = SharedCacheModel(settings, holds_s, random, others_per_s.get(name))
                self._cached[name] = SimulatedCache(
                    settings, store, shared.get(name), took_ns, random, single_flight=mechanisms.single_flight
                )
        self._asks = [(cached.ask, KEYS[name]) for name, cached in self._cached.items()]
        # Answers of one user lie there as the user's consultations at other workers have left them.
        self._own = [(model, KEYS[name]) for name, model in shared.items() if name not in others_per_s]
        self._longest_s = max((DEFAULTS[name].longest_s for name in shared), default=0)

    def consult(self, consultation: SimulatedConsultation) -> None:
        now_ns = round(consultation.at_s * S_NS)
        if consultation.before_s > consultation.at_s - self._longest_s:
            for shared_cache, key_of in self._own:
                shared_cache.left(key_of(consultation), round(consultation.before_s * S_NS))
        if consultation.here:
            self.consultations += 1
            for ask, key_of in self._asks:
                ask(key_of(consultation), now_ns)
        else:
            for shared_cache, key_of in self._own:
                shared_cache.elsewhere(key_of(consultation), now_ns)

    def reset_counts(self) -> None:
        """Count anew. Cached answers stay."""
        self.consultations = 0
        for cached in self._cached.values():
            cached.counts = CacheCounts()

    @property
    def counts(self) -> dict[str, CacheCounts]:
        """By source, uncached ones included."""
        count = self.consultations
        live = CacheCounts(asked=count, misses=count, calls=count)
        return {name: self._cached[name].counts if name in self._cached else live for name in SOURCE_NAMES}
