"""Invalidations between workers on a real server: what an acknowledgement means, and its cost."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from cashier.fanout.l2.entry_codec import StoredAnswer, pack
from cashier.fanout.l2.invalidation import LONGEST_TEXT
from cashier.fanout.l2.valkey_backend import CHANNEL, TEXT_PREFIXES, WRITE, ValkeySettings
from tests.fanout.l2.valkey_server import L2Worker, Server, Wire, l2_worker, raw_client, until, valkey_server

# Notices an outage at once, and waits for nothing.
PROMPT = ValkeySettings(get_ms=10_000, command_ms=200, alone_ms=1, silence_ms=50, close_ms=10_000)


class MessageOfEarlierRelease(msgspec.Struct, frozen=True, array_like=True):
    sender: bytes
    source: str
    key: str | None
    prefix: str | None


async def write_with_version(client: Any, worker: L2Worker, key: str, version: bytes, body: bytes = b"old") -> bool:
    """Write as a worker does that has received no invalidation. Whether it was accepted."""
    packed = pack(StoredAnswer(False, body, worker.level._now_ms(), 60_000))
    return bool(await client.eval(WRITE.text, 3, *worker.names(key), version, packed, 60_000, 600_000))


# What an acknowledgement means


async def test_an_acknowledged_invalidation_is_stored_and_sent_to_every_worker(
    worker: L2Worker, other: L2Worker
) -> None:
    await worker.put("u_1")
    assert await worker.level.adrop("card", key="u_1")
    assert await worker.get("u_1") is None
    await other.wait_for_invalidation(("card", "u_1", None))
    assert worker.received == [], "a worker received its own message"


async def test_two_workers_that_invalidate_at_once_are_both_acknowledged(worker: L2Worker, other: L2Worker) -> None:
    await worker.put("u_1")
    drops = [each.level.adrop("card", key="u_1") for each in (worker, other) for _ in range(20)]
    assert all(await asyncio.gather(*drops))
    assert await worker.get("u_1") is None
    assert await other.get("u_1") is None


async def test_a_frozen_server_acknowledges_nothing_and_gets_it_later() -> None:
    with valkey_server() as server:
        async with l2_worker(server, PROMPT) as worker, l2_worker(server) as other:
            await worker.put("u_1", b"old")
            await until(lambda: worker.level.coherent)  # also on a busy machine
            server.stall()
            drops = [asyncio.create_task(worker.level.adrop("card", key="u_1")) for _ in range(3)]
            assert await asyncio.gather(*drops) == [False] * 3
            await until(lambda: not worker.level.coherent)
            assert worker.cuts == 1
            assert not await worker.level.adrop("card", key="u_2"), "there is nothing to wait for"
            server.go_on()
            await other.wait_for_invalidation(("card", "u_1", None))
            await other.wait_for_invalidation(("card", "u_2", None))
            await until(lambda: worker.level.coherent)
            assert await worker.level.adrop("card", key="u_3")
            assert await other.get("u_1") is None


async def test_a_stop_waits_for_a_frozen_server() -> None:
    with valkey_server() as server:
        async with l2_worker(server) as other, raw_client(server) as client:
            async with l2_worker(server, PROMPT) as worker:
                for number in range(10):
                    await worker.put(f"u_{number}", b"old")
                server.stall()
                await until(lambda: not worker.level.reachable)
                for number in range(10):
                    worker.level.drop("card", key=f"u_{number}")
                asyncio.get_running_loop().call_later(0.3, server.go_on)
            assert [await other.get(f"u_{number}") for number in range(10)] == [None] * 10
            assert await client.ping()


async def test_a_stop_logs_what_it_could_not_send() -> None:
    with valkey_server() as server, capture_logs() as logs:
        async with l2_worker(server, msgspec.structs.replace(PROMPT, close_ms=50)) as worker:
            server.kill()
            await until(lambda: not worker.level.reachable)
            worker.level.drop("card", key="u_1")
            worker.level.drop("card", key="u_2")
            worker.level.drop("member", prefix="u_1/")
    assert [log["unsent"] for log in logs if "unsent" in log] == [{"card": 2, "member": 1}]
    assert "u_1" not in str(logs), "ids do not belong into logs"


async def test_a_replica_gets_the_message_before_it_refuses_the_rest() -> None:
    with valkey_server() as server, valkey_server() as primary:
        async with l2_worker(server) as other, raw_client(server) as client, l2_worker(server, PROMPT) as worker:
            await worker.put("u_1", b"old")
            await client.execute_command("REPLICAOF", "127.0.0.1", primary.port)
            assert not await worker.level.adrop("card", key="u_1"), "workers at the primary do not get it"
            await other.wait_for_invalidation(("card", "u_1", None))
            assert await other.get("u_1") is None
            await until(lambda: not worker.level.coherent and not worker.level.reachable)
            await client.execute_command("REPLICAOF", "NO", "ONE")
            await until(lambda: worker.level.coherent)
            assert await worker.level.adrop("card", key="u_1")


async def test_a_worker_finds_out_that_its_server_became_a_replica() -> None:
    with valkey_server() as server, valkey_server() as primary:
        # Only the change of role may cut it off.
        patient = msgspec.structs.replace(PROMPT, command_ms=10_000)
        async with raw_client(server) as client, l2_worker(server, patient) as worker:
            await client.execute_command("REPLICAOF", "127.0.0.1", primary.port)
            await until(lambda: worker.cuts == 1)
            assert not worker.level.reachable


async def test_a_message_that_does_not_come_back_is_not_acknowledged(worker: L2Worker, server: Server) -> None:
    """As when commands and subscription reach two servers, after a failover behind one name."""
    async with l2_worker(server, PROMPT) as cut:
        cut.level._publisher.returned = lambda token: None  # type: ignore[method-assign]
        assert not await cut.level.adrop("card", key="u_1")
        await worker.wait_for_invalidation(("card", "u_1", None))
        await until(lambda: cut.cuts > 0)
        del cut.level._publisher.returned
        await until(lambda: cut.level.coherent)
        assert await cut.level.adrop("card", key="u_2")


async def test_a_server_that_is_full_still_invalidates(worker: L2Worker, other: L2Worker, client: Any) -> None:
    await worker.put("u_1")
    await worker.put("m_1")
    await client.config_set("maxmemory", 1)
    try:
        assert await worker.level.adrop("card", key="u_1")
        await other.wait_for_invalidation(("card", "u_1", None))
        assert await worker.level.adrop("card", prefix="m")
    finally:
        await client.config_set("maxmemory", 0)
    async with l2_worker(Server.at(worker)) as new:
        assert await new.get("u_1") is None
        assert await new.get("m_1") is None


async def test_a_cut_subscription_is_reported_at_once_and_again_when_it_is_back(worker: L2Worker, client: Any) -> None:
    assert worker.level.coherent
    await client.client_kill_filter(_type="pubsub")
    await until(lambda: worker.cuts == 1)
    await worker.wait_for_invalidation(None)
    await until(lambda: worker.level.coherent)


async def test_a_connection_that_dies_in_silence_is_noticed_and_its_late_bytes_harm_nothing(
    worker: L2Worker, server: Server
) -> None:
    wire = Wire(server)
    async with await asyncio.start_server(wire.serve, "127.0.0.1", 0) as proxy:
        behind = Server()
        behind.port = proxy.sockets[0].getsockname()[1]
        async with l2_worker(behind, PROMPT) as cut:
            await cut.put("u_1")
            wire.open.clear()
            assert await worker.level.adrop("card", key="u_1"), "the server does not know that it is dead"
            await until(lambda: cut.cuts == 1)
            assert not cut.level.coherent
            assert not await cut.level.adrop("card", key="u_2")
            wire.open.set()
            await cut.wait_for_invalidation(None)
            await until(lambda: cut.level.coherent and cut.level.reachable)
            assert await cut.get("u_1") is None
            await worker.wait_for_invalidation(("card", "u_2", None))
            assert await cut.level.adrop("card", key="u_3")


# Versions


@pytest.mark.parametrize("what", [{"key": "u_1"}, {"prefix": "u_1/"}, {"prefix": "u_"}, {"prefix": ""}], ids=repr)
@pytest.mark.parametrize("before", [False, True], ids=["empty", "stored"])
async def test_an_answer_to_a_call_before_an_invalidation_is_refused_although_its_message_is_lost(
    worker: L2Worker, client: Any, what: dict[str, str], before: bool
) -> None:
    if before:
        await worker.put("u_1", b"old")
    _, version = await worker.read("u_1")
    assert version is not None
    assert await worker.level.adrop("card", **what)
    assert not await write_with_version(client, worker, "u_1", version)
    async with l2_worker(Server.at(worker)) as new:
        answer, version = await new.read("u_1")
        assert answer is None
        assert version is not None
        assert await write_with_version(client, worker, "u_1", version, b"new")
        answer = await new.get("u_1")
        assert answer is not None
        assert answer.body == b"new"


async def test_a_refused_write_drops_the_answer_here_too(worker: L2Worker, client: Any) -> None:
    _, version = await worker.read("u_1")
    await client.set(worker.names("u_1")[1], b"another!")
    worker.put_soon("u_1", b"old", version)
    await worker.wait_for_invalidation(("card", "u_1", None))
    assert worker.level.dropped_puts.value == 1


async def test_writers_of_one_new_segment_do_not_refuse_each_other(worker: L2Worker, other: L2Worker) -> None:
    (_, first), (_, second) = await worker.read("u_1/a"), await other.read("u_1/b")
    worker.put_soon("u_1/a", b"{}", first)
    await worker.written()
    other.put_soon("u_1/b", b"{}", second)
    await other.written()
    assert await worker.get("u_1/b") is not None
    assert await worker.get("u_1/a") is not None


async def test_an_older_answer_does_not_replace_a_younger_one(worker: L2Worker, other: L2Worker) -> None:
    (_, first), (_, second) = await worker.read("u_1"), await other.read("u_1")
    worker.put_soon("u_1", b"younger", first)
    await worker.written()
    other.put_soon("u_1", b"older", second, age_ms=1000)
    await other.written()
    answer = await other.get("u_1")
    assert answer is not None
    assert answer.body == b"younger"


async def test_answers_whose_version_is_evicted_are_misses(worker: L2Worker, client: Any) -> None:
    for part in (1, 2):
        await worker.put("u_1")
        await client.delete(worker.names("u_1")[part])
        assert await worker.get("u_1") is None


async def test_an_emptied_server_takes_no_answer_to_an_earlier_call(worker: L2Worker, client: Any) -> None:
    await worker.put("u_1")
    _, version = await worker.read("u_1")
    assert version is not None
    await client.flushall()
    assert not await write_with_version(client, worker, "u_1", version)


async def test_an_invalidation_and_an_eviction_during_a_call_do_not_cancel_out(worker: L2Worker, client: Any) -> None:
    _, version = await worker.read("u_1")
    assert version is not None
    assert await worker.level.adrop("card", key="u_1")
    await client.flushall()
    assert not await write_with_version(client, worker, "u_1", version)


async def test_a_version_outlives_the_answers_that_are_stored_with_it(worker: L2Worker, client: Any) -> None:
    await worker.put("u_1/a", ttl_s=10)
    await worker.put("u_1/b", ttl_s=80_000)
    answer, version, prefixes = [await client.pttl(key) for key in worker.names("u_1/b")]
    assert 79_000_000 < answer < min(version, prefixes)


async def test_answers_from_before_a_restart_are_not_read() -> None:
    """A server that restores a snapshot, or was a replica, may have missed an invalidation."""
    with valkey_server() as server:
        async with l2_worker(server, PROMPT) as worker:
            await worker.put("u_1")
            names = worker.names("u_1")
            server.kill()
            server.start()
            await worker.wait_for_invalidation(None)
            await until(lambda: worker.level.reachable)
            assert set(worker.names("u_1")).isdisjoint(names)


# Keys and prefixes

KEYS = (
    "u_1",
    "u_1/CNY",
    "u_1/CNY/CN",
    "u_10",
    "u_10/CNY",
    "u_",
    "u",
    "",
    "/",
    "/u_1",
    "u*",
    "u[a]?",
    "u%2F1",
    "u\\",
    "卡/1",
)


@pytest.mark.parametrize(
    "prefix", ["u_1/", "u_1", "u_1/CNY/", "u_1/C", "u_", "", "/", "u*", "u[a]", "u%", "u\\", "卡", "卡/", "v/"]
)
async def test_a_prefix_invalidates_the_keys_that_it_covers_and_no_other_segment(
    worker: L2Worker, client: Any, prefix: str
) -> None:
    for key in KEYS:
        await worker.put(key)
    await worker.put("u_1", source="member")
    assert await worker.level.adrop("card", prefix=prefix)
    async with l2_worker(Server.at(worker)) as new:
        left = {key for key in KEYS if await new.get(key) is not None}
        covered = {key for key in KEYS if key.startswith(prefix) or key + "/" == prefix}
        assert not left & covered
        # Below a segment the store is coarser: it invalidates all of the segment.
        segments = {key.partition("/")[0] for key in covered} if "/" in prefix else set()
        assert {key for key in KEYS if key not in covered and key.partition("/")[0] not in segments} <= left
        assert await new.get("u_1", "member") is not None
    commands = await client.info("commandstats")
    assert "cmdstat_scan" not in commands
    assert "cmdstat_keys" not in commands


async def test_one_user_is_not_another_whose_id_starts_alike(worker: L2Worker) -> None:
    for key in ("u_1", "u_1/CNY", "u_10", "u_10/CNY"):
        await worker.put(key)
    assert await worker.level.adrop("card", prefix="u_1/")
    assert [await worker.get(key) is None for key in ("u_1", "u_1/CNY", "u_10", "u_10/CNY")] == [
        True,
        True,
        False,
        False,
    ]


async def test_an_answer_is_older_than_more_prefixes_than_are_kept(worker: L2Worker, client: Any) -> None:
    await worker.put("u_1")
    await asyncio.gather(*[worker.level.adrop("card", prefix=f"x_{number}") for number in range(TEXT_PREFIXES - 1)])
    async with l2_worker(Server.at(worker)) as new:
        assert await new.get("u_1") is not None
        assert await worker.level.adrop("card", prefix="y")
        assert await new.get("u_1") is None, "the new worker cannot prove that the entry is valid"
        assert await client.llen(worker.names("u_1")[2]) == TEXT_PREFIXES


@pytest.mark.parametrize("prefix", ["u_{}/", "u_{}"])
async def test_fifty_prefixes_are_one_round_trip_of_constant_commands(
    worker: L2Worker, client: Any, prefix: str
) -> None:
    await client.config_resetstat()
    assert all(await asyncio.gather(*[worker.level.adrop("card", prefix=prefix.format(n)) for n in range(50)]))
    commands = await client.info("commandstats")
    assert commands["cmdstat_publish"]["calls"] == 50 * (2 if prefix.endswith("/") else 1)
    writes = {name: commands[name]["calls"] for name in ("cmdstat_set", "cmdstat_lpush") if name in commands}
    assert sum(writes.values()) == 50
    assert set(commands) <= {
        f"cmdstat_{name}"
        for name in ("publish", "set", "lpush", "ltrim", "pexpire", "role", "ping", "config|resetstat", "info")
    }


@pytest.mark.parametrize("text", ["u" * (LONGEST_TEXT + 1), "u" * 10_000_000, "u_1\ud800", "\udfff"], ids=len)
async def test_a_text_that_no_message_can_carry_invalidates_more(worker: L2Worker, other: L2Worker, text: str) -> None:
    await worker.put("u")
    assert await worker.level.adrop("card", key=text)
    await until(lambda: bool(other.received))
    (received,) = other.received
    assert received is not None
    source, key, prefix = received
    assert (source, key) == ("card", None)
    assert prefix is not None
    assert text.startswith(prefix)
    assert len(prefix) <= LONGEST_TEXT
    assert await worker.read(text * 2 if len(text) < LONGEST_TEXT else text) is not None


@pytest.mark.proof
async def test_a_prefix_costs_the_same_beside_a_million_keys(worker: L2Worker, other: L2Worker, client: Any) -> None:
    await worker.put("u_1/CNY")
    await worker.put("u_2/CNY")
    start = worker.names("")[0]
    for first in range(0, 1_000_000, 50_000):
        await client.mset({start + b"x_%d" % number: b"x" for number in range(first, first + 50_000)})
    assert await client.dbsize() > 1_000_000
    await client.config_resetstat()
    for prefix in ("u_1/", "u_2"):
        assert await worker.level.adrop("card", prefix=prefix)
        await other.wait_for_invalidation(("card", None, prefix))
    commands = await client.info("commandstats")
    watch = {f"cmdstat_{name}" for name in ("role", "ping", "config|resetstat", "info", "subscribe")}
    # A prefix that ends in `/` is also published in the form of earlier releases.
    assert {name: commands[name]["calls"] for name in commands if name not in watch} == {
        f"cmdstat_{name}": calls
        for name, calls in {"publish": 3, "set": 1, "lpush": 1, "ltrim": 1, "pexpire": 1}.items()
    }
    assert await other.get("u_1/CNY") is None
    assert await other.get("u_2/CNY") is None


# Other releases on the same server


async def test_a_message_of_an_earlier_release_is_understood(worker: L2Worker, client: Any) -> None:
    await worker.put("u_1")
    old = MessageOfEarlierRelease(os.urandom(8), "card", "u_1", None)
    await client.publish(CHANNEL, msgspec.msgpack.encode(old))
    await worker.wait_for_invalidation(("card", "u_1", None))
    await worker.written()
    async with l2_worker(Server.at(worker)) as new:
        assert await new.get("u_1") is None


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({"key": "u_1"}, [("u_1", None)]),
        ({"prefix": "u_1"}, [(None, "u_1")]),
        ({"prefix": "u_1/"}, [("u_1", None), (None, "u_1/")]),  # there, the prefix does not cover the key
        ({"prefix": "u_1/m_1/"}, [("u_1/m_1", None), (None, "u_1/m_1/")]),
        ({"prefix": ""}, [(None, "")]),
    ],
)
async def test_an_earlier_release_invalidates_what_this_one_does(
    worker: L2Worker, other: L2Worker, client: Any, what: dict[str, str], expected: list[tuple[str | None, str | None]]
) -> None:
    async with client.pubsub() as listening:
        await listening.subscribe(CHANNEL)
        await listening.get_message(timeout=30)
        assert await worker.level.adrop("card", **what)
        messages = [await listening.get_message(timeout=30) for _ in expected]
    old = [msgspec.msgpack.decode(message["data"], type=MessageOfEarlierRelease) for message in messages]
    assert [(message.source, message.key, message.prefix) for message in old] == [("card", *each) for each in expected]
    await until(lambda: bool(other.received))
    assert other.received == [("card", what.get("key"), what.get("prefix"))], "one is not for this release"


async def test_entries_of_an_earlier_release_are_not_read(worker: L2Worker, client: Any) -> None:
    await client.set("cashier:1:card:u_1", pack(StoredAnswer(False, b"{}", worker.level._now_ms(), 60_000)))
    assert await worker.get("u_1") is None


async def test_a_message_of_a_later_release_may_have_more_fields(worker: L2Worker, client: Any) -> None:
    later = msgspec.msgpack.encode([os.urandom(8), "card", "u_1", None, os.urandom(8), {"more": 1}])
    await client.publish(CHANNEL, later)
    await worker.wait_for_invalidation(("card", "u_1", None))
    assert worker.level.errors.value == 0
