"""A cache over a scripted upstream, and a scripted second level."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from cashier.fanout.ask import PendingCall, SourceStatus
from cashier.fanout.cache import Cache
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.key_index import parse_key_text
from cashier.fanout.l2.interface import CachedAnswer, OnRead
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.s3fifo import S3FifoStore
from cashier.source_errors import Unreachable
from tests.fanout.scripted_upstream import Asker, Reply, ScriptedCall, ScriptedUpstream, ask, clock_ns, guarded, pass_ms

POLICY = CacheSettings(10, 60, 600, 2)
REFUSES = Reply(1, Unreachable("refused"))
SILENT = Reply(None)
BARE = Mechanisms(hedge=None, retry=False, breaker=None, limiter=None, adaptive_timeout=False)


class ScriptedSecondLevel:
    """A scripted second level. `after_ms`: the duration of a read; None for never.

    `version`: what a read returns.
    """

    reachable = True

    def __init__(self, after_ms: float | None = 1) -> None:
        self.after_ms = after_ms
        self.version: bytes | None = b"v1"
        self.coherent = True
        self.stored: dict[str, CachedAnswer] = {}
        self.reads: list[str] = []
        self.puts: list[tuple[str, CachedAnswer, float, bytes]] = []

    def get(self, source: str, key: str, on_read: OnRead) -> PendingCall:
        self.reads.append(key)
        read = _PendingRead(on_read, self.stored.get(key), self.version)
        if self.after_ms is not None:
            asyncio.get_running_loop().call_later(self.after_ms / 1000, read.answer)
        return read

    def put(self, source: str, key: str, stored: CachedAnswer, ttl_s: float, version: bytes) -> None:
        self.puts.append((key, stored, ttl_s, version))

    def drop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> None:
        raise AssertionError("a cache does not invalidate the second level")

    async def adrop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> bool:
        raise AssertionError("a cache does not invalidate the second level")


class _PendingRead:
    def __init__(self, on_read: OnRead, stored: CachedAnswer | None, version: bytes | None) -> None:
        self.on_read: OnRead | None = on_read
        self.stored = stored
        self.version = version

    def answer(self) -> None:
        if self.on_read is not None:
            self.on_read(self.stored, self.version)

    def abandon(self) -> None:
        self.on_read = None


class Rig:
    """A cache over a scripted upstream."""

    def __init__(
        self,
        reply: Callable[[ScriptedCall], Reply] | Reply | None = None,
        *,
        policy: CacheSettings = POLICY,
        l2: ScriptedSecondLevel | None = None,
        mechanisms: Mechanisms = BARE,
        capacity: int = 100,
    ) -> None:
        self.ladder = DegradationLadder()
        self.upstream = ScriptedUpstream(reply or numbered())
        self.guard: Guard = guarded(self.upstream, mechanisms, ladder=self.ladder)
        self.store = S3FifoStore(capacity)
        self.cache = Cache(self.guard, key_of, policy, self.store, l2=l2, clock_ns=clock_ns, random=Random(1))

    def ask(self, key: str = "u_1", waits_ms: int = 100) -> Asker:
        return ask(self.cache.start, {"key": key}, waits_ms=waits_ms)

    async def answer(self, key: str = "u_1", waits_ms: int = 100) -> tuple[Any, SourceStatus | None, int]:
        asker = self.ask(key, waits_ms)
        if not asker.answered:
            await pass_ms(waits_ms)
        return asker.outcome, asker.status, asker.age_ms

    @property
    def calls(self) -> int:
        return len(self.upstream.calls)


def key_of(known: Any) -> str | tuple[str, ...]:
    key = parse_key_text(known["key"])
    assert isinstance(key, str | tuple)
    return key


def numbered(after_ms: float | None = 10) -> Callable[[ScriptedCall], Reply]:
    """A script that numbers the answers of each key: `u_1 #1`, `u_1 #2`, …"""
    counts: dict[str, int] = {}

    def script(call: ScriptedCall) -> Reply:
        key = call.known["key"]
        counts[key] = counts.get(key, 0) + 1
        text = f"{key} #{counts[key]}"
        return Reply(after_ms, text, body=text.encode())

    return script
