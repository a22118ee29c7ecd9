"""The cache with a second level: use of stored answers, and the cost of a miss at most."""

from __future__ import annotations

import pytest

from cashier.fanout.ask import SourceStatus
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.l2.interface import CachedAnswer
from cashier.source_errors import Skipped, Unreachable
from tests.fanout.cache_rig import REFUSES, Rig, ScriptedSecondLevel
from tests.fanout.scripted_upstream import Reply, pass_ms, run_in_virtual_time


def test_an_answer_is_written_to_the_second_level_with_its_age_and_ttl() -> None:
    async def main() -> None:
        l2 = ScriptedSecondLevel()
        rig = Rig(l2=l2)
        await rig.answer()
        assert l2.reads == ["u_1"]
        assert l2.puts == [("u_1", CachedAnswer(False, b"u_1 #1", 10), 600, b"v1")]
        rig.upstream.set_script(Reply(10, None, not_found=True, body=b""))
        await rig.answer("u_2")
        assert l2.puts[1:] == [("u_2", CachedAnswer(True, b"", 10), 2, b"v1")]
        rig.upstream.set_script(Reply(10, "without a body"))
        await rig.answer("u_3")
        assert len(l2.puts) == 2

    run_in_virtual_time(main)


def test_a_fresh_stored_answer_is_served_without_a_call() -> None:
    async def main() -> None:
        l2 = ScriptedSecondLevel()
        l2.stored["u_1"] = CachedAnswer(False, b"from l2", 4_000)
        rig = Rig(l2=l2)
        assert await rig.answer() == ("from l2", SourceStatus.CACHED, 4_000)
        assert rig.calls == 0
        await pass_ms(1_000)
        asker = rig.ask()
        assert (asker.outcome, asker.age_ms) == ("from l2", 5_099)

    run_in_virtual_time(main)


def test_a_stale_stored_answer_is_served_and_refreshed_with_the_full_timeout() -> None:
    async def main() -> None:
        l2 = ScriptedSecondLevel()
        l2.stored["u_1"] = CachedAnswer(False, b"from l2", 40_000)
        rig = Rig(l2=l2)
        asker = rig.ask(waits_ms=3)
        await pass_ms(2)
        assert (asker.outcome, asker.status, asker.age_ms) == ("from l2", SourceStatus.STALE, 40_000)
        assert [call.budget_ms for call in rig.upstream.calls] == [100]
        await pass_ms(20)
        assert (await rig.answer())[:2] == ("u_1 #1", SourceStatus.CACHED)

    run_in_virtual_time(main)


def test_an_older_stored_answer_is_served_only_if_the_call_fails() -> None:
    async def main() -> None:
        l2 = ScriptedSecondLevel()
        l2.stored["u_1"] = CachedAnswer(False, b"from l2", 400_000)
        rig = Rig(l2=l2)
        assert (await rig.answer())[:2] == ("u_1 #1", SourceStatus.FRESH)
        l2.stored["u_2"] = CachedAnswer(False, b"from l2", 400_000)
        rig.upstream.set_script(REFUSES)
        assert isinstance((await rig.answer("u_2"))[0], Unreachable)
        assert rig.cache.fallback({"key": "u_2"}) == ("from l2", 400_099)

    run_in_virtual_time(main)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        CachedAnswer(False, b"a lie", 0),
        CachedAnswer(False, b"too old", 700_000),
        CachedAnswer(True, b"none, too old", 2_001),
    ],
    ids=repr,
)
def test_without_a_valid_stored_answer_the_source_is_called(stored: CachedAnswer | None) -> None:
    async def main() -> None:
        l2 = ScriptedSecondLevel()
        if stored is not None:
            l2.stored["u_1"] = stored
        rig = Rig(l2=l2)
        asker = rig.ask()
        await pass_ms(12)
        assert (asker.outcome, asker.status) == ("u_1 #1", SourceStatus.FRESH)

    run_in_virtual_time(main)


def test_a_hanging_second_level_costs_the_waiters_their_time_and_leaves_nothing() -> None:
    async def main() -> None:
        rig = Rig(l2=ScriptedSecondLevel(after_ms=None))
        askers = [rig.ask(waits_ms=ms) for ms in (20, 40)]
        await pass_ms(50)
        assert all(asker.left for asker in askers)
        assert "0 answers, 0 fetches" in repr(rig.cache)
        assert rig.calls == 0

    run_in_virtual_time(main)


def test_no_call_is_made_if_all_waiters_leave_during_the_read() -> None:
    async def main() -> None:
        rig = Rig(l2=ScriptedSecondLevel(after_ms=5))
        rig.ask(waits_ms=3)
        await pass_ms(50)
        assert rig.calls == 0

    run_in_virtual_time(main)


def test_the_waiter_with_the_most_time_decides_whether_a_call_is_made() -> None:
    async def main() -> None:
        rig = Rig(l2=ScriptedSecondLevel(after_ms=2))
        for index in range(150):
            await rig.answer(f"u_{index}", 20)
        await pass_ms(500)
        hasty = rig.ask("hasty", 9)
        await pass_ms(3)
        assert hasty.error_type is Skipped
        rig.ask("new", 9)
        patient = rig.ask("new", 90)
        await pass_ms(100)
        assert patient.outcome == "new #1"

    run_in_virtual_time(main)


def test_an_early_refresh_ignores_the_same_answer_in_the_second_level() -> None:
    """The second level usually holds the very answer to refresh: it must not count as new."""

    async def main() -> None:
        l2 = ScriptedSecondLevel()
        rig = Rig(l2=l2)
        await rig.answer()
        _, stored, _, _ = l2.puts[0]
        rig.cache._entries["u_1"].early_ns = 0
        l2.stored["u_1"] = CachedAnswer(False, stored.body, 98)
        assert rig.ask().status is SourceStatus.CACHED
        await pass_ms(20)
        assert (await rig.answer())[:2] == ("u_1 #2", SourceStatus.CACHED)

    run_in_virtual_time(main)


def test_a_refresh_accepts_a_younger_answer_of_the_second_level() -> None:
    async def main() -> None:
        l2 = ScriptedSecondLevel()
        rig = Rig(l2=l2)
        await rig.answer()
        await pass_ms(15_000)
        l2.stored["u_1"] = CachedAnswer(False, b"another worker's", 3_000)
        assert rig.ask().status is SourceStatus.STALE
        await pass_ms(20)
        assert (await rig.answer())[:2] == ("another worker's", SourceStatus.CACHED)
        assert rig.calls == 1

    run_in_virtual_time(main)


def test_a_stored_answer_is_ignored_if_its_key_is_dropped_during_the_read() -> None:
    async def main() -> None:
        l2 = ScriptedSecondLevel(after_ms=5)
        l2.stored["u_1"] = CachedAnswer(False, b"from before", 100)
        rig = Rig(l2=l2)
        asker = rig.ask()
        await pass_ms(1)
        rig.cache.drop(key="u_1")
        await pass_ms(50)
        assert asker.outcome == "u_1 #1"
        assert len(rig.cache) == 0

    run_in_virtual_time(main)


def test_the_read_of_the_second_level_adds_to_the_learned_timeout() -> None:
    async def main() -> None:
        rig = Rig(l2=ScriptedSecondLevel(after_ms=15), mechanisms=Mechanisms(hedge=None))
        for index in range(400):
            await rig.answer(f"u_{index}", 30)
        assert rig.guard.adaptive_timeout.timeout_ms < 30
        assert rig.cache.timeout_ms == rig.guard.adaptive_timeout.timeout_ms + 20
        outcome, _, _ = await rig.answer("another", rig.cache.timeout_ms)
        assert outcome == "another #1"

    run_in_virtual_time(main)


def test_an_answer_without_a_version_is_not_written() -> None:
    """The read failed, so an invalidation since then could not be noticed."""

    async def main() -> None:
        l2 = ScriptedSecondLevel()
        l2.version = None
        rig = Rig(l2=l2)
        assert (await rig.answer())[0] == "u_1 #1"
        assert l2.puts == []
        assert (await rig.answer())[1] is SourceStatus.CACHED

    run_in_virtual_time(main)


def test_while_invalidations_do_not_arrive_an_answer_serves_two_seconds() -> None:
    async def main() -> None:
        l2 = ScriptedSecondLevel()
        l2.coherent = False
        rig = Rig(l2=l2)
        await rig.answer()
        await pass_ms(1_500)
        assert (await rig.answer())[:2] == ("u_1 #1", SourceStatus.CACHED)
        await pass_ms(600)
        assert (await rig.answer())[:2] == ("u_1 #2", SourceStatus.FRESH)
        rig.upstream.set_script(REFUSES)
        await pass_ms(60_000)
        assert isinstance((await rig.answer())[0], Unreachable)
        answer = rig.cache.fallback({"key": "u_1"})
        assert answer is not None, "on error it serves as long as ever"
        assert answer[0] == "u_1 #2"

    run_in_virtual_time(main)


def test_a_distrusted_answer_serves_on_error_only() -> None:
    async def main() -> None:
        rig = Rig(l2=ScriptedSecondLevel())
        await rig.answer()
        rig.cache.distrust()
        rig.upstream.set_script(REFUSES)
        assert isinstance((await rig.answer())[0], Unreachable)
        answer = rig.cache.fallback({"key": "u_1"})
        assert answer is not None
        assert answer[0] == "u_1 #1"

    run_in_virtual_time(main)
