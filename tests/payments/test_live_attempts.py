"""Who lives is told across workers, on a real Valkey. Without one, or with a bad one, nobody is blocked and nothing is raised."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cashier.fanout.l2.valkey_client import ValkeySettings
from cashier.payments.live_attempts import LONGEST_MS, AttemptUnknown, LiveAttempts, OtherAttempt, OwnAttempt
from tests.fanout.l2.valkeys import PATIENT, Server, raw, served, until, working

KEY = "cashier:1:@live:o_1"


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """One for all tests that leave it alive, which is most of what they take."""
    with served() as server:
        yield server


@pytest.fixture
def server() -> Iterator[Server]:
    with served() as server:
        yield server


@pytest.fixture
async def clean(shared: Server) -> Server:
    async with raw(shared) as client:
        await client.flushall()
    return shared


async def test_the_first_who_says_so_lives_and_others_hear_of_it(clean: Server) -> None:
    async with working(clean) as one, working(clean) as other:
        mine, others = LiveAttempts(one.level), LiveAttempts(other.level)
        assert await mine.claim("o_1", "pay_1", 60_000) == OwnAttempt()
        assert await others.claim("o_1", "pay_2", 60_000) == OtherAttempt("pay_1")
        assert await others.claim("o_2", "pay_2", 60_000) == OwnAttempt()
        assert await others.claim("o_1", "pay_1", 60_000) == OwnAttempt(), (
            "the same attempt, met again by another worker"
        )
    assert (others.own, others.other, others.unknown) == (2, 1, 0)


async def test_of_many_who_race_exactly_one_lives(clean: Server) -> None:
    assert PATIENT.gets >= 20, "so many may ask at once of each"
    async with working(clean) as one, working(clean) as other:
        workers = [LiveAttempts(one.level), LiveAttempts(other.level)]
        found = await asyncio.gather(
            *(workers[number % 2].claim("o_1", f"pay_{number}", 60_000) for number in range(40))
        )
        winners = [number for number, standing in enumerate(found) if standing == OwnAttempt()]
        assert len(winners) == 1
        assert set(map(str, found)) == {str(OwnAttempt()), str(OtherAttempt(f"pay_{winners[0]}"))}


async def test_only_the_owner_ends_it(clean: Server) -> None:
    async with working(clean) as worker:
        attempts = LiveAttempts(worker.level)
        await attempts.claim("o_1", "pay_1", 60_000)
        assert not await attempts.release("o_1", "pay_2")
        assert await attempts.claim("o_1", "pay_2", 60_000) == OtherAttempt("pay_1")
        assert await attempts.release("o_1", "pay_1")
        assert not await attempts.release("o_1", "pay_1")
        assert await attempts.claim("o_1", "pay_2", 60_000) == OwnAttempt()


async def test_it_ends_by_itself_and_then_another_lives(clean: Server) -> None:
    async with raw(clean) as client, working(clean) as worker:
        attempts = LiveAttempts(worker.level)
        await attempts.claim("o_1", "pay_1", 1)
        while await client.exists(KEY):  # noqa: ASYNC110 - time passes in another process
            await asyncio.sleep(0)
        assert await attempts.claim("o_1", "pay_2", 60_000) == OwnAttempt()
        assert not await attempts.release("o_1", "pay_1"), "it is another's by now"
        assert await client.get(KEY) == b"pay_2"


async def test_saying_it_again_renews_it_and_never_cuts_it_short(clean: Server) -> None:
    async with raw(clean) as client, working(clean) as worker:
        attempts = LiveAttempts(worker.level)
        await attempts.claim("o_1", "pay_1", 60_000)
        await attempts.claim("o_1", "pay_1", 600_000)
        assert 500_000 < await client.pttl(KEY) <= 600_000
        await attempts.claim("o_1", "pay_1", 1_000)
        assert await client.pttl(KEY) > 500_000
        await attempts.claim("o_1", "pay_2", 1_200_000)
        assert await client.pttl(KEY) <= 600_000, "another's wish renews nothing"
        await attempts.claim("o_1", "pay_1", 10 * LONGEST_MS)
        assert await client.pttl(KEY) <= LONGEST_MS


async def test_what_was_evicted_is_nobody_s(clean: Server) -> None:
    async with raw(clean) as client, working(clean) as worker:
        attempts = LiveAttempts(worker.level)
        await attempts.claim("o_1", "pay_1", 60_000)
        await client.delete(KEY)
        assert not await attempts.release("o_1", "pay_1")
        assert await attempts.claim("o_1", "pay_2", 60_000) == OwnAttempt(), "the engine's own rule is what is left"


@pytest.mark.parametrize("lie", [b"", b"\x00" * 12, b"\xff\xfe", b"two words", b"x" * 129])
async def test_a_holder_that_nobody_can_be_is_not_believed(clean: Server, lie: bytes) -> None:
    async with raw(clean) as client, working(clean) as worker:
        await client.set(KEY, lie)
        assert await LiveAttempts(worker.level).claim("o_1", "pay_1", 60_000) == AttemptUnknown()
        assert worker.level.reachable


async def test_a_key_of_another_shape_costs_an_unknown_and_nothing_else(clean: Server) -> None:
    async with raw(clean) as client, working(clean) as worker:
        await client.rpush(KEY, "a list")
        attempts = LiveAttempts(worker.level)
        assert await attempts.claim("o_1", "pay_1", 60_000) == AttemptUnknown()
        assert not await attempts.release("o_1", "pay_1")
        assert await attempts.claim("o_2", "pay_1", 60_000) == OwnAttempt(), "the server is not lost for it"


async def test_a_server_that_may_only_be_read_costs_an_unknown(clean: Server) -> None:
    """As after a fail-over, while we still speak to the old one."""
    async with raw(clean) as client, working(clean) as worker:
        attempts = LiveAttempts(worker.level)
        await client.config_set("min-replicas-to-write", 1)
        try:
            assert await attempts.claim("o_1", "pay_1", 60_000) == AttemptUnknown()
        finally:
            await client.config_set("min-replicas-to-write", 0)
        assert await attempts.claim("o_1", "pay_1", 60_000) == OwnAttempt()


async def test_invalidating_everything_of_every_source_ends_nobody(clean: Server) -> None:
    async with working(clean) as worker:
        attempts = LiveAttempts(worker.level)
        await attempts.claim("o_1", "pay_1", 60_000)
        for source in ("order", "card", "live", ""):
            worker.level.drop(source, prefix="")
        await worker.written()
        assert await attempts.claim("o_1", "pay_2", 60_000) == OtherAttempt("pay_1")


async def test_a_key_may_be_any_text(clean: Server) -> None:
    async with working(clean) as worker:
        attempts = LiveAttempts(worker.level)
        for number, key in enumerate(("", "o_1*", "订单", "a b\r\nFLUSHALL\r\n", "\ud800", "k" * 10_000)):
            assert await attempts.claim(key, f"pay_{number}", 60_000) == OwnAttempt()


async def test_a_server_that_is_lost_in_between_is_unknown_and_then_nobody_lives_there(server: Server) -> None:
    async with working(server) as one, working(server) as other:
        mine, others = LiveAttempts(one.level), LiveAttempts(other.level)
        assert await mine.claim("o_1", "pay_1", 60_000) == OwnAttempt()
        server.kill()
        for attempts in (mine, others):
            assert await attempts.claim("o_1", "pay_1", 60_000) == AttemptUnknown()
            assert not await attempts.release("o_1", "pay_1")
        server.start()
        await until(lambda: one.level.reachable and other.level.reachable)
        assert await others.claim("o_1", "pay_2", 60_000) == OwnAttempt(), "it has forgotten; the engine has not"
        assert await mine.claim("o_1", "pay_1", 60_000) == OtherAttempt("pay_2")
        assert not await mine.release("o_1", "pay_1")


async def test_a_server_that_stalls_is_waited_for_by_its_bound_alone(server: Server) -> None:
    async with working(server, ValkeySettings(get_ms=60, command_ms=60_000, alone_ms=1)) as worker:
        attempts = LiveAttempts(worker.level)
        while await attempts.claim("o_1", "pay_1", 60_000) != OwnAttempt():  # the first may be slow
            pass
        server.stall()
        began = time.monotonic()
        for _ in range(4):
            assert await attempts.claim("o_1", "pay_1", 60_000) == AttemptUnknown()
        assert time.monotonic() - began < 30, "the bound of a read is what counts, not that of a command"
        assert not worker.level.reachable
        errors = worker.level.errors
        for _ in range(100):
            assert await attempts.claim("o_1", "pay_1", 60_000) == AttemptUnknown()
        assert worker.level.errors == errors, "it is left alone"
        server.go_on()
        await until(lambda: worker.level.reachable)
        while await attempts.claim("o_1", "pay_1", 60_000) != OwnAttempt():
            pass


async def test_without_a_server_nothing_is_known_and_nothing_awaited() -> None:
    attempts = LiveAttempts(None)
    assert await attempts.claim("o_1", "pay_1", 60_000) == AttemptUnknown()
    assert not await attempts.release("o_1", "pay_1")
    assert repr(attempts) == "<LiveAttempts own=0 other=0 unknown=1>"


async def test_a_server_that_never_was_is_unknown_at_once() -> None:
    absent = Server()
    absent.port = 1
    async with working(absent) as worker:
        assert await LiveAttempts(worker.level).claim("o_1", "pay_1", 60_000) == AttemptUnknown()


async def test_only_so_many_are_asked_at_once(clean: Server) -> None:
    async with working(clean, ValkeySettings(get_ms=10_000, command_ms=10_000, alone_ms=1, gets=2)) as worker:
        attempts = LiveAttempts(worker.level)
        found = await asyncio.gather(*(attempts.claim(f"o_{number}", "pay_1", 60_000) for number in range(5)))
        assert found.count(OwnAttempt()) == 2
        assert found.count(AttemptUnknown()) == 3
        assert await attempts.claim("o_9", "pay_1", 60_000) == OwnAttempt(), "nothing is left of those"


async def test_who_is_cancelled_while_it_is_asked_is_cancelled(clean: Server) -> None:
    async with working(clean) as worker:
        asked = asyncio.create_task(LiveAttempts(worker.level).claim("o_1", "pay_1", 60_000))
        await asyncio.sleep(0)
        assert worker.level._scripts == 1, "it is under way"
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert worker.level._scripts == 0
        assert worker.level.reachable, "that says nothing of the server"


@pytest.mark.parametrize("holder", ["", "two words", "é", "x" * 129, "a\n"])
async def test_a_holder_that_could_not_be_read_back_is_our_mistake(holder: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        await LiveAttempts(None).claim("o_1", holder, 60_000)


class Liar:
    """A store that answers whatever it likes."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def run_script(self, script: str, key: bytes, *arguments: str | int) -> Any:
        return self._answer


@pytest.mark.parametrize("answer", [None, 1, True, [], [b"pay_1"], {b"a": b"b"}, "pay_1", b""])
async def test_an_answer_of_another_shape_is_none(answer: Any) -> None:
    assert await LiveAttempts(Liar(answer)).claim("o_1", "pay_1", 60_000) == AttemptUnknown()
