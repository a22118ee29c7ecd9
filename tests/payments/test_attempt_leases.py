"""Claims across workers, on a real Valkey.

Without a store, or with a broken one, a claim blocks nothing and raises nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cashier.fanout.l2.valkey_backend import ValkeySettings
from cashier.payments.attempt_leases import LONGEST_MS, AttemptLeases, AttemptUnknown, OtherAttempt, OwnAttempt
from tests.fanout.l2.valkey_server import PATIENT, Server, l2_worker, raw_client, until, valkey_server

KEY = "cashier:1:@live:o_1"


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """One server for all tests that do not kill it: starting it takes most of their time."""
    with valkey_server() as server:
        yield server


@pytest.fixture
def server() -> Iterator[Server]:
    with valkey_server() as server:
        yield server


@pytest.fixture
async def clean(shared: Server) -> Server:
    async with raw_client(shared) as client:
        await client.flushall()
    return shared


async def test_the_first_claim_holds_and_others_get_its_holder(clean: Server) -> None:
    async with l2_worker(clean) as first, l2_worker(clean) as second:
        own, others = AttemptLeases(first.level), AttemptLeases(second.level)
        assert await own.claim("o_1", "pay_1", 60_000) == OwnAttempt()
        assert await others.claim("o_1", "pay_2", 60_000) == OtherAttempt("pay_1")
        assert await others.claim("o_2", "pay_2", 60_000) == OwnAttempt()
        assert await others.claim("o_1", "pay_1", 60_000) == OwnAttempt(), (
            "the same attempt, claimed again by another worker"
        )
    assert (others.own, others.other, others.unknown) == (2, 1, 0)


async def test_of_many_concurrent_claims_exactly_one_holds(clean: Server) -> None:
    assert PATIENT.gets >= 20, "each worker may send 20 at once"
    async with l2_worker(clean) as first, l2_worker(clean) as second:
        workers = [AttemptLeases(first.level), AttemptLeases(second.level)]
        results = await asyncio.gather(
            *(workers[number % 2].claim("o_1", f"pay_{number}", 60_000) for number in range(40))
        )
        winners = [number for number, result in enumerate(results) if result == OwnAttempt()]
        assert len(winners) == 1
        assert set(map(str, results)) == {str(OwnAttempt()), str(OtherAttempt(f"pay_{winners[0]}"))}


async def test_only_the_holder_can_release(clean: Server) -> None:
    async with l2_worker(clean) as worker:
        attempts = AttemptLeases(worker.level)
        await attempts.claim("o_1", "pay_1", 60_000)
        assert not await attempts.release("o_1", "pay_2")
        assert await attempts.claim("o_1", "pay_2", 60_000) == OtherAttempt("pay_1")
        assert await attempts.release("o_1", "pay_1")
        assert not await attempts.release("o_1", "pay_1")
        assert await attempts.claim("o_1", "pay_2", 60_000) == OwnAttempt()


async def test_a_claim_expires_and_another_can_hold(clean: Server) -> None:
    async with raw_client(clean) as client, l2_worker(clean) as worker:
        attempts = AttemptLeases(worker.level)
        await attempts.claim("o_1", "pay_1", 1)
        while await client.exists(KEY):  # noqa: ASYNC110 - time passes in another process
            await asyncio.sleep(0)
        assert await attempts.claim("o_1", "pay_2", 60_000) == OwnAttempt()
        assert not await attempts.release("o_1", "pay_1"), "another holder has it now"
        assert await client.get(KEY) == b"pay_2"


async def test_a_repeated_claim_renews_and_never_shortens(clean: Server) -> None:
    async with raw_client(clean) as client, l2_worker(clean) as worker:
        attempts = AttemptLeases(worker.level)
        await attempts.claim("o_1", "pay_1", 60_000)
        await attempts.claim("o_1", "pay_1", 600_000)
        assert 500_000 < await client.pttl(KEY) <= 600_000
        await attempts.claim("o_1", "pay_1", 1_000)
        assert await client.pttl(KEY) > 500_000
        await attempts.claim("o_1", "pay_2", 1_200_000)
        assert await client.pttl(KEY) <= 600_000, "another holder's claim renews nothing"
        await attempts.claim("o_1", "pay_1", 10 * LONGEST_MS)
        assert await client.pttl(KEY) < 2 * LONGEST_MS


async def test_an_evicted_claim_is_free(clean: Server) -> None:
    async with raw_client(clean) as client, l2_worker(clean) as worker:
        attempts = AttemptLeases(worker.level)
        await attempts.claim("o_1", "pay_1", 60_000)
        await client.delete(KEY)
        assert not await attempts.release("o_1", "pay_1")
        assert await attempts.claim("o_1", "pay_2", 60_000) == OwnAttempt(), "only the engine's rule is left"


@pytest.mark.parametrize("stored", [b"", b"\x00" * 12, b"\xff\xfe", b"two words", b"x" * 129])
async def test_an_impossible_holder_in_the_store_counts_as_unknown(clean: Server, stored: bytes) -> None:
    async with raw_client(clean) as client, l2_worker(clean) as worker:
        await client.set(KEY, stored)
        assert await AttemptLeases(worker.level).claim("o_1", "pay_1", 60_000) == AttemptUnknown()
        assert worker.level.reachable


async def test_a_key_of_another_type_counts_as_unknown(clean: Server) -> None:
    async with raw_client(clean) as client, l2_worker(clean) as worker:
        await client.rpush(KEY, "a list")
        attempts = AttemptLeases(worker.level)
        assert await attempts.claim("o_1", "pay_1", 60_000) == AttemptUnknown()
        assert not await attempts.release("o_1", "pay_1")
        assert await attempts.claim("o_2", "pay_1", 60_000) == OwnAttempt(), "the server is still in use"


async def test_a_read_only_server_counts_as_unknown(clean: Server) -> None:
    """As after a failover, while the connection goes to the old primary."""
    async with raw_client(clean) as client, l2_worker(clean) as worker:
        attempts = AttemptLeases(worker.level)
        await client.config_set("min-replicas-to-write", 1)
        try:
            assert await attempts.claim("o_1", "pay_1", 60_000) == AttemptUnknown()
        finally:
            await client.config_set("min-replicas-to-write", 0)
        assert await attempts.claim("o_1", "pay_1", 60_000) == OwnAttempt()


async def test_an_invalidation_of_every_source_releases_no_claim(clean: Server) -> None:
    async with l2_worker(clean) as worker:
        attempts = AttemptLeases(worker.level)
        await attempts.claim("o_1", "pay_1", 60_000)
        for source in ("order", "card", "live", ""):
            worker.level.drop(source, prefix="")
        await worker.written()
        assert await attempts.claim("o_1", "pay_2", 60_000) == OtherAttempt("pay_1")


async def test_a_key_may_be_any_text(clean: Server) -> None:
    async with l2_worker(clean) as worker:
        attempts = AttemptLeases(worker.level)
        for number, key in enumerate(("", "o_1*", "订单", "a b\r\nFLUSHALL\r\n", "\ud800", "k" * 10_000)):
            assert await attempts.claim(key, f"pay_{number}", 60_000) == OwnAttempt()


async def test_a_lost_server_counts_as_unknown_and_comes_back_without_claims(server: Server) -> None:
    async with l2_worker(server) as first, l2_worker(server) as second:
        own, others = AttemptLeases(first.level), AttemptLeases(second.level)
        assert await own.claim("o_1", "pay_1", 60_000) == OwnAttempt()
        server.kill()
        for attempts in (own, others):
            assert await attempts.claim("o_1", "pay_1", 60_000) == AttemptUnknown()
            assert not await attempts.release("o_1", "pay_1")
        server.start()
        await until(lambda: first.level.reachable and second.level.reachable)
        assert await others.claim("o_1", "pay_2", 60_000) == OwnAttempt(), (
            "the store has lost the claim; the engine has not"
        )
        assert await own.claim("o_1", "pay_1", 60_000) == OtherAttempt("pay_2")
        assert not await own.release("o_1", "pay_1")


async def test_a_stalled_server_is_waited_for_no_longer_than_a_read(server: Server) -> None:
    async with l2_worker(server, ValkeySettings(get_ms=60, command_ms=60_000, alone_ms=1)) as worker:
        attempts = AttemptLeases(worker.level)
        while await attempts.claim("o_1", "pay_1", 60_000) != OwnAttempt():  # the first may be slow
            pass
        server.stall()
        started_s = time.monotonic()
        for _ in range(4):
            assert await attempts.claim("o_1", "pay_1", 60_000) == AttemptUnknown()
        assert time.monotonic() - started_s < 30, "the bound of a read applies, not that of a command"
        assert not worker.level.reachable
        errors = worker.level.errors
        for _ in range(100):
            assert await attempts.claim("o_1", "pay_1", 60_000) == AttemptUnknown()
        assert worker.level.errors == errors, "the server is not called"
        server.go_on()
        await until(lambda: worker.level.reachable)
        while await attempts.claim("o_1", "pay_1", 60_000) != OwnAttempt():
            pass


async def test_without_a_store_every_claim_is_unknown_at_once() -> None:
    attempts = AttemptLeases(None)
    assert await attempts.claim("o_1", "pay_1", 60_000) == AttemptUnknown()
    assert not await attempts.release("o_1", "pay_1")
    assert repr(attempts) == "<AttemptLeases own=0 other=0 unknown=1>"


async def test_an_absent_server_counts_as_unknown_at_once() -> None:
    absent = Server()
    absent.port = 1
    async with l2_worker(absent) as worker:
        assert await AttemptLeases(worker.level).claim("o_1", "pay_1", 60_000) == AttemptUnknown()


async def test_the_number_of_concurrent_reads_is_bounded(clean: Server) -> None:
    async with l2_worker(clean, ValkeySettings(get_ms=10_000, command_ms=10_000, alone_ms=1, gets=2)) as worker:
        attempts = AttemptLeases(worker.level)
        results = await asyncio.gather(*(attempts.claim(f"o_{number}", "pay_1", 60_000) for number in range(5)))
        assert results.count(OwnAttempt()) == 2
        assert results.count(AttemptUnknown()) == 3
        assert await attempts.claim("o_9", "pay_1", 60_000) == OwnAttempt(), (
            "the earlier reads have left nothing behind"
        )


async def test_a_cancelled_claim_leaves_no_call_behind(clean: Server) -> None:
    async with l2_worker(clean) as worker:
        claiming = asyncio.create_task(AttemptLeases(worker.level).claim("o_1", "pay_1", 60_000))
        await asyncio.sleep(0)
        assert worker.level._scripts == 1, "the call is under way"
        claiming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claiming
        assert worker.level._scripts == 0
        assert worker.level.reachable, "a cancellation is no fault of the server"


@pytest.mark.parametrize("holder", ["", "two words", "é", "x" * 129, "a\n"])
async def test_a_holder_that_could_not_be_read_back_raises(holder: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        await AttemptLeases(None).claim("o_1", holder, 60_000)


class FixedReplyStore:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def run_script(self, script: str, key: bytes, *arguments: str | int) -> Any:
        return self._answer


@pytest.mark.parametrize("answer", [None, 1, True, [], [b"pay_1"], {b"a": b"b"}, "pay_1", b""])
async def test_a_reply_of_another_type_counts_as_unknown(answer: Any) -> None:
    assert await AttemptLeases(FixedReplyStore(answer)).claim("o_1", "pay_1", 60_000) == AttemptUnknown()
