"""Keys that are asked for together: when they leave, who is told what, and that nobody's leaving disturbs anybody."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cashier.fanout.batch import Batch, BatchPolicy, Departure, departure
from cashier.fanout.upstream import UpstreamCall
from cashier.source_errors import Overloaded, Unreachable
from tests.fanout.batch_rig import BatchRig, OutcomeRecorder, ScriptedBatchUpstream, end_of_turn, until_ms
from tests.fanout.scripted_sources import clock_ns, in_virtual_time, now_ms, timers_set

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize(
    ("keys", "under_way", "leaves"),
    [
        (1, 0, Departure.END_OF_TURN),
        (1, 1, Departure.END_OF_TURN),
        (1, 2, Departure.WITH_ROOM),
        (49, 2, Departure.WITH_ROOM),
        (50, 2, Departure.NOW),
        (50, 0, Departure.NOW),
    ],
)
def test_keys_leave_at_once_while_there_is_room_gather_while_there_is_none_and_a_full_call_leaves(
    keys: int, under_way: int, leaves: Departure
) -> None:
    assert departure(keys, under_way, BatchPolicy(max=50, room=2)) is leaves


async def test_an_idle_source_is_asked_at_once() -> None:
    asking = BatchRig(ScriptedBatchUpstream())
    asking.ask("a")
    await end_of_turn()
    assert asking.many.sent == [(0, "a")]
    assert timers_set() == [asking.many.calls[0].timer]


async def test_keys_of_one_loop_turn_leave_in_one_call_without_waiting() -> None:
    asking = BatchRig(ScriptedBatchUpstream())
    for key in "abc":
        asking.ask(key)
    await until_ms(20)
    assert asking.many.sent == [(0, "abc")]
    assert asking.told == {"a": "answer to a", "b": "answer to b", "c": "answer to c"}


async def test_while_the_source_is_busy_keys_gather_until_its_call_comes_back() -> None:
    asking = BatchRig(ScriptedBatchUpstream(after_ms=4), wait_ms=100)
    asking.ask("a")
    await until_ms(1)
    asking.ask("b")
    await until_ms(2)
    asking.ask("c")
    await until_ms(20)
    assert asking.many.sent == [(0, "a"), (4, "bc")]
    assert timers_set() == []


async def test_no_key_waits_longer_for_others_than_it_may() -> None:
    asking = BatchRig(ScriptedBatchUpstream(after_ms=50), wait_ms=2)
    asking.ask("a")
    for at_ms, key in [(1, "b"), (2, "c"), (4, "d"), (5, "e"), (7, "f")]:
        await until_ms(at_ms)
        asking.ask(key)
    await until_ms(20)
    assert asking.many.sent == [(0, "a"), (3, "bc"), (6, "de"), (9, "f")]


async def test_a_call_that_comes_back_while_others_are_under_way_sends_nobody_off() -> None:
    """Else each answer would send a call off, these would answer too, and in the end every key would be alone."""
    asking = BatchRig(ScriptedBatchUpstream(after_ms=10), wait_ms=8)
    for at_ms, key in [(0, "a"), (1, "b"), (9.5, "c")]:
        await until_ms(at_ms)
        asking.ask(key)
    await until_ms(40)
    assert asking.many.sent == [(0, "a"), (9, "b"), (17.5, "c")]


async def test_a_full_call_leaves_in_the_middle_of_a_turn() -> None:
    asking = BatchRig(ScriptedBatchUpstream(after_ms=50), max=3, wait_ms=10)
    for key in "abcdefgh":
        asking.ask(key)
    assert asking.many.sent == [(0, "abc"), (0, "def")]
    assert asking.told == {}
    await until_ms(20)
    assert asking.many.sent[2:] == [(10, "gh")]
    assert (asking.batch.calls, asking.batch.keys) == (3, 8)


async def test_one_timer_is_set_however_many_keys_gather() -> None:
    asking = BatchRig(ScriptedBatchUpstream(after_ms=None))
    asking.ask("a")
    await end_of_turn()
    for key in "bcdef":
        asking.ask(key)
    assert len(timers_set()) == 1
    assert repr(asking.batch) == "Batch(first, second; 1 calls in flight, 5 keys gathered)"


async def test_a_second_ask_for_a_key_under_way_avoids_where_the_first_one_went() -> None:
    asking = BatchRig(ScriptedBatchUpstream(after_ms=50))
    first = asking.ask("a")
    assert first.address_index == 0
    await until_ms(5)
    assert first.address_index == 1
    hedged = OutcomeRecorder("hedged a", asking.told)
    asking.batch.call({"key": "a"}, "trip", 100, hedged, 1 << first.address_index)
    asking.ask("b")
    await until_ms(20)
    assert [(call.began_ms, call.keys, call.avoid) for call in asking.many.calls[1:]] == [(7, ["a"], 2), (7, ["b"], 0)]


async def test_a_call_goes_out_with_the_longest_time_that_is_left_and_the_trip_of_its_first_key() -> None:
    asking = BatchRig(ScriptedBatchUpstream(after_ms=50), wait_ms=10)
    asking.ask("a", budget_ms=1)
    await end_of_turn()
    asking.ask("b", budget_ms=60)
    await until_ms(5)
    asking.ask("c", budget_ms=58)
    asking.ask("d", budget_ms=90).abandon()
    await until_ms(20)
    assert [(call.keys, call.budget_ms, call.call_headers) for call in asking.many.calls] == [
        (["a"], 1, "trip of a"),
        (["b", "c"], 53, "trip of b"),
    ]


async def test_what_is_asked_without_time_left_says_one_millisecond() -> None:
    asking = BatchRig(ScriptedBatchUpstream(after_ms=50), wait_ms=10)
    asking.ask("a")
    await end_of_turn()
    asking.ask("b", budget_ms=3)
    await until_ms(20)
    assert asking.many.calls[1].budget_ms == 1


async def test_each_key_hears_its_own_outcome_with_its_body() -> None:
    many = ScriptedBatchUpstream(after_ms=None)
    batch = Batch(many, BatchPolicy(), clock_ns)
    heard: list[tuple[Any, ...]] = []
    for key in "ab":
        batch.call({"key": key}, None, 100, lambda *outcome: heard.append(outcome))
    await end_of_turn()
    refused = Overloaded("answered 503")
    many.calls[0].answer([(refused, False, None), (None, True, b"{}")])
    assert heard == [(refused, False, None), (None, True, b"{}")]


async def test_the_failure_of_a_call_is_that_of_all_its_keys() -> None:
    asking = BatchRig(ScriptedBatchUpstream(after_ms=None))
    asking.ask("a")
    asking.ask("b")
    await end_of_turn()
    lost = Unreachable("lost")
    asking.many.calls[0].answer(lost)
    assert asking.told == {"a": lost, "b": lost}


async def test_a_hanging_call_holds_nobody_else_back() -> None:
    asking = BatchRig(ScriptedBatchUpstream(after_ms=None))
    asking.ask("a")
    await until_ms(1)
    asking.many.after_ms = 5
    asking.ask("b")
    await until_ms(10)
    assert asking.told == {"b": "answer to b"}


async def test_who_leaves_a_call_under_way_disturbs_nobody_and_hears_nothing() -> None:
    asking = BatchRig(ScriptedBatchUpstream())
    leg = asking.ask("a")
    asking.ask("b")
    await until_ms(5)
    leg.abandon()
    leg.abandon()
    await until_ms(20)
    assert asking.told == {"b": "answer to b"}
    assert not asking.many.calls[0].abandoned
    leg.abandon()


async def test_when_all_have_left_the_call_is_abandoned_and_its_room_is_free() -> None:
    asking = BatchRig(ScriptedBatchUpstream(after_ms=None), wait_ms=100)
    legs = [asking.ask("a"), asking.ask("b")]
    await until_ms(5)
    asking.ask("c")
    for leg in legs:
        assert not asking.many.calls[0].abandoned
        leg.abandon()
        leg.abandon()
    assert asking.many.calls[0].abandoned
    assert asking.many.sent == [(0, "ab"), (5, "c")]
    assert timers_set() == []


async def test_who_leaves_while_gathering_is_not_asked_for() -> None:
    asking = BatchRig(ScriptedBatchUpstream())
    asking.ask("a").abandon()
    asking.ask("b")
    asking.ask("c").abandon()
    await until_ms(20)
    assert asking.many.sent == [(0, "b")]


async def test_when_all_leave_while_gathering_there_is_no_call_and_no_timer() -> None:
    asking = BatchRig(ScriptedBatchUpstream(after_ms=None))
    asking.ask("a")
    await end_of_turn()
    asking.ask("b").abandon()
    assert timers_set() == []
    asking.ask("c")
    await until_ms(20)
    assert asking.many.sent == [(0, "a"), (2, "c")]


async def test_an_asker_who_raises_is_reported_and_the_others_are_told() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    asking = BatchRig(ScriptedBatchUpstream())
    asking.told["a"] = "told already, so that being told again raises"
    asking.ask("a")
    asking.ask("b")
    await until_ms(20)
    assert asking.told["b"] == "answer to b"
    assert [type(context["exception"]) for context in reported] == [AssertionError]


async def test_a_key_of_which_no_call_can_be_made_is_reported_and_the_others_are_asked() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    asking = BatchRig(ScriptedBatchUpstream(unaskable="b"))
    legs = [asking.ask(key, avoid=2) for key in "abc"]
    await until_ms(20)
    assert [call.avoid for call in asking.many.calls] == [2, 2]
    assert asking.told["a"] == "answer to a"
    assert asking.told["c"] == "answer to c"
    assert type(asking.told["b"]) is Unreachable
    assert [type(context["exception"]) for context in reported] == [KeyError]
    asking.ask("d")
    for leg in legs:
        leg.abandon()
    await end_of_turn()
    assert asking.many.sent == [(0, "a"), (0, "c"), (20, "d")]


async def test_that_no_call_can_be_made_is_heard_later_than_asking_returns() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    asking = BatchRig(ScriptedBatchUpstream(unaskable="a"), max=1)
    asking.ask("a")
    assert asking.told == {}
    await end_of_turn()
    assert type(asking.told["a"]) is Unreachable


class Kept:
    """A trip that can be watched."""


async def test_who_leaves_before_hearing_that_no_call_could_be_made_hears_nothing_and_disturbs_nobody() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    asking = BatchRig(ScriptedBatchUpstream(unaskable="d"), max=2)
    for key in "abc":
        asking.ask(key)
    leg = asking.ask("d")  # with c, in a call that is full and cannot be made
    asking.ask("e")
    leg.abandon()
    await until_ms(20)
    assert asking.told == {key: f"answer to {key}" for key in "abce"}


async def test_a_leg_that_is_kept_knows_its_place_and_holds_neither_call_nor_asker_and_no_cycle_is_left() -> None:
    many = ScriptedBatchUpstream()
    batch, call_headers = Batch(many, BatchPolicy(), clock_ns), Kept()
    askers = [OutcomeRecorder("a", {}), OutcomeRecorder("b", {})]
    legs = [batch.call({"key": asker.key}, call_headers, 100, asker) for asker in askers]
    await until_ms(5)
    legs[1].abandon()
    gc.collect()
    gc.disable()
    try:
        gone: list[weakref.ref[Any]] = [weakref.ref(many.calls.pop()), *map(weakref.ref, askers)]
        seen = weakref.ref(call_headers)
        del call_headers
        askers.clear()
        await until_ms(20)
        assert [one() for one in gone] == [None, None, None]
        assert [leg.address_index for leg in legs] == [1, 1]
        legs.clear()
        assert seen() is None
    finally:
        gc.enable()


def test_what_was_kept_is_read_by_the_source() -> None:
    assert Batch(ScriptedBatchUpstream(), BatchPolicy()).parse_stored(True, b"x", {"key": "a"}) == (
        True,
        b"x",
        {"key": "a"},
    )


# Whatever is asked and left, whenever

ASKS = st.lists(
    st.tuples(st.integers(0, 12), st.none() | st.integers(0, 30), st.sampled_from([0, 0, 0, 1, 2])),
    min_size=1,
    max_size=25,
)


@given(
    asks=ASKS,
    after_ms=st.none() | st.integers(1, 15),
    numbers=st.fixed_dictionaries({"max": st.integers(1, 6), "wait_ms": st.integers(0, 5), "room": st.integers(1, 3)}),
)
def test_everybody_who_stays_hears_their_own_answer_once_whoever_else_leaves(
    asks: list[tuple[int, int | None, int]], after_ms: int | None, numbers: dict[str, int]
) -> None:
    """Each ask: when, how much later it is abandoned, and what it avoids."""
    in_virtual_time(stays_and_leaves(asks, after_ms, numbers))


async def stays_and_leaves(
    asks: list[tuple[int, int | None, int]], after_ms: int | None, numbers: dict[str, int]
) -> None:
    asking = BatchRig(ScriptedBatchUpstream(after_ms), **numbers)
    loop = asyncio.get_running_loop()
    left: dict[str, float] = {}

    def ask(key: str, leave_after_ms: int | None, avoid: int) -> None:
        leg = asking.ask(key, avoid=avoid)
        if leave_after_ms is not None:
            loop.call_at(loop.time() + leave_after_ms / 1000, leave, key, leg)

    def leave(key: str, leg: UpstreamCall) -> None:
        if key not in asking.told:
            left[key] = now_ms()
        leg.abandon()

    asked = {f"k{index}": at_ms for index, (at_ms, _, _) in enumerate(asks)}
    for index, (at_ms, leave_after_ms, avoid) in enumerate(asks):
        loop.call_at(at_ms / 1000, ask, f"k{index}", leave_after_ms, avoid)
    await until_ms(100)

    calls = asking.many.calls
    sent = {key: call for call in calls for key in call.keys}
    assert sum(len(call.keys) for call in calls) == len(sent), "a key was sent twice"
    assert all(len(call.keys) <= numbers["max"] for call in calls)
    for index, (_, _, avoid) in enumerate(asks):
        key = f"k{index}"
        if key not in sent:
            assert key in left
            continue
        assert sent[key].avoid == avoid
        assert sent[key].began_ms - asked[key] <= numbers["wait_ms"] + 0.001
        if after_ms is not None and key not in left:
            assert asking.told[key] == f"answer to {key}"
    assert not left.keys() & asking.told.keys()
    for call in calls:
        assert call.abandoned == all(key in left for key in call.keys)
        if call.abandoned:
            assert call.ended_ms == max(left[key] for key in call.keys)
    assert timers_set() == []
    hanging = sum(call.ended_ms is None for call in calls)
    assert repr(asking.batch) == f"Batch(first, second; {hanging} calls in flight, 0 keys gathered)"
