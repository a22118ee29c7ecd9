"""The second level with a slow, dead, restarted or absent server: everything else is a miss."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from cashier.fanout.l2.interface import CachedAnswer
from cashier.fanout.l2.server_health import ServerHealth
from cashier.fanout.l2.valkey_backend import ValkeySettings
from cashier.fanout.l2.valkey_cache import ValkeyCache
from cashier.metrics.store import Store
from tests.fanout.l2.valkey_server import PATIENT, L2Worker, Server, l2_worker, raw_client, until, valkey_server

IMPATIENT = ValkeySettings(get_ms=60, command_ms=60_000, alone_ms=1)


@pytest.fixture
def server() -> Iterator[Server]:
    with valkey_server() as server:
        yield server


async def hit(worker: L2Worker, key: str) -> CachedAnswer:
    """Read until it is a hit: the first reads after a silence may be slow."""
    while True:
        kept, version = await worker.read(key)
        if kept is not None:
            return kept
        worker.put_soon(key, key.encode(), version)
        await asyncio.sleep(0)


async def test_an_absent_server_costs_misses_only() -> None:
    absent = Server()
    absent.port = 1
    with capture_logs() as logs:
        async with l2_worker(absent, ValkeySettings(close_ms=1)) as worker:
            got: list[CachedAnswer | None] = []
            assert not await worker.level.adrop("card", key="u_1")
            assert not worker.level.coherent
            worker.level.get("card", "u_1", lambda answer, _: got.append(answer))
            worker.level.get("card", "u_1", lambda answer, _: got.append(answer)).abandon()
            worker.level.put("card", "u_1", CachedAnswer(False, b"{}", 0), 60, b"")
            assert got == []
            await asyncio.sleep(0)
            assert got == [None]
            assert not worker.level.reachable
            assert "lost" in repr(worker.level)
    assert [log["event"] for log in logs] == ["shared cache lost", "invalidations were not sent before the stop"]
    assert logs[-1]["unsent"] == {"card": 1}
    assert (worker.level.misses.value, worker.level.dropped_puts.value, worker.level.losses.value) == (2, 1, 1)


@pytest.mark.moves("cashier_valkey_up")
async def test_the_gauge_says_whether_invalidations_are_received(server: Server) -> None:
    metrics = Store()
    async with l2_worker(server, metrics=metrics) as worker:
        up = metrics.gauge("cashier_valkey_up")
        await until(lambda: worker.level.coherent)
        worker.level.sample()
        assert up.value == 1
        server.kill()
        await until(lambda: not worker.level.coherent)
        worker.level.sample()
        assert up.value == 0
        server.start()
        await until(lambda: worker.level.coherent)
        worker.level.sample()
        assert up.value == 1


async def test_a_killed_server_costs_misses_until_it_is_back(server: Server) -> None:
    with capture_logs() as logs:
        async with l2_worker(server) as worker, l2_worker(server) as other:
            reads = [asyncio.create_task(ask_on(each)) for each in (worker, other)]
            await until(lambda: worker.level.hits.value > 10 and other.level.hits.value > 10)
            server.kill()
            await until(lambda: not worker.level.reachable and not other.level.reachable)
            misses = worker.level.misses.value
            await until(lambda: worker.level.misses.value > misses + 10)
            server.start()
            await worker.wait_for_invalidation(None)
            await other.wait_for_invalidation(None)
            hits = (worker.level.hits.value, other.level.hits.value)
            await until(lambda: worker.level.hits.value > hits[0] + 10 and other.level.hits.value > hits[1] + 10)
            for task in reads:
                task.cancel()
            await asyncio.gather(*reads, return_exceptions=True)
            assert all(task.cancelled() for task in reads), "a read ended in an error"
    assert worker.level.losses.value >= 1
    events = [log["event"] for log in logs]
    assert (
        events.count("shared cache lost")
        == events.count("shared cache recovered")
        == worker.level.losses.value + other.level.losses.value
    )


async def ask_on(worker: L2Worker) -> None:
    number = 0
    while True:
        number += 1
        await hit_or_miss(worker, f"u_{number % 7}")


async def hit_or_miss(worker: L2Worker, key: str) -> None:
    kept, version = await worker.read(key)
    assert kept is None or kept.body == key.encode(), "an answer for another key"
    worker.put_soon(key, key.encode(), version)
    await asyncio.sleep(0)


async def test_a_stalled_server_is_waited_for_within_the_bound_and_then_lost(server: Server) -> None:
    async with l2_worker(server, IMPATIENT) as worker:
        await hit(worker, "u_1")
        await until(lambda: worker.level.reachable)
        server.stall()
        started = time.monotonic()
        for _ in range(4):
            assert await worker.get("u_1") is None
        assert time.monotonic() - started < IMPATIENT.command_ms / 1000 / 2, "reads exceeded their bound"
        assert not worker.level.reachable
        errors = worker.level.errors.value
        for _ in range(100):
            assert await worker.get("u_1") is None
        assert worker.level.errors.value == errors, "a lost server was called"
        server.go_on()
        await until(lambda: worker.level.reachable)
        for number in range(20):
            assert (await hit(worker, f"v_{number}")).body == f"v_{number}".encode()


async def test_the_silence_of_the_subscription_reveals_a_stall_too(server: Server) -> None:
    async with l2_worker(server, ValkeySettings(get_ms=60_000, command_ms=60_000, alone_ms=1, silence_ms=50)) as worker:
        server.stall()
        await until(lambda: not worker.level.reachable)
        server.go_on()
        await worker.wait_for_invalidation(None)


async def test_an_invalidation_during_an_outage_is_sent_once_the_server_is_back(server: Server) -> None:
    async with l2_worker(server, IMPATIENT) as worker, l2_worker(server) as other:
        await hit(worker, "u_1")
        server.stall()
        await until_lost(worker)
        worker.level.drop("card", key="u_1")
        assert await worker.read("u_2") == (None, None)
        worker.level.put("card", "u_2", CachedAnswer(False, b"{}", 0), 60, bytes(16))
        server.go_on()
        await other.wait_for_invalidation(("card", "u_1", None))
        await worker.written()
        assert await other.get("u_1") is None
        assert await other.get("u_2") is None, "a put during the outage was not dropped"


async def until_lost(worker: L2Worker) -> None:
    while worker.level.reachable:
        await worker.get("u_1")


async def test_a_broken_subscription_is_renewed_and_its_gap_is_reported(server: Server) -> None:
    async with raw_client(server) as client, l2_worker(server) as worker, l2_worker(server) as other:
        assert await client.client_kill_filter(_type="pubsub") == 2
        await worker.wait_for_invalidation(None)
        await other.wait_for_invalidation(None)
        await until(lambda: worker.level.reachable and other.level.reachable)
        other.level.drop("card", key="u_1")
        await worker.wait_for_invalidation(("card", "u_1", None))
        assert worker.received == [None, ("card", "u_1", None)]


async def test_answers_to_calls_during_a_subscription_gap_are_not_written(server: Server) -> None:
    async with raw_client(server) as client, l2_worker(server) as worker:
        await client.client_kill_filter(_type="pubsub")
        await worker.wait_for_invalidation(None)
        await until(lambda: worker.level.reachable)
        await worker.put("u_1", age_ms=60_000, ttl_s=120)
        assert await client.exists(worker.names("u_1")[0]) == 0
        await asyncio.sleep(0.002)  # later than the new subscription by at least one millisecond
        await worker.put("u_2")
        assert await client.exists(worker.names("u_2")[0]) == 1


async def test_a_full_server_still_serves_reads(server: Server) -> None:
    async with raw_client(server) as client, l2_worker(server) as worker:
        await worker.put("u_1")
        await client.config_set("maxmemory", 1)
        await worker.put("u_2")
        assert await worker.get("u_1") is not None
        assert worker.level.reachable
        assert await worker.read("u_3") == (None, None), "what could not be written needs no version"


async def test_a_bug_in_a_callback_is_reported_and_the_subscription_is_renewed(server: Server) -> None:
    errors: list[BaseException] = []
    calls: list[tuple[Any, ...]] = []

    def broken(*what: Any) -> None:
        calls.append(what)
        if len(calls) == 1:
            raise ZeroDivisionError

    async with l2_worker(server) as other:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
        level = ValkeyCache(server.url, broken, lambda: None, PATIENT)
        await level.open()
        other.level.drop("card", key="u_1")
        await until(lambda: level.losses.value == 1 and level.reachable)
        other.level.drop("card", key="u_2")
        await until(lambda: len(calls) == 2)
        await level.close()
    assert [type(error) for error in errors] == [ZeroDivisionError]


def good() -> ServerHealth:
    health = ServerHealth()
    health.record_recovery()
    return health


def test_a_server_is_unavailable_before_its_first_recovery() -> None:
    health = ServerHealth()
    assert not health.available
    health.record_recovery()
    assert health.available


def test_one_failure_loses_the_server_and_only_the_first_counts() -> None:
    health = good()
    assert health.record_failure()
    assert not health.record_failure()
    assert not health.available
    assert "lost" in repr(health)


def test_three_slow_answers_in_a_row_lose_the_server() -> None:
    health = good()
    assert [health.record_slow(started, started + 1) for started in range(3)] == [False, False, True]
    assert not health.record_slow(3, 4), "it was lost already"


def test_a_fast_answer_ends_the_row() -> None:
    health = good()
    for started in range(10):
        assert not health.record_slow(started, started + 0.5)
        health.record_fast()
    assert health.available


def test_concurrent_slow_answers_count_once() -> None:
    health = good()
    assert not any(health.record_slow(started / 100, 1) for started in range(100))
    assert not health.record_slow(1, 2)
    assert health.record_slow(2, 3)


def test_slow_answers_are_forgotten_on_recovery() -> None:
    health = good()
    for started in range(3):
        health.record_slow(started, started + 1)
    health.record_recovery()
    assert not health.record_slow(10, 11)
