"""The cache and a second level behind it: what of it is served, when it is asked, and that it costs nobody more than a miss."""

from __future__ import annotations

import pytest

from cashier.fanout.ask import SourceStatus
from cashier.fanout.guard import Mechanisms
from cashier.fanout.l2.interface import CachedAnswer
from cashier.source_errors import Skipped, Unreachable
from tests.fanout.cache_rig import REFUSES, Rig, ScriptedSecondLevel
from tests.fanout.scripted_upstream import Reply, pass_ms, run_in_virtual_time


def test_what_comes_is_put_on_the_shelf_with_its_age_and_for_its_time() -> None:
    async def main() -> None:
        shelf = ScriptedSecondLevel()
        rig = Rig(second=shelf)
        await rig.answer()
        assert shelf.looks == ["u_1"]
        assert shelf.puts == [("u_1", CachedAnswer(False, b"u_1 #1", 10), 600)]
        rig.upstream.does(Reply(10, None, not_found=True, body=b""))
        await rig.answer("u_2")
        assert shelf.puts[1:] == [("u_2", CachedAnswer(True, b"", 10), 2)]
        rig.upstream.does(Reply(10, "without a body"))
        await rig.answer("u_3")
        assert len(shelf.puts) == 2

    run_in_virtual_time(main)


def test_fresh_on_the_shelf_it_is_served_and_nobody_is_asked() -> None:
    async def main() -> None:
        shelf = ScriptedSecondLevel()
        shelf.kept["u_1"] = CachedAnswer(False, b"from the shelf", 4_000)
        rig = Rig(second=shelf)
        assert await rig.answer() == ("from the shelf", SourceStatus.CACHED, 4_000)
        assert rig.calls == 0
        await pass_ms(1_000)
        asker = rig.ask()
        assert (asker.outcome, asker.age_ms) == ("from the shelf", 5_099)

    run_in_virtual_time(main)


def test_stale_on_the_shelf_it_is_served_and_fetched_anew_with_time_enough() -> None:
    async def main() -> None:
        shelf = ScriptedSecondLevel()
        shelf.kept["u_1"] = CachedAnswer(False, b"from the shelf", 40_000)
        rig = Rig(second=shelf)
        asker = rig.ask(waits_ms=3)
        await pass_ms(2)
        assert (asker.outcome, asker.status, asker.age_ms) == ("from the shelf", SourceStatus.STALE, 40_000)
        assert [leg.budget_ms for leg in rig.upstream.legs] == [100]
        await pass_ms(20)
        assert (await rig.answer())[:2] == ("u_1 #1", SourceStatus.CACHED)

    run_in_virtual_time(main)


def test_older_on_the_shelf_it_serves_only_if_the_call_fails() -> None:
    async def main() -> None:
        shelf = ScriptedSecondLevel()
        shelf.kept["u_1"] = CachedAnswer(False, b"from the shelf", 400_000)
        rig = Rig(second=shelf)
        assert (await rig.answer())[:2] == ("u_1 #1", SourceStatus.FRESH)
        shelf.kept["u_2"] = CachedAnswer(False, b"from the shelf", 400_000)
        rig.upstream.does(REFUSES)
        assert isinstance((await rig.answer("u_2"))[0], Unreachable)
        assert rig.cache.fallback({"key": "u_2"}) == ("from the shelf", 400_099)

    run_in_virtual_time(main)


@pytest.mark.parametrize(
    "kept",
    [
        None,
        CachedAnswer(False, b"a lie", 0),
        CachedAnswer(False, b"too old", 700_000),
        CachedAnswer(True, b"none, too old", 2_001),
    ],
    ids=repr,
)
def test_what_the_shelf_has_not_or_cannot_be_believed_is_asked_for(kept: CachedAnswer | None) -> None:
    async def main() -> None:
        shelf = ScriptedSecondLevel()
        if kept is not None:
            shelf.kept["u_1"] = kept
        rig = Rig(second=shelf)
        asker = rig.ask()
        await pass_ms(12)
        assert (asker.outcome, asker.status) == ("u_1 #1", SourceStatus.FRESH)

    run_in_virtual_time(main)


def test_a_shelf_that_hangs_costs_who_waits_their_own_time_and_leaves_nothing() -> None:
    async def main() -> None:
        rig = Rig(second=ScriptedSecondLevel(after_ms=None))
        askers = [rig.ask(waits_ms=ms) for ms in (20, 40)]
        await pass_ms(50)
        assert all(asker.gone for asker in askers)
        assert "0 answers, 0 fetches" in repr(rig.cache)
        assert rig.calls == 0

    run_in_virtual_time(main)


def test_who_left_while_the_shelf_was_looked_at_makes_no_call() -> None:
    async def main() -> None:
        rig = Rig(second=ScriptedSecondLevel(after_ms=5))
        rig.ask(waits_ms=3)
        await pass_ms(50)
        assert rig.calls == 0

    run_in_virtual_time(main)


def test_who_has_more_time_than_the_first_decides_whether_a_call_is_worth_making() -> None:
    async def main() -> None:
        rig = Rig(second=ScriptedSecondLevel(after_ms=2))
        for index in range(150):
            await rig.answer(f"u_{index}", 20)
        await pass_ms(500)
        hasty = rig.ask("hasty", 9)
        await pass_ms(3)
        assert hasty.refused is Skipped
        rig.ask("new", 9)
        patient = rig.ask("new", 90)
        await pass_ms(100)
        assert patient.outcome == "new #1"

    run_in_virtual_time(main)


def test_an_early_refresh_is_not_content_with_the_same_answer_from_the_shelf() -> None:
    """The shelf usually has the very answer that is to be refreshed: without care there would be no early refresh at all."""

    async def main() -> None:
        shelf = ScriptedSecondLevel()
        rig = Rig(second=shelf)
        await rig.answer()
        _, kept, _ = shelf.puts[0]
        rig.cache._entries["u_1"].early_ns = 0
        shelf.kept["u_1"] = CachedAnswer(False, kept.body, 98)
        assert rig.ask().status is SourceStatus.CACHED
        await pass_ms(20)
        assert (await rig.answer())[:2] == ("u_1 #2", SourceStatus.CACHED)

    run_in_virtual_time(main)


def test_a_refresh_is_content_with_a_younger_answer_from_the_shelf() -> None:
    async def main() -> None:
        shelf = ScriptedSecondLevel()
        rig = Rig(second=shelf)
        await rig.answer()
        await pass_ms(15_000)
        shelf.kept["u_1"] = CachedAnswer(False, b"another worker's", 3_000)
        assert rig.ask().status is SourceStatus.STALE
        await pass_ms(20)
        assert (await rig.answer())[:2] == ("another worker's", SourceStatus.CACHED)
        assert rig.calls == 1

    run_in_virtual_time(main)


def test_dropped_while_the_shelf_is_looked_at_what_it_has_is_not_believed() -> None:
    async def main() -> None:
        shelf = ScriptedSecondLevel(after_ms=5)
        shelf.kept["u_1"] = CachedAnswer(False, b"from before", 100)
        rig = Rig(second=shelf)
        asker = rig.ask()
        await pass_ms(1)
        rig.cache.drop(key="u_1")
        await pass_ms(50)
        assert asker.outcome == "u_1 #1"
        assert len(rig.cache) == 0

    run_in_virtual_time(main)


def test_a_look_at_the_shelf_is_not_taken_from_the_time_that_the_source_usually_needs() -> None:
    async def main() -> None:
        rig = Rig(second=ScriptedSecondLevel(after_ms=15), mechanisms=Mechanisms(hedge=None))
        for index in range(400):
            await rig.answer(f"u_{index}", 30)
        assert rig.guard.adaptive_timeout.timeout_ms < 30
        assert rig.cache.timeout_ms == rig.guard.adaptive_timeout.timeout_ms + 20
        outcome, _, _ = await rig.answer("another", rig.cache.timeout_ms)
        assert outcome == "another #1"

    run_in_virtual_time(main)
