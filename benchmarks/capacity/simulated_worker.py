"""One worker's caches on a clock of their own: the engine's store, lifetimes and early refresh, fed with keys. Holds no answers.

What a look-up does is what `cashier.fanout.cache` does; hits, calls and what the shared cache is asked are counted, never supposed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from random import Random
from typing import Any, TypeAlias

from msgspec import Struct, field
from msgspec.structs import astuple

from benchmarks.capacity.shared_cache import S_NS, SharedCacheModel
from benchmarks.capacity.traffic import SimulatedConsultation
from cashier.consultation.plan import SOURCE_NAMES, SOURCE_SPECS
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.ttl import CacheSettings, lifetime

DEFAULTS: Mapping[str, CacheSettings] = {question.source.name: question.cache for question in SOURCE_SPECS}
# What another worker has is newer than what we have where it is younger by more than this.
_SKEW_NS = S_NS // 10

RateOfKey: TypeAlias = Callable[[Any], float]

# By what a source is asked. A user's member and cards have one key, as in the engine; merchants and markets must not look like users.
KEYS: Mapping[str, Callable[[SimulatedConsultation], Hashable]] = {
    "order": lambda asked: asked.checkout,
    "merchant": lambda asked: -1 - asked.merchant,
    "member": lambda asked: asked.user,
    "card": lambda asked: asked.user,
    "balance": lambda asked: asked.user,
    "channel": lambda asked: ("market", asked.market),
    "quota": lambda asked: asked.user,
    "marketing": lambda asked: (asked.user, asked.checkout),
}


class Mechanisms(Struct, frozen=True):
    """What is on. `lifetimes`: by source; one that is not there is not cached. `entries`: how many answers a worker keeps."""

    lifetimes: Mapping[str, CacheSettings] = field(default_factory=lambda: DEFAULTS)
    entries: int = 50_000
    shared: bool = True
    single_flight: bool = True
    batch: bool = True
    hedge: bool = True
    sticky: bool = False


class CacheCounts(Struct):
    """Of one source. `hits` + `stale` + `misses` = `asked`; of the misses `joined` waited for another's call."""

    asked: int = 0
    hits: int = 0
    stale: int = 0
    misses: int = 0
    joined: int = 0
    calls: int = 0
    gets: int = 0
    found: int = 0
    puts: int = 0

    def less(self, other: CacheCounts) -> CacheCounts:
        """What has been counted since."""
        return CacheCounts(*(mine - its for mine, its in zip(astuple(self), astuple(other), strict=True)))


class Entry:
    """An answer that is there from `lands_ns` on. `awaited`: until then there is no older one that serves."""

    __slots__ = ("_home", "awaited", "born_ns", "early_ns", "fresh_ns", "key", "lands_ns", "stale_ns", "used")

    def __init__(self, home: dict[Hashable, Entry], key: Hashable) -> None:
        self._home = home
        self.key = key
        self.used = False
        self.awaited = False
        self.born_ns = self.early_ns = self.fresh_ns = self.stale_ns = self.lands_ns = 0

    def trace(self) -> Hashable:
        return id(self._home), self.key

    def evicted(self) -> None:
        del self._home[self.key]


class SimulatedCache:
    """One source's cache in one worker."""

    def __init__(
        self,
        settings: CacheSettings,
        store: S3FifoStore,
        sight: SharedCacheModel | None,
        took_ns: int,
        random: Random,
        *,
        single_flight: bool = True,
    ) -> None:
        self.counts = CacheCounts()
        self.sight = sight
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
        if self.sight is not None:
            self.counts.gets += 1
            born_ns = self.sight.born_ns(key, now_ns)
            self.counts.found += born_ns is not None
            if born_ns is not None and (entry is None or born_ns - entry.born_ns >= _SKEW_NS):
                entry = self._keep(key, entry, born_ns, 0, now_ns)
                if now_ns < entry.fresh_ns:
                    return
                awaited = awaited and now_ns >= entry.stale_ns
        self.counts.calls += 1
        # Where several calls are under way for the same, the first to come back serves.
        lands_ns = entry.lands_ns if entry is not None and entry.lands_ns > now_ns else now_ns + self._took_ns
        entry = self._keep(key, entry, now_ns, self._took_ns, lands_ns)
        entry.awaited = awaited
        if self.sight is not None:
            self.counts.puts += 1
            self.sight.put(key, now_ns)

    def _keep(self, key: Hashable, entry: Entry | None, born_ns: int, took_ns: int, lands_ns: int) -> Entry:
        if entry is None:
            entry = Entry(self._entries, key)
            self._store.add(entry)
            self._entries[key] = entry
        until = lifetime(self._settings, born_ns, took_ns, not_found=False, random=self._random)
        entry.born_ns, entry.lands_ns, entry.awaited = born_ns, lands_ns, False
        entry.early_ns, entry.fresh_ns, entry.stale_ns = until.early_ns, until.fresh_ns, until.stale_ns
        return entry


class SimulatedWorker:
    """All sources of one worker. Time is handed in with each consultation, and never goes back.

    `others_per_s`: of the sources whose answers many users share, how often other workers ask for a key. `holds_s`: see `SharedCacheModel`.
    """

    def __init__(
        self, mechanisms: Mechanisms, took_ms: float, random: Random, others_per_s: Mapping[str, RateOfKey], holds_s: float
    ) -> None:
        store = S3FifoStore(mechanisms.entries)
        self.consultations = 0
        self.cached: dict[str, SimulatedCache] = {}
        for name in SOURCE_NAMES:
            settings = mechanisms.lifetimes.get(name, CacheSettings())
            if settings.on:
                sight = SharedCacheModel(settings, holds_s, random, others_per_s.get(name)) if mechanisms.shared else None
                took_ns = round(took_ms * S_NS / 1000)
                self.cached[name] = SimulatedCache(
                    settings, store, sight, took_ns, random, single_flight=mechanisms.single_flight
                )
        self._asks = [(cached.ask, KEYS[name]) for name, cached in self.cached.items()]
        seen = [(name, cached.sight) for name, cached in self.cached.items() if cached.sight is not None]
        # What only its user asks for lies there as the user's other visits have left it.
        self._own = [(sight, KEYS[name]) for name, sight in seen if name not in others_per_s]
        self._longest_s = max((DEFAULTS[name].longest_s for name, _ in seen), default=0)

    def consult(self, asked: SimulatedConsultation) -> None:
        now_ns = round(asked.at_s * S_NS)
        if asked.before_s > asked.at_s - self._longest_s:
            for sight, key_of in self._own:
                sight.left(key_of(asked), round(asked.before_s * S_NS))
        if asked.here:
            self.consultations += 1
            for ask, key_of in self._asks:
                ask(key_of(asked), now_ns)
        else:
            for sight, key_of in self._own:
                sight.elsewhere(key_of(asked), now_ns)

    def counts(self) -> dict[str, CacheCounts]:
        """By source, the live ones too."""
        asked = self.consultations
        live = CacheCounts(asked=asked, misses=asked, calls=asked)
        return {name: self.cached[name].counts if name in self.cached else live for name in SOURCE_NAMES}
