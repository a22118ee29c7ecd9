"""Invalidation, and the invariants of the cache under random histories."""

from __future__ import annotations

from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cashier.fanout.ask import SourceStatus
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.fanout.key_index import key_text, parse_key_text
from cashier.source_errors import SourceError, Unreachable
from tests.fanout.cache_rig import Rig, ScriptedSecondLevel, numbered
from tests.fanout.scripted_upstream import (
    Asker,
    Reply,
    ScriptedCall,
    assert_nothing_left,
    clock_ns,
    pass_ms,
    run_in_virtual_time,
)


@pytest.mark.parametrize("drop", [{"key": "u_1/CNY"}, {"prefix": "u_1/"}, {"prefix": "u_1"}, {"prefix": ""}])
def test_a_dropped_answer_is_fetched_again(drop: dict[str, str]) -> None:
    async def main() -> None:
        rig = Rig()
        await rig.answer("u_1/CNY")
        await rig.answer("u_2/CNY")
        everything = drop == {"prefix": ""}
        assert rig.cache.drop(**drop) == (2 if everything else 1)
        assert len(rig.store) == len(rig.cache) == (0 if everything else 1)
        assert (await rig.answer("u_1/CNY"))[0] == "u_1/CNY #2"
        assert (await rig.answer("u_2/CNY"))[0] == ("u_2/CNY #2" if everything else "u_2/CNY #1")

    run_in_virtual_time(main)


def test_an_empty_prefix_drops_everything_and_outdates_all_fetches() -> None:
    async def main() -> None:
        rig = Rig()
        await rig.answer()
        rig.ask("u_2")
        assert rig.cache.drop() == 1
        await pass_ms(20)
        assert len(rig.cache) == 0

    run_in_virtual_time(main)


@pytest.mark.parametrize("drop", [{"key": "u_1"}, {"prefix": "u_"}, {"prefix": ""}])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("waits_ms", [100, 20], ids=["awaited", "late"])
def test_a_fetch_in_progress_during_the_drop_does_not_restore_the_old_answer(
    drop: dict[str, str], shared: bool, waits_ms: int
) -> None:
    async def main() -> None:
        shelf = ScriptedSecondLevel() if shared else None
        rig = Rig(numbered(50), l2=shelf)
        asker = rig.ask(waits_ms=waits_ms)
        await pass_ms(30)
        rig.cache.drop(**drop)
        await pass_ms(40)
        assert asker.left == (waits_ms == 20)
        assert asker.outcome == (None if asker.left else "u_1 #1")
        assert len(rig.cache) == 0
        assert shelf is None or shelf.puts == []
        assert (await rig.answer())[0] == "u_1 #2"

    run_in_virtual_time(main)


def test_an_ask_after_the_drop_does_not_join_an_earlier_fetch() -> None:
    async def main() -> None:
        rig = Rig(numbered(50))
        before = rig.ask()
        rig.cache.drop(key="u_1")
        after = rig.ask()
        await pass_ms(60)
        assert (before.outcome, after.outcome) == ("u_1 #1", "u_1 #2")
        assert (await rig.answer())[0] == "u_1 #2"

    run_in_virtual_time(main)


def test_a_refresh_in_progress_during_the_drop_does_not_restore_the_old_answer() -> None:
    async def main() -> None:
        rig = Rig()
        await rig.answer()
        await pass_ms(20_000)
        rig.ask()
        rig.cache.drop(key="u_1")
        await pass_ms(20)
        assert len(rig.cache) == 0

    run_in_virtual_time(main)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "drop", "drop all", "other weather"]),
        st.sampled_from(["u_1", "u_2", "u_1/CNY", "u_2/CNY"]),
        st.sampled_from([0, 1, 7, 40, 90, 400, 1_500]),  # ms until the next event
        st.integers(1, 100),  # ms that the ask waits
    ),
    max_size=60,
)


@given(STEPS, st.booleans(), st.integers(0, 1 << 32))
def test_every_answer_has_the_right_key_is_not_dropped_and_young_enough(
    steps: list[tuple[str, str, int, int]], shared: bool, seed: int
) -> None:
    random = Random(seed)
    policy = CacheSettings(0.5, 1.0, 1.5, 0.2)

    def weather(call: ScriptedCall) -> Reply:
        """The answer contains its key and the start of its call."""
        text = f"{call.known['key']} {clock_ns()}"
        after_ms = random.choice([1, 5, 50, 95, 150, 195, None])
        return Reply(after_ms, random.choice([text, text, Unreachable("")]), body=text.encode())

    async def main() -> None:
        shelf = ScriptedSecondLevel(random.choice([1, 30])) if shared else None
        rig = Rig(weather, policy=policy, l2=shelf, capacity=3)
        dropped_ns = dict.fromkeys(["u_1", "u_2", "u_1/CNY", "u_2/CNY"], 0)
        askers: list[tuple[str, Asker, int]] = []
        for what, key, pause_ms, waits_ms in steps:
            if what == "ask":
                askers.append((key, rig.ask(key, waits_ms), dropped_ns[key]))
            elif what == "drop":
                rig.cache.drop(key=key)
                dropped_ns[key] = clock_ns()
            elif what == "drop all":
                rig.cache.drop(prefix=key[:3])
                dropped_ns.update((each, clock_ns()) for each in dropped_ns if each.startswith(key[:3]))
            await pass_ms(pause_ms)
        await pass_ms(300)
        for key, asker, since_ns in askers:
            assert asker.answered or asker.left
            if asker.answered and not isinstance(asker.outcome, SourceError):
                its_key, born = asker.outcome.split()
                assert its_key == key
                assert int(born) >= since_ns
                old_ns = asker.answered_ns - int(born) if asker.answered_ns is not None else 0
                assert (
                    old_ns <= (0.5 if asker.status is SourceStatus.CACHED else 1.0) * 1e9 + 1e6
                    or asker.status is SourceStatus.FRESH
                )
                if asker.status is not SourceStatus.FRESH:
                    assert abs(asker.age_ms - old_ns / 1e6) <= 1
        assert len(rig.cache) == len(rig.store) <= 3
        assert "0 fetches" in repr(rig.cache)
        assert_nothing_left(rig.guard, rig.upstream)

    run_in_virtual_time(main)


PARTS = st.lists(st.text("ab%/25F*?[卡"), min_size=1, max_size=4)


@given(PARTS)
def test_the_text_of_a_key_parses_to_the_key(parts: list[str]) -> None:
    key = parts[0] if len(parts) == 1 else tuple(parts)
    assert parse_key_text(key_text(key)) == key


@given(PARTS, PARTS)
def test_no_two_keys_are_written_alike(parts: list[str], others: list[str]) -> None:
    assert (key_text(tuple(parts)) == key_text(tuple(others))) == (parts == others)
