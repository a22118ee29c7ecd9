"""After any end (answers, bug, cancellation) a scatter leaves nothing, and ignores outcomes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cashier.fanout.ask import Ask, AskCall, Importance, Known, OnOutcome, SourceStatus
from cashier.fanout.ask_state import PendingAsk
from cashier.fanout.plan import Plan
from cashier.fanout.scatter import Scatter, ScatterResult, Timing, scatter
from cashier.source_errors import Missing, MissingCause, Unreachable
from tests.fanout.scripted_sources import (
    NEVER,
    AnswerMode,
    Call,
    ScriptedSource,
    assert_nothing_is_left,
    consult,
    enriching,
    gating,
    plan_of,
    required,
)
from tests.support.virtual_time import clock_ns, run_in_virtual_time

pytestmark = pytest.mark.virtual_time


class Bug(Exception):
    pass


def fails(*_: Any) -> Any:
    raise Bug


class Broken(ScriptedSource):
    """A source whose start raises."""

    def start(self, *_: Any) -> AskCall | None:
        raise Bug


async def test_a_second_answer_is_ignored() -> None:
    order = required("order", after_ms=10)
    loop = asyncio.get_running_loop()
    loop.call_at(0.011, lambda: order.calls[0].done("another", SourceStatus.STALE))
    loop.call_at(0.012, lambda: order.calls[0].done(Unreachable("after all"), SourceStatus.FRESH))
    result = await consult(order, gating("card", after_ms=20))
    assert result.answers["order"] == "order"
    assert result.reports[0].status is SourceStatus.FRESH
    assert result.failed_required == ()


async def test_an_answer_after_its_timeout_is_ignored_and_starts_no_ask() -> None:
    vault = gating("vault", gives={"bank": "CMB"}, after_ms=NEVER, timeout_ms=10)
    limits = gating("limits", needs=("bank",))
    asyncio.get_running_loop().call_at(0.015, lambda: vault.calls[0].done("late"))
    result = await consult(vault, limits, required("order", after_ms=20))
    assert result.answers["vault"] == Missing("vault", MissingCause.TIMEOUT)
    assert limits.calls == []


async def test_an_answer_after_the_end_does_not_change_the_result() -> None:
    coupon = enriching("coupon", after_ms=NEVER)
    result = await consult(required("order"), coupon, grace_ms=5)
    coupon.calls[0].done("late")
    assert result.answers["coupon"] == Missing("coupon", MissingCause.TIMEOUT)


async def test_an_answer_between_the_end_and_the_return_is_ignored() -> None:
    """The last required answer and another come in one loop turn, before the scatter resumes."""
    order, card = required("order", after_ms=10), gating("card", after_ms=10)
    result = await consult(order, card, conclusive=lambda answers: True)
    assert result.answers == {"order": "order", "card": Missing("card", MissingCause.SKIPPED)}
    assert (card.calls[0].answers, card.calls[0].abandons) == (1, 0)


async def test_a_call_returned_after_its_answer_is_abandoned() -> None:
    call: list[Call] = []

    def start(known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall:
        done("now")
        call.append(Call(known, call_headers, budget_ms, done))
        return call[0]

    result = await scatter(
        Plan([Ask("order", Importance.REQUIRED, (), 100, start)], []),
        {},
        None,
        deadline_ns=clock_ns() + 10**9,
        timing=Timing(0, 0),
        clock_ns=clock_ns,
    )
    assert result.answers == {"order": "now"}
    assert call[0].abandons == 1


async def test_an_exception_in_start_is_raised_and_started_calls_are_abandoned() -> None:
    order = required("order", after_ms=NEVER)
    with pytest.raises(Bug):
        await consult(order, Broken("card", Importance.GATING), gating("quota"))
    assert order.calls[0].abandons == 1


async def test_an_exception_in_a_later_start_is_raised_too() -> None:
    order = required("order", gives={"currency": "CNY"}, after_ms=10)
    card = gating("card", after_ms=NEVER)
    with pytest.raises(Bug):
        await consult(order, card, Broken("channel", Importance.GATING, needs=("currency",)))
    assert card.calls[0].abandons == 1


@pytest.mark.parametrize("mode", AnswerMode)
async def test_an_exception_in_reveal_is_raised(mode: AnswerMode) -> None:
    order = required("order", gives={"currency": "CNY"}, reveal=fails, mode=mode)
    with pytest.raises(Bug):
        await consult(order, gating("channel", needs=("currency",)), gating("card", after_ms=NEVER))


@pytest.mark.parametrize("mode", AnswerMode)
async def test_an_exception_in_conclusive_is_raised(mode: AnswerMode) -> None:
    with pytest.raises(Bug):
        await consult(required("order", mode=mode), gating("card", after_ms=NEVER), conclusive=fails)


async def test_revealing_an_undeclared_name_is_a_bug() -> None:
    order = required("order", gives={"currency": "CNY"}, reveal=lambda answer: {"currency": "CNY", "user": "u_2"})
    with pytest.raises(ValueError, match="order revealed user, which it does not give"):
        await consult(order, gating("channel", needs=("currency",)))


async def test_an_exception_in_abandon_at_a_timeout_is_raised() -> None:
    class Clinging(Call):
        def abandon(self) -> None:
            super().abandon()
            raise Bug

    def start(known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall:
        return Clinging(known, call_headers, budget_ms, done)

    plan = Plan([Ask("card", Importance.GATING, (), 10, start)], [])
    with pytest.raises(Bug):
        await scatter(plan, {}, None, deadline_ns=clock_ns() + 10**9, timing=Timing(0, 0), clock_ns=clock_ns)


def sources_of_every_kind() -> list[ScriptedSource]:
    return [
        required("order", gives={"currency": "CNY"}, after_ms=8),
        required("merchant", mode=AnswerMode.TASK, after_ms=4),
        gating("quota", mode=AnswerMode.AT_ONCE),
        gating("card", after_ms=NEVER, timeout_ms=11),
        gating("channel", needs=("currency",), gives={"fee": 1}, mode=AnswerMode.TASK, after_ms=5),
        gating("tariff", needs=("fee",), after_ms=4),
        enriching("coupon", needs=("currency",), after_ms=NEVER),
    ]


# 8 + 5 + 4 ms to the last essential answer and 15 of grace: it ends at 32.
@pytest.mark.parametrize("cancel_ms", [step / 2 for step in range(64)])
async def test_cancellation_at_any_time_leaves_nothing(cancel_ms: float) -> None:
    task = asyncio.create_task(consult(*sources_of_every_kind(), grace_ms=15))
    await asyncio.sleep(cancel_ms / 1000)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("turns", range(8))
async def test_cancellation_in_any_loop_turn_leaves_nothing(turns: int) -> None:
    """All outcomes come within a few loop turns, one of them between the end and the return."""
    sources = [
        required("order", gives={"currency": "CNY"}, mode=AnswerMode.TASK, after_ms=0),
        gating("channel", needs=("currency",), after_ms=0),
        gating("card", mode=AnswerMode.TASK, after_ms=0),
    ]
    task = asyncio.create_task(consult(*sources))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    ended = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(ended[0], ScatterResult | asyncio.CancelledError)
    assert_nothing_is_left(sources)


async def test_an_answer_in_the_loop_turn_of_the_cancellation_is_ignored() -> None:
    errors: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, error: errors.append(error))
    order = required("order", after_ms=NEVER)
    task = asyncio.create_task(consult(order))
    await asyncio.sleep(0.01)
    task.cancel()
    order.calls[0].answer("order", SourceStatus.FRESH, 0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert errors == []


async def test_cancellation_between_the_end_and_the_return_is_raised() -> None:
    order = required("order", after_ms=10)
    task = asyncio.create_task(
        consult(order, gating("card", after_ms=NEVER), conclusive=lambda answers: bool(task.cancel()) or True)
    )
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive(*kinds: type) -> list[Any]:
    return [each for each in gc.get_objects() if isinstance(each, kinds)]


async def cancelled_by_its_caller() -> None:
    task = asyncio.create_task(consult(*sources_of_every_kind()))
    await asyncio.sleep(0.009)
    task.cancel()
    await asyncio.wait([task])


async def bugged(**scripts: Any) -> None:
    try:
        await consult(required("order", gives={"currency": "CNY"}, **scripts), gating("channel", needs=("currency",)))
    except Bug:
        return
    raise AssertionError("the bug was swallowed")


async def start_bugged_after_a_bug() -> None:
    """Two bugs: the answer makes `reveal` raise, then the start raises. Only one is raised."""

    class Twice(ScriptedSource):
        def start(self, *args: Any) -> AskCall | None:
            super().start(*args)
            raise Bug

    try:
        await consult(
            Twice("order", Importance.REQUIRED, gives={"currency": "CNY"}, reveal=fails, mode=AnswerMode.AT_ONCE)
        )
    except Bug:
        return
    raise AssertionError("the bug was swallowed")


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(lambda: consult(*sources_of_every_kind()), id="answered"),
        pytest.param(lambda: consult(required("order", after_ms=NEVER), gating("card", after_ms=NEVER)), id="timeout"),
        pytest.param(
            lambda: consult(required("order", outcome=Unreachable("reset")), gating("card", after_ms=NEVER)),
            id="failed",
        ),
        pytest.param(lambda: consult(*sources_of_every_kind(), conclusive=lambda answers: True), id="conclusive"),
        pytest.param(lambda: consult(required("order", mode=AnswerMode.AT_ONCE)), id="at once"),
        pytest.param(cancelled_by_its_caller, id="cancelled"),
        pytest.param(lambda: bugged(reveal=fails), id="a bug"),
        pytest.param(lambda: bugged(reveal=fails, mode=AnswerMode.AT_ONCE), id="a bug during a start"),
        pytest.param(start_bugged_after_a_bug, id="two bugs"),
    ],
)
def test_all_objects_of_a_scatter_are_freed_without_the_garbage_collector(
    scenario: Callable[[], Any],
) -> None:
    async def run() -> list[Any]:
        await scenario()
        for _ in range(3):
            await asyncio.sleep(0)
        for source in alive(
            ScriptedSource
        ):  # its list of calls makes the only reference cycle, which is the test's own
            source.calls.clear()
        return alive(Scatter, PendingAsk, Call)

    assert run_in_virtual_time(run()) == []


@pytest.mark.usefixtures("without_collector")
async def test_a_kept_callback_keeps_nothing_else_alive() -> None:
    card = gating("card", after_ms=NEVER, timeout_ms=20)
    await consult(required("order"), card)
    assert alive(Scatter) == []
    assert card.calls[0].abandons == 1


async def test_the_repr_of_a_scatter_shows_the_state_of_each_ask() -> None:
    sources = [
        required("order", gives={"currency": "CNY"}, after_ms=10),
        gating("channel", needs=("currency",)),
        gating("card", mode=AnswerMode.AT_ONCE),
    ]
    scatter_in_progress = Scatter(
        plan_of(sources), None, deadline_ns=clock_ns() + 10**9, timing=Timing(0, 0), conclusive=None, clock_ns=clock_ns
    )
    running = asyncio.create_task(scatter_in_progress.run({}))
    await asyncio.sleep(0)
    assert repr(scatter_in_progress) == "Scatter(in progress; order: asked, channel: waiting, card: FRESH)"
    await running
    scatter_in_progress.close()
    assert repr(scatter_in_progress) == "Scatter(ended; order: FRESH, channel: FRESH, card: FRESH)"
