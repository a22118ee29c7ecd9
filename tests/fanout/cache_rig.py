"""A cache over a scripted upstream, and a scripted second level."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from cashier.fanout.ask import PendingCall, SourceStatus
from cashier.fanout.cache import Cache, parse_key_text
from cashier.fanout.guard import Guard, Mechanisms
from cashier.fanout.l2.interface import CachedAnswer
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.ttl import CacheSettings
from cashier.source_errors import Unreachable
from tests.fanout.scripted_upstream import Asker, Reply, ScriptedCall, ScriptedUpstream, ask, clock_ns, guarded, pass_ms

POLICY = CacheSettings(10, 60, 600, 2)
REFUSES = Reply(1, Unreachable("refused"))
SILENT = Reply(None)
BARE = Mechanisms(hedge=None, retry=False, breaker=None, limiter=None, adaptive_timeout=False)


class ScriptedSecondLevel:
    """A scripted second level. `after_ms`: how long a look takes; None is for ever."""

    reachable = True

    def __init__(self, after_ms: float | None = 1) -> None:
        self.after_ms = after_ms
        self.kept: dict[str, CachedAnswer] = {}
        self.looks: list[str] = []
        self.puts: list[tuple[str, CachedAnswer, float]] = []

    def get(self, source: str, key: str, found: Callable[[CachedAnswer | None], None]) -> PendingCall:
        self.looks.append(key)
        look = _Look(found, self.kept.get(key))
        if self.after_ms is not None:
            asyncio.get_running_loop().call_later(self.after_ms / 1000, look.answer)
        return look

    def put(self, source: str, key: str, kept: CachedAnswer, ttl_s: float) -> None:
        self.puts.append((key, kept, ttl_s))

    def drop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> None:
        raise AssertionError("that is for whoever invalidates")


class _Look:
    def __init__(self, found: Callable[[CachedAnswer | None], None], kept: CachedAnswer | None) -> None:
        self.found: Callable[[CachedAnswer | None], None] | None = found
        self.kept = kept

    def answer(self) -> None:
        if self.found is not None:
            self.found(self.kept)

    def abandon(self) -> None:
        self.found = None


class Rig:
    """A cache over a scripted upstream, and how to ask it."""

    def __init__(
        self,
        fate: Callable[[ScriptedCall], Reply] | Reply | None = None,
        *,
        policy: CacheSettings = POLICY,
        second: ScriptedSecondLevel | None = None,
        mechanisms: Mechanisms = BARE,
        capacity: int = 100,
    ) -> None:
        self.ladder = DegradationLadder()
        self.upstream = ScriptedUpstream(fate or numbered())
        self.guard: Guard = guarded(self.upstream, mechanisms, ladder=self.ladder)
        self.store = S3FifoStore(capacity)
        self.cache = Cache(self.guard, key_of, policy, self.store, l2=second, clock_ns=clock_ns, random=Random(1))

    def ask(self, key: str = "u_1", waits_ms: int = 100) -> Asker:
        return ask(self.cache.start, {"key": key}, waits_ms=waits_ms)

    async def answer(self, key: str = "u_1", waits_ms: int = 100) -> tuple[Any, SourceStatus | None, int]:
        asker = self.ask(key, waits_ms)
        if not asker.heard:
            await pass_ms(waits_ms)
        return asker.outcome, asker.status, asker.age_ms

    @property
    def calls(self) -> int:
        return len(self.upstream.legs)


def key_of(known: Any) -> str | tuple[str, ...]:
    key = parse_key_text(known["key"])
    assert isinstance(key, str | tuple)
    return key


def numbered(after_ms: float | None = 10) -> Callable[[ScriptedCall], Reply]:
    """The answers to each key, in the order of their calls: `u_1 #1`, `u_1 #2`, …"""
    counts: dict[str, int] = {}

    def script(leg: ScriptedCall) -> Reply:
        key = leg.known["key"]
        counts[key] = counts.get(key, 0) + 1
        said = f"{key} #{counts[key]}"
        return Reply(after_ms, said, body=said.encode())

    return script
