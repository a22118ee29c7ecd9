"""Generated histories of two or three workers on one real server, against a model of the truth.

The model: once an invalidation is acknowledged for all workers and its message has arrived, no
worker serves a value from before it, whatever calls, writes, lost messages and losses interleave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from structlog.testing import capture_logs

from cashier.fanout.cache import Cache
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.fanout.key_index import parse_key_text
from cashier.fanout.l2.invalidation import covers_key, decode_message
from cashier.fanout.l2.tombstones import Tombstones
from cashier.fanout.l2.valkey_backend import ValkeySettings
from cashier.fanout.l2.valkey_cache import ValkeyCache
from cashier.fanout.s3fifo import S3FifoStore
from tests.fanout.cache_rig import BARE, key_of
from tests.fanout.l2.valkey_server import Server, is_idle, raw_client, until, valkey_server
from tests.fanout.scripted_upstream import Asker, Reply, ScriptedCall, ScriptedUpstream, ask, guarded
from tests.support.virtual_time import clock_ns

SOURCE = "source"
KEYS = ("u_1", "u_1/a", "u_10")
PREFIXES = ("u_1/", "u_1", "u_10", "")
SETTINGS = ValkeySettings(get_ms=20_000, command_ms=20_000, alone_ms=5, silence_ms=20_000)
FOREVER_MS = 60_000

WORKER, KEY = st.integers(0, 2), st.sampled_from(KEYS)
ASK, ANSWER = st.tuples(st.just("ask"), WORKER, KEY), st.tuples(st.just("answer"), st.integers(0, 9), st.just(""))
STEP = st.one_of(
    ASK,
    ASK,
    ASK,
    ANSWER,
    ANSWER,
    st.tuples(st.just("change and invalidate key"), WORKER, KEY),
    st.tuples(st.just("change and invalidate prefix"), WORKER, st.sampled_from(PREFIXES)),
    st.tuples(st.just("restart"), WORKER, st.just("")),
    st.tuples(st.just("cut"), WORKER, st.just("")),
    st.tuples(st.just("reconnect"), WORKER, st.just("")),
    st.tuples(st.just("deafen"), WORKER, st.just("")),
    st.tuples(st.sampled_from(["empty", "evict"]), st.just(0), KEY),
)


class Worker:
    """A cache over the shared second level.

    `deaf`: it loses all messages without noticing, as behind a broken network. `cuts`: how often it
    was cut off or came back.
    """

    def __init__(self, server: Server, truth: dict[str, int]) -> None:
        self._truth = truth
        self.upstream = ScriptedUpstream(self._hold)
        self.level = ValkeyCache(server.url, self._drop, self._drop_all, SETTINGS, on_cut_off=self._distrust)
        self.level._tombstones = Tombstones(tolerance_ms=0)  # all have one clock
        self.guard = guarded(self.upstream, BARE, ceiling_ms=FOREVER_MS)
        self.cache = Cache(
            self.guard,
            key_of,
            CacheSettings(3600, 3600, 3600, 3600),
            S3FifoStore(100),
            l2=self.level,
            clock_ns=clock_ns,
            random=Random(1),
        )
        self.values: dict[int, int] = {}  # by the call's place: what is true when it starts
        self.deaf = False
        self.cuts = 0
        self.received: list[tuple[str | None, str | None]] = []
        self._receive = self.level._receive
        self.level._receive = self._receive_unless_deaf  # type: ignore[method-assign]

    def _hold(self, call: ScriptedCall) -> Reply:
        self.values[id(call)] = self._truth[call.known["key"]]
        return Reply(None)

    def answer(self, call: ScriptedCall) -> None:
        value = str(self.values[id(call)])
        call.answer(Reply(0, value, body=value.encode()))

    def _receive_unless_deaf(self, payload: bytes) -> None:
        message = decode_message(payload)
        if message.sender != self.level._worker_id:
            self.received.append((message.key, message.prefix))
            if self.deaf:
                return
        self._receive(payload)

    def _drop(self, source: str, key: str | None, prefix: str | None) -> None:
        self.cache.drop(key=key, prefix=prefix)

    def _drop_all(self) -> None:
        self.deaf = False
        self.cuts += 1
        self.cache.drop(prefix="")

    def _distrust(self) -> None:
        self.cuts += 1
        self.cache.distrust()

    def cut(self) -> None:
        """End the subscription. The reconnection is prompt, and not immediate."""
        assert self.level._listener is not None
        self.level._listener.cancel()
        self.level._lose(ConnectionError())

    async def close(self) -> None:
        for call in self.upstream.in_flight:
            self.answer(call)
        self.guard.close()
        await self.level.close()


class History:
    """`acknowledged`: the oldest value of each key that may still be served."""

    def __init__(self, server: Server, client: Any, workers: int) -> None:
        self.truth = dict.fromkeys(KEYS, 1)
        self.acknowledged = dict.fromkeys(KEYS, 0)
        self.workers = [Worker(server, self.truth) for _ in range(workers)]
        self._server = server
        self._client = client
        self._asks: list[tuple[Worker, str, Asker, int]] = []

    async def run(self, steps: list[tuple[str, int, str]]) -> None:
        for worker in self.workers:
            await worker.level.open()
        try:
            for what, place, text in steps:
                await self._step(what, place, text)
                self._check()
        finally:
            for worker in self.workers:
                await worker.close()
        self._check()

    async def _step(self, what: str, place: int, text: str) -> None:
        index = place % len(self.workers)
        worker = self.workers[index]
        match what:
            case "ask":
                await self._ask(worker, text)
            case "answer":
                calls = [(each, call) for each in self.workers for call in each.upstream.in_flight]
                if calls:
                    each, call = calls[place % len(calls)]
                    each.answer(call)
                    await until(partial(is_idle, each.level))
            case "change and invalidate key":
                await self._invalidate(worker, text, None)
            case "change and invalidate prefix":
                await self._invalidate(worker, None, text)
            case "restart":
                await worker.close()
                self._check()
                self.workers[index] = Worker(self._server, self.truth)
                await self.workers[index].level.open()
            case "cut":
                if worker.level.coherent:
                    cuts = worker.cuts
                    worker.cut()
                    # Not `coherent`: it may be so again before the next look.
                    await until(lambda: worker.cuts > cuts)
            case "reconnect":
                await until(lambda: worker.level.reachable and worker.level.coherent)
            case "deafen":
                worker.deaf = True
            case "empty":
                await self._client.flushall()
            case "evict":
                keys = await self._client.keys(f"*:version:{text.partition('/')[0]}")
                if keys:
                    await self._client.delete(*keys)

    async def _ask(self, worker: Worker, key: str) -> None:
        asker = ask(worker.cache.start, {"key": key}, waits_ms=FOREVER_MS)
        knows = worker.level.coherent and not worker.deaf
        self._asks.append((worker, key, asker, self.acknowledged[key] if knows else 0))
        await until(lambda: asker.answered or not any(fetch._reading_l2 for fetch in worker.cache._fetches))

    async def _invalidate(self, worker: Worker, key: str | None, prefix: str | None) -> None:
        covered = [each for each in KEYS if each == key or (prefix is not None and covers_key(prefix, each))]
        for each_key in covered:
            self.truth[each_key] += 1
        now = {each_key: self.truth[each_key] for each_key in covered}
        before = [(len(each.received), each.cuts) for each in self.workers]
        worker.cache.drop(key=key, prefix=prefix)
        if not await worker.level.adrop(SOURCE, key=key, prefix=prefix):
            return
        for each, (count, cuts) in zip(self.workers, before, strict=True):
            if each is not worker:
                await until(partial(_knows, each, (key, prefix), count, cuts))
        for each_key, value in now.items():
            self.acknowledged[each_key] = max(self.acknowledged[each_key], value)

    def _check(self) -> None:
        for _, key, asker, least in self._asks:
            if asker.answered:
                assert int(asker.outcome) >= least, f"{key}: {asker.outcome} < {least}"
        self._asks = [each for each in self._asks if not each[2].answered]


def _knows(worker: Worker, what: tuple[str | None, str | None], count: int, cuts: int) -> bool:
    """Whether it has the message, or has noticed that it may miss some."""
    return what in worker.received[count:] or worker.cuts > cuts or not worker.level.coherent


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with valkey_server() as server:
        yield server


@given(st.integers(2, 3), st.lists(STEP, min_size=1, max_size=60))
def test_no_worker_serves_a_value_from_before_an_acknowledged_invalidation(
    server: Server, workers: int, steps: list[tuple[str, int, str]]
) -> None:
    async def main() -> None:
        async with raw_client(server) as client:
            await client.flushall()
            await History(server, client, workers).run(steps)

    asyncio.run(main())


def test_the_keys_of_the_model_cover_segments_that_start_alike() -> None:
    assert [key for key in KEYS if covers_key("u_1/", key)] == ["u_1", "u_1/a"]
    assert [key for key in KEYS if covers_key("u_1", key)] == ["u_1", "u_1/a", "u_10"]
    assert parse_key_text("u_1/a") == ("u_1", "a")
