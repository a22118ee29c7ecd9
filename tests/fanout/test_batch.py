"""Batching: when keys leave, which outcome each gets, and the independence of abandoned keys."""

from __future__ import annotations

import asyncio
import gc
import statistics
import weakref
from itertools import accumulate
from random import Random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cashier.fanout.ask import Ask, Importance, SourceStatus
from cashier.fanout.batch import Batch, BatchPolicy, gathering_ns
from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.plan import Plan
from cashier.fanout.scatter import Timing, scatter
from cashier.fanout.upstream_protocol import UpstreamCall
from cashier.source_errors import Overloaded, Unreachable
from tests.fanout.batch_rig import BatchRig, OutcomeRecorder, ScriptedBatchUpstream, end_of_turn, until_ms
from tests.support.virtual_time import MS_NS, clock_ns, now_ms, run_in_virtual_time, timers_set

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize(
    ("keys", "since_ms", "gathers_ms"),
    [
        (1, 1_000, 0),
        (1, 4, 0),
        (1, 3, 1),
        (1, 0, 7),
        (2, 6, 1),
        (12, 6, 6),
        (50, 1, 6.96),
    ],
)
def test_keys_gather_for_longer_after_a_call_with_many_keys(keys: int, since_ms: int, gathers_ms: float) -> None:
    assert gathering_ns(keys, since_ms * MS_NS, BatchPolicy(wait_ms=7)) == gathers_ms * MS_NS


async def test_an_idle_source_is_called_at_once() -> None:
    rig = BatchRig(ScriptedBatchUpstream())
    rig.ask("a")
    await end_of_turn()
    assert rig.upstream.sent == [(0, "a")]
    assert timers_set() == [rig.upstream.calls[0].timer]


async def test_keys_of_one_loop_turn_leave_in_one_call_without_waiting() -> None:
    rig = BatchRig(ScriptedBatchUpstream())
    for key in "abc":
        rig.ask(key)
    await until_ms(20)
    assert rig.upstream.sent == [(0, "abc")]
    assert rig.outcomes == {"a": "answer to a", "b": "answer to b", "c": "answer to c"}


async def test_keys_gather_after_a_call_and_leave_together() -> None:
    rig = BatchRig(ScriptedBatchUpstream(), wait_ms=4)
    rig.ask("a")
    for at_ms, key in [(1, "b"), (2, "c"), (3, "d"), (6, "e")]:
        await until_ms(at_ms)
        rig.ask(key)
    await until_ms(20)
    # Three keys in 4 ms: the next ones gather for 4 ms less twice 1.33.
    assert rig.upstream.sent == [(0, "a"), (4, "bcd"), (6, "e")]
    assert timers_set() == []


async def test_with_little_traffic_no_key_waits() -> None:
    rig = BatchRig(ScriptedBatchUpstream(after_ms=50), wait_ms=4)
    for at_ms, key in [(5, "a"), (8, "b"), (11, "c")]:
        await until_ms(at_ms)
        rig.ask(key)
    await until_ms(20)
    assert rig.upstream.sent == [(5, "a"), (8, "b"), (11, "c")]


@pytest.mark.parametrize(("per_s", "keys_each", "waits_ms"), [(50, 1.0, 0.0), (500, 1.8, 1.2), (2_000, 11.6, 3.0)])
def test_calls_have_more_keys_and_keys_wait_longer_under_more_load(
    per_s: int, keys_each: float, waits_ms: float
) -> None:
    """On a loop whose timers count whole milliseconds, as uvloop's do."""

    async def run() -> None:
        rig, random, loop = BatchRig(ScriptedBatchUpstream(after_ms=5)), Random(1), asyncio.get_running_loop()
        asked_s = list(accumulate(random.expovariate(per_s) for _ in range(1_000)))
        for n, at_s in enumerate(asked_s):
            loop.call_at(at_s, rig.ask, str(n))
        await asyncio.sleep(asked_s[-1] + 1)
        waited_ms = [call.started_ms - 1_000 * asked_s[int(key)] for call in rig.upstream.calls for key in call.keys]
        assert len(waited_ms) / len(rig.upstream.calls) == pytest.approx(keys_each, rel=0.1)
        assert statistics.median(waited_ms) == pytest.approx(waits_ms, abs=0.3)

    run_in_virtual_time(run(), coarse=True)


async def test_keys_that_gather_longer_when_traffic_jumps_do_not_time_out() -> None:
    """The timeout is learned while no key waits, and the source is as quick as before."""
    random, loop, policy = Random(1), asyncio.get_running_loop(), BatchPolicy()
    batch = Batch(ScriptedBatchUpstream(after_ms=5), policy, clock_ns)
    mechanisms = Mechanisms(gathering_ms=policy.wait_ms)
    guard = Guard("source", batch, 80, mechanisms, DegradationLadder(), Importance.GATING, clock_ns=clock_ns)
    plan = Plan(
        [Ask("source", Importance.GATING, ("key",), 80, guard.start, current_timeout=guard.adaptive_timeout)], ["key"]
    )
    tasks = []

    def consult(n: int) -> None:
        deadline_ns = clock_ns() + 150 * MS_NS
        asked = scatter(plan, {"key": str(n)}, None, deadline_ns=deadline_ns, timing=Timing(0, 0), clock_ns=clock_ns)
        tasks.append(loop.create_task(asked))

    gaps_s = [random.expovariate(20) for _ in range(400)] + [random.expovariate(2_000) for _ in range(400)]
    for n, at_s in enumerate(accumulate(gaps_s)):
        loop.call_at(at_s, consult, n)
    await asyncio.sleep(sum(gaps_s) + 1)
    guard.close()
    assert guard.adaptive_timeout.timeout_ms < 25
    reports = [(await task).reports[0] for task in tasks]
    assert {report.status for report in reports} == {SourceStatus.FRESH}
    assert max(report.elapsed_ms for report in reports[400:]) > 10 > max(report.elapsed_ms for report in reports[:100])


@pytest.mark.moves("cashier_batched_asks_total")
async def test_a_full_call_leaves_within_the_loop_turn() -> None:
    rig = BatchRig(ScriptedBatchUpstream(after_ms=50), max=3, wait_ms=10)
    for key in "abcdefgh":
        rig.ask(key)
    assert rig.upstream.sent == [(0, "abc"), (0, "def")]
    assert rig.outcomes == {}
    await until_ms(20)
    assert rig.upstream.sent[2:] == [(10, "gh")]
    assert (rig.batch.calls.value, rig.batch.asks.value) == (3, 8)


async def test_any_number_of_gathered_keys_needs_one_timer() -> None:
    rig = BatchRig(ScriptedBatchUpstream(after_ms=None))
    rig.ask("a")
    await end_of_turn()
    for key in "bcdef":
        rig.ask(key)
    assert len(timers_set()) == 1
    assert repr(rig.batch) == "Batch(first, second; 5 keys gathered)"


async def test_a_hedge_for_a_key_in_flight_avoids_the_first_address() -> None:
    rig = BatchRig(ScriptedBatchUpstream(after_ms=50))
    first = rig.ask("a")
    assert first.address_index == 0
    await until_ms(5)
    assert first.address_index == 1
    hedged = OutcomeRecorder("hedged a", rig.outcomes)
    rig.batch.call({"key": "a"}, "headers", 100, hedged, 1 << first.address_index)
    rig.ask("b")
    await until_ms(20)
    assert [(call.started_ms, call.keys, call.avoid) for call in rig.upstream.calls[1:]] == [
        (7, ["a"], 2),
        (7, ["b"], 0),
    ]


async def test_a_call_has_the_longest_remaining_budget_and_the_headers_of_its_first_key() -> None:
    rig = BatchRig(ScriptedBatchUpstream(after_ms=50), wait_ms=10)
    rig.ask("a", budget_ms=1)
    await end_of_turn()
    rig.ask("b", budget_ms=60)
    await until_ms(5)
    rig.ask("c", budget_ms=58)
    rig.ask("d", budget_ms=90).abandon()
    await until_ms(20)
    assert [(call.keys, call.budget_ms, call.call_headers) for call in rig.upstream.calls] == [
        (["a"], 1, "headers of a"),
        (["b", "c"], 53, "headers of b"),
    ]


async def test_the_smallest_budget_of_a_call_is_one_millisecond() -> None:
    rig = BatchRig(ScriptedBatchUpstream(after_ms=50), wait_ms=10)
    rig.ask("a")
    await end_of_turn()
    rig.ask("b", budget_ms=3)
    await until_ms(20)
    assert rig.upstream.calls[1].budget_ms == 1


async def test_each_key_gets_its_own_outcome_with_its_body() -> None:
    many = ScriptedBatchUpstream(after_ms=None)
    batch = Batch(many, BatchPolicy(), clock_ns)
    heard: list[tuple[Any, ...]] = []
    for key in "ab":
        batch.call({"key": key}, None, 100, lambda *outcome: heard.append(outcome))
    await end_of_turn()
    refused = Overloaded("answered 503")
    many.calls[0].answer([(refused, False, None), (None, True, b"{}")])
    assert heard == [(refused, False, None), (None, True, b"{}")]


async def test_a_failed_call_fails_all_its_keys() -> None:
    rig = BatchRig(ScriptedBatchUpstream(after_ms=None))
    rig.ask("a")
    rig.ask("b")
    await end_of_turn()
    lost = Unreachable("lost")
    rig.upstream.calls[0].answer(lost)
    assert rig.outcomes == {"a": lost, "b": lost}


async def test_a_hanging_call_does_not_delay_other_keys() -> None:
    rig = BatchRig(ScriptedBatchUpstream(after_ms=None))
    rig.ask("a")
    await until_ms(1)
    rig.upstream.after_ms = 5
    rig.ask("b")
    await until_ms(20)
    assert rig.outcomes == {"b": "answer to b"}


async def test_abandoning_a_key_in_flight_does_not_disturb_the_others() -> None:
    rig = BatchRig(ScriptedBatchUpstream())
    waiter = rig.ask("a")
    rig.ask("b")
    await until_ms(5)
    waiter.abandon()
    waiter.abandon()
    await until_ms(20)
    assert rig.outcomes == {"b": "answer to b"}
    assert not rig.upstream.calls[0].abandoned
    waiter.abandon()


async def test_a_call_is_abandoned_with_its_last_key() -> None:
    rig = BatchRig(ScriptedBatchUpstream(after_ms=None))
    waiters = [rig.ask("a"), rig.ask("b")]
    await until_ms(5)
    rig.ask("c")
    await until_ms(10)
    for waiter in waiters:
        assert not rig.upstream.calls[0].abandoned
        waiter.abandon()
        waiter.abandon()
    assert rig.upstream.calls[0].abandoned
    assert rig.upstream.sent == [(0, "ab"), (7, "c")]
    assert not rig.upstream.calls[1].abandoned
    assert timers_set() == []


async def test_a_key_abandoned_while_gathering_is_not_sent() -> None:
    rig = BatchRig(ScriptedBatchUpstream())
    rig.ask("a").abandon()
    rig.ask("b")
    rig.ask("c").abandon()
    await until_ms(20)
    assert rig.upstream.sent == [(0, "b")]


async def test_if_all_keys_are_abandoned_while_gathering_there_is_no_call_and_no_timer() -> None:
    rig = BatchRig(ScriptedBatchUpstream(after_ms=None))
    rig.ask("a")
    await end_of_turn()
    rig.ask("b").abandon()
    assert timers_set() == []
    rig.ask("c")
    await until_ms(20)
    assert rig.upstream.sent == [(0, "a"), (7, "c")]


async def test_a_callback_that_raises_is_reported_and_the_others_are_called() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    rig = BatchRig(ScriptedBatchUpstream())
    rig.outcomes["a"] = "present, so that the callback raises"
    rig.ask("a")
    rig.ask("b")
    await until_ms(20)
    assert rig.outcomes["b"] == "answer to b"
    assert [type(context["exception"]) for context in reported] == [AssertionError]


async def test_a_key_that_breaks_the_call_is_reported_and_the_others_are_sent() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    rig = BatchRig(ScriptedBatchUpstream(broken_key="b"))
    waiters = [rig.ask(key, avoid=2) for key in "abc"]
    await until_ms(20)
    assert [call.avoid for call in rig.upstream.calls] == [2, 2]
    assert rig.outcomes["a"] == "answer to a"
    assert rig.outcomes["c"] == "answer to c"
    assert type(rig.outcomes["b"]) is Unreachable
    assert [type(context["exception"]) for context in reported] == [KeyError]
    rig.ask("d")
    for waiter in waiters:
        waiter.abandon()
    await end_of_turn()
    assert rig.upstream.sent == [(0, "a"), (0, "c"), (20, "d")]


async def test_the_error_of_a_broken_call_arrives_after_the_ask_returns() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    rig = BatchRig(ScriptedBatchUpstream(broken_key="a"), max=1)
    rig.ask("a")
    assert rig.outcomes == {}
    await end_of_turn()
    assert type(rig.outcomes["a"]) is Unreachable


class Kept:
    """Call headers that accept a weak reference."""


async def test_a_key_abandoned_before_the_error_of_its_broken_call_gets_no_callback() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    rig = BatchRig(ScriptedBatchUpstream(broken_key="d"), max=2)
    for key in "abc":
        rig.ask(key)
    waiter = rig.ask("d")  # with c, in a full call that cannot be made
    rig.ask("e")
    waiter.abandon()
    await until_ms(20)
    assert rig.outcomes == {key: f"answer to {key}" for key in "abce"}


async def test_a_kept_waiter_knows_its_address_and_keeps_nothing_else_alive() -> None:
    many = ScriptedBatchUpstream()
    batch, call_headers = Batch(many, BatchPolicy(), clock_ns), Kept()
    askers = [OutcomeRecorder("a", {}), OutcomeRecorder("b", {})]
    waiters = [batch.call({"key": asker.key}, call_headers, 100, asker) for asker in askers]
    await until_ms(5)
    waiters[1].abandon()
    gc.collect()
    gc.disable()
    try:
        gone: list[weakref.ref[Any]] = [weakref.ref(many.calls.pop()), *map(weakref.ref, askers)]
        seen = weakref.ref(call_headers)
        del call_headers
        askers.clear()
        await until_ms(20)
        assert [one() for one in gone] == [None, None, None]
        assert [waiter.address_index for waiter in waiters] == [1, 1]
        waiters.clear()
        assert seen() is None
    finally:
        gc.enable()


def test_a_stored_answer_is_parsed_by_the_source() -> None:
    assert Batch(ScriptedBatchUpstream(), BatchPolicy()).parse_stored(True, b"x", {"key": "a"}) == (
        True,
        b"x",
        {"key": "a"},
    )


# Any asks, abandoned at any time

ASKS = st.lists(
    st.tuples(st.integers(0, 12), st.none() | st.integers(0, 30), st.sampled_from([0, 0, 0, 1, 2])),
    min_size=1,
    max_size=25,
)


@given(
    asks=ASKS,
    after_ms=st.none() | st.integers(1, 15),
    settings=st.fixed_dictionaries({"max": st.integers(1, 6), "wait_ms": st.integers(0, 5)}),
)
def test_every_key_that_is_not_abandoned_gets_its_own_answer_once(
    asks: list[tuple[int, int | None, int]], after_ms: int | None, settings: dict[str, int]
) -> None:
    """Each ask: its start, its abandonment after that, and the addresses it avoids."""
    run_in_virtual_time(stays_and_leaves(asks, after_ms, settings))


async def stays_and_leaves(
    asks: list[tuple[int, int | None, int]], after_ms: int | None, settings: dict[str, int]
) -> None:
    rig = BatchRig(ScriptedBatchUpstream(after_ms), **settings)
    loop = asyncio.get_running_loop()
    left: dict[str, float] = {}

    def ask(key: str, leave_after_ms: int | None, avoid: int) -> None:
        waiter = rig.ask(key, avoid=avoid)
        if leave_after_ms is not None:
            loop.call_at(loop.time() + leave_after_ms / 1000, leave, key, waiter)

    def leave(key: str, waiter: UpstreamCall) -> None:
        if key not in rig.outcomes:
            left[key] = now_ms()
        waiter.abandon()

    asked_ms = {f"k{index}": at_ms for index, (at_ms, _, _) in enumerate(asks)}
    for index, (at_ms, leave_after_ms, avoid) in enumerate(asks):
        loop.call_at(at_ms / 1000, ask, f"k{index}", leave_after_ms, avoid)
    await until_ms(100)

    calls = rig.upstream.calls
    sent = {key: call for call in calls for key in call.keys}
    assert sum(len(call.keys) for call in calls) == len(sent), "a key was sent twice"
    assert all(len(call.keys) <= settings["max"] for call in calls)
    for index, (_, _, avoid) in enumerate(asks):
        key = f"k{index}"
        if key not in sent:
            assert key in left
            continue
        assert sent[key].avoid == avoid
        assert sent[key].started_ms - asked_ms[key] <= settings["wait_ms"] + 0.001
        if after_ms is not None and key not in left:
            assert rig.outcomes[key] == f"answer to {key}"
    assert not left.keys() & rig.outcomes.keys()
    for call in calls:
        assert call.abandoned == all(key in left for key in call.keys)
        if call.abandoned:
            assert call.ended_ms == max(left[key] for key in call.keys)
    assert timers_set() == []
    assert repr(rig.batch) == "Batch(first, second; 0 keys gathered)"
