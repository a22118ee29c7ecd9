"""The second level with a real, healthy server."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from cashier.fanout.l2.entry_codec import StoredAnswer, pack
from cashier.fanout.l2.interface import CachedAnswer, SecondLevel
from cashier.fanout.l2.resp import command
from cashier.fanout.l2.valkey_backend import CHANNEL, ValkeySettings
from cashier.fanout.l2.valkey_cache import ValkeyCache
from tests.fanout.l2.valkey_server import PATIENT, L2Worker, Server, l2_worker, until


@pytest.mark.moves("cashier_valkey_reads_total", "cashier_valkey_writes_total")
async def test_another_worker_reads_an_answer_with_its_age(worker: L2Worker, other: L2Worker) -> None:
    assert await other.get("u_1") is None
    body = b'{"user_id": "u_1"}' * 100
    await worker.put("u_1", body, age_ms=5000)
    stored = await other.get("u_1")
    assert stored is not None
    assert (stored.not_found, stored.body) == (False, body)
    assert stored.age_ms >= 5000
    level: SecondLevel = other.level
    assert level.reachable
    assert (worker.level.puts.value, other.level.hits.value, other.level.misses.value) == (1, 1, 1)


async def test_not_found_is_stored_too(worker: L2Worker) -> None:
    _, version = await worker.read("u_1", "member")
    worker.put_soon("u_1", b"", version, source="member", not_found=True)
    await worker.written()
    stored = await worker.get("u_1", "member")
    assert stored is not None
    assert stored.not_found
    assert await worker.get("u_1", "card") is None, "of another source"


async def test_an_entry_expires_by_its_ttl_from_the_start_of_the_call(worker: L2Worker, client: Any) -> None:
    await worker.put("u_1", age_ms=10_000, ttl_s=60)
    assert 0 < await client.pttl(worker.names("u_1")[0]) <= 50_000
    await worker.put("u_2", age_ms=60_000, ttl_s=60)
    assert await client.exists(worker.names("u_2")[0]) == 0
    assert worker.level.dropped_puts.value == 1


async def test_an_entry_that_the_server_keeps_too_long_is_a_miss(server: Server, worker: L2Worker) -> None:
    await worker.put("u_1", ttl_s=60)
    later = asyncio.get_running_loop().time
    async with l2_worker(server, now_ms=lambda: 4_000_000_000_000 + round(later())) as late:
        assert await late.get("u_1") is None


@pytest.mark.parametrize(
    "value", [b"", b"garbage", bytes(range(100)), b"\x02" + pack(StoredAnswer(False, b"{}", 0, 1))[1:]]
)
async def test_a_foreign_value_is_a_miss_and_is_overwritten(worker: L2Worker, client: Any, value: bytes) -> None:
    await worker.put("u_1")
    await client.set(worker.names("u_1")[0], value)
    assert await worker.get("u_1") is None
    await worker.put("u_1")
    assert await worker.get("u_1") is not None


@pytest.mark.moves("cashier_valkey_errors_total")
async def test_a_key_of_another_type_is_a_miss_and_no_loss(worker: L2Worker, client: Any) -> None:
    await client.lpush(worker.names("u_1")[0], "no string")
    assert await worker.get("u_1") is None
    assert worker.level.reachable
    assert worker.level.errors.value == 1


async def test_any_text_may_be_a_key(worker: L2Worker) -> None:
    for number, key in enumerate(("", "卡:1", "a b\r\nc", "\ud800", "*")):
        await worker.put(key, b"%d" % number)
        stored = await worker.get(key)
        assert stored is not None
        assert stored.body == b"%d" % number


async def test_a_read_answers_after_it_returns_and_never_after_abandon(worker: L2Worker) -> None:
    await worker.put("u_1")
    got: list[CachedAnswer | None] = []
    read = worker.level.get("card", "u_1", lambda answer, _: got.append(answer))
    assert got == []
    read.abandon()
    read.abandon()
    assert await worker.get("u_1") is not None
    await until(lambda: worker.level.hits.value == 2)
    assert got == []


async def test_a_dropped_key_is_deleted_and_published_to_the_other_workers(
    worker: L2Worker, other: L2Worker, client: Any
) -> None:
    await worker.put("u_1")
    await worker.put("u_2")
    worker.level.drop("card", key="u_1")
    await other.wait_for_invalidation(("card", "u_1", None))
    assert await client.exists(worker.names("u_1")[0]) == 0
    assert await other.get("u_2") is not None
    await other.written()
    assert worker.received == [], "a worker received its own message"
    assert other.received == [("card", "u_1", None)]


async def test_a_prefix_is_literal_and_applies_to_its_source_only(worker: L2Worker, other: L2Worker) -> None:
    for key in ("u*1", "u*2", "u_1", "u[a]1", "u\\1"):
        await worker.put(key)
    await worker.put("u*1", source="member")
    for prefix in ("u*", "u[a]", "u\\"):
        worker.level.drop("card", prefix=prefix)
        await other.wait_for_invalidation(("card", None, prefix))
    left = [key for key in ("u*1", "u*2", "u_1", "u[a]1", "u\\1") if await other.get(key) is not None]
    assert left == ["u_1"]
    assert await other.get("u*1", "member") is not None


async def test_an_answer_to_a_call_before_an_invalidation_is_not_written_after_it(
    worker: L2Worker, other: L2Worker, client: Any
) -> None:
    other.level.drop("card", key="u_1")
    await worker.wait_for_invalidation(("card", "u_1", None))
    await worker.put("u_1", b"old", age_ms=30_000)
    await other.put("u_1", b"old", age_ms=30_000)
    assert await client.exists(worker.names("u_1")[0]) == 0
    assert (worker.level.dropped_puts.value, other.level.dropped_puts.value) == (1, 1)


async def test_a_write_queued_before_an_invalidation_is_not_executed_after_it(worker: L2Worker) -> None:
    _, version = await worker.read("u_1")
    worker.put_soon("u_1", b"old", version, age_ms=500)
    worker.level.drop("card", prefix="u_")
    await worker.written()
    assert await worker.get("u_1") is None


async def test_an_old_value_written_late_is_not_served(worker: L2Worker, other: L2Worker, client: Any) -> None:
    old = pack(StoredAnswer(False, b"old", worker.level._now_ms() - 500, 60_000))
    other.level.drop("card", key="u_1")
    await worker.wait_for_invalidation(("card", "u_1", None))
    await worker.written()
    await client.set("cashier:1:card:u_1", old)
    assert await worker.get("u_1") is None
    assert await other.get("u_1") is None


async def test_an_old_value_read_just_before_the_invalidation_is_not_delivered(worker: L2Worker) -> None:
    await worker.put("u_1", b"old")
    got: list[CachedAnswer | None] = []
    worker.level.get("card", "u_1", lambda answer, _: got.append(answer))
    worker.level.drop("card", key="u_1")
    await until(lambda: bool(got))
    assert got == [None]


async def test_noise_on_the_channel_is_ignored(worker: L2Worker, other: L2Worker, client: Any) -> None:
    for noise in (b"", b"noise", os.urandom(50), b"\x94\xc4\x01a\xa1s\xc0\xc0"):
        await client.publish(CHANNEL, noise)
    other.level.drop("card", key="u_1")
    await worker.wait_for_invalidation(("card", "u_1", None))
    assert worker.received == [("card", "u_1", None)]
    assert worker.level.reachable


async def test_either_a_key_or_a_prefix_is_dropped(worker: L2Worker) -> None:
    for wrong in ({}, {"key": "u_1", "prefix": "u_"}):
        with pytest.raises(ValueError, match="either a key or a prefix"):
            worker.level.drop("card", **wrong)


async def test_queued_deletes_are_executed_before_close(server: Server, client: Any) -> None:
    async with l2_worker(server) as worker:
        for number in range(50):
            await worker.put(f"u_{number}")
        for number in range(50):
            worker.level.drop("card", key=f"u_{number}")
    assert await client.keys("*:answer:*") == []


async def test_the_repr_shows_health_and_counts(worker: L2Worker) -> None:
    await worker.get("u_1")
    assert "available" in repr(worker.level)
    assert "misses=1" in repr(worker.level)


async def test_a_password_works_and_a_wrong_one_loses_the_server(server: Server, client: Any) -> None:
    await client.config_set("requirepass", "s3cret")
    try:
        for password, reachable in (("s3cret", True), ("wrong", False)):
            url = f"redis://:{password}@127.0.0.1:{server.port}"
            level = ValkeyCache(url, lambda *_: None, lambda: None, PATIENT)
            await level.open()
            assert level.reachable is reachable
            await level.close()
    finally:
        await client.config_set("requirepass", "")


class Subscription:
    """A subscription without messages. It answers `pongs` pings, and no later one."""

    def __init__(self, pongs: int) -> None:
        self.pongs = pongs
        self.closed = False

    async def ends_within(self, _timeout_s: float) -> bool:
        return False

    async def ask(self, ping: bytes) -> None:
        assert ping == command("PING")
        if not self.pongs:
            await asyncio.Event().wait()
        self.pongs -= 1

    def close(self) -> None:
        self.closed = True


@pytest.mark.moves("cashier_valkey_losses_total")
async def test_a_silent_subscription_is_pinged_and_lost_only_without_an_answer(server: Server) -> None:
    settings = ValkeySettings(get_ms=10_000, command_ms=10_000, alone_ms=1, silence_ms=50)
    async with l2_worker(server, settings) as worker:
        silent = Subscription(pongs=3)
        await worker.level._listen_to(silent)  # type: ignore[arg-type]  # the methods that it calls
        assert (silent.pongs, silent.closed) == (0, True)
        assert worker.level.losses.value == 1
        assert not worker.level.coherent
        await until(lambda: worker.level.reachable and worker.level.coherent)


async def test_a_subscription_that_is_cancelled_at_once_is_closed_too(server: Server) -> None:
    async with l2_worker(server) as worker:
        subscription = Subscription(pongs=3)
        worker.level._listen_to(subscription).cancel()  # type: ignore[arg-type]  # the methods that it calls
        await until(lambda: subscription.closed)
        assert worker.cuts == 1


async def test_reads_in_progress_at_close_are_misses(server: Server) -> None:
    got: list[CachedAnswer | None] = []
    async with l2_worker(server) as worker:
        await worker.put("u_1")
        server.stall()
        worker.level.get("card", "u_1", lambda answer, _: got.append(answer))
        assert got == []
    server.go_on()
    assert got == [None]


async def test_concurrent_reads_are_bounded(server: Server) -> None:
    async with l2_worker(server, ValkeySettings(get_ms=10_000, command_ms=10_000, alone_ms=1, gets=2)) as worker:
        await worker.put("u_1")
        got: list[CachedAnswer | None] = []
        for _ in range(3):
            worker.level.get("card", "u_1", lambda answer, _: got.append(answer))
        assert got == []
        await asyncio.sleep(0)
        assert got == [None], "the third read must miss in the next loop turn"
        await until(lambda: len(got) == 3)
        assert None not in got[1:]


async def test_queued_writes_are_bounded(server: Server, client: Any) -> None:
    async with l2_worker(server, ValkeySettings(get_ms=10_000, command_ms=10_000, alone_ms=1, writes=2)) as worker:
        _, version = await worker.read("a")
        for key in ("a", "a/b", "a/c"):
            worker.put_soon(key, b"{}", version)
        assert worker.level.dropped_puts.value == 1
        await worker.written()
        assert sorted(await client.keys("*:answer:*")) == [worker.names(key)[0] for key in ("a", "a/b")]
