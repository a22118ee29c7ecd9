"""The stream of a consultation in virtual time: its first answer, its changes and its end."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.consultation.answer import Consultation, ConsultError, OrderUnknown, RequiredSourceUnavailable
from cashier.consultation.flow import ConsultSettings
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.domain.pay_method import Availability, ReasonCode
from cashier.fanout.ask import SourceStatus
from cashier.tokens.token_service import TokenService
from cashier.wire.transport import CallHeaders
from tests.consultation.test_flow import (
    HANGS,
    any_behaviour,
    cases,
    could_refuse,
    methods_by_id,
    optional_behaviours,
    required_sources,
    silent_sources,
    statuses,
)
from tests.support.virtual_consultation import Behaviour, ConsultOutcome, ask, flow_over, request
from tests.support.virtual_time import run_in_virtual_time, timers_set

WITHOUT_GRACE_LIMIT = ConsultSettings(grace_ms=60_000)


class StreamOutcome(NamedTuple):
    """The answers with their times, or the error in their place, and the time of the end."""

    answers: list[tuple[float, Consultation]]
    error: ConsultError | None
    after_ms: float

    @property
    def last(self) -> Consultation:
        return self.answers[-1][1]

    @property
    def times_ms(self) -> list[float]:
        return [at_ms for at_ms, _ in self.answers]


async def stream(behaviours: dict[str, Behaviour], case: str = "chinese_shop", **fields: int) -> StreamOutcome:
    loop = asyncio.get_running_loop()
    started_s, answers, error = loop.time(), [], None
    try:
        async for answer in flow_over(behaviours, {}).stream(request(case, **fields), CallHeaders("test")):
            answers.append((round((loop.time() - started_s) * 1000, 3), answer))
    except ConsultError as raised:
        error = raised
    assert timers_set() == []
    return StreamOutcome(answers, error, (loop.time() - started_s) * 1000)


def run_stream(behaviours: dict[str, Behaviour], case: str = "chinese_shop", **fields: int) -> StreamOutcome:
    return run_in_virtual_time(stream(behaviours, case, **fields))


def pending(consultation: Consultation) -> set[str]:
    return {name for name, status in statuses(consultation).items() if status is SourceStatus.PENDING}


def test_the_first_answer_needs_required_sources_and_channels_and_each_later_source_improves_it() -> None:
    outcome = run_stream(
        {
            "channel": Behaviour(10),
            "card": Behaviour(30),
            "balance": Behaviour(50),
            "quota": Behaviour(70),
            "marketing": Behaviour(75),
        }
    )
    assert outcome.times_ms == [10, 30, 50, 70, 75]
    assert [pending(answer) for _, answer in outcome.answers] == [
        {"card", "balance", "quota", "marketing"},
        {"balance", "quota", "marketing"},
        {"quota", "marketing"},
        {"marketing"},
        set(),
    ]
    assert outcome.after_ms == pytest.approx(75)


@pytest.mark.parametrize("name", [*required_sources, "channel"])
def test_no_answer_comes_before_the_required_sources_and_the_channels(name: str) -> None:
    assert run_stream({name: Behaviour(60)}).times_ms[0] >= 60


def test_a_failed_channel_source_delays_no_answer() -> None:
    outcome = run_stream({"channel": Behaviour(5, "unreachable"), "quota": Behaviour(40)})
    assert outcome.times_ms == [5, 40]
    assert all(statuses(answer)["channel"] is SourceStatus.ERROR for _, answer in outcome.answers)


def test_a_hanging_channel_source_delays_the_first_answer_by_its_timeout() -> None:
    assert run_stream({"channel": HANGS}).times_ms == [pytest.approx(100, abs=1)]


def test_a_pending_source_leaves_the_methods_that_it_could_refuse_undetermined() -> None:
    outcome = run_stream({"quota": Behaviour(40)})
    first, last = methods_by_id(outcome.answers[0][1]), methods_by_id(outcome.last)
    card = first["QUICK_PAY:c_2"]
    assert card.reason is not None
    assert (card.availability, card.reason.code, card.reason.source, card.reason.remedy) == (
        Availability.UNDETERMINED,
        ReasonCode.SOURCE_PENDING,
        "quota",
        None,
    )
    assert last["QUICK_PAY:c_2"].availability is Availability.AVAILABLE
    assert outcome.answers[0][1].degraded
    assert not outcome.last.degraded


def test_a_stream_has_no_grace_and_waits_for_enriching_sources() -> None:
    outcome = run_stream({"marketing": Behaviour(70)})
    assert outcome.times_ms == [1, 70]
    assert outcome.last.methods != outcome.answers[0][1].methods


def test_at_the_deadline_a_pending_source_becomes_a_timeout() -> None:
    outcome = run_stream({"quota": HANGS}, deadline_ms=50)
    assert outcome.times_ms == [1, pytest.approx(47, abs=1)]
    assert statuses(outcome.last)["quota"] is SourceStatus.TIMEOUT
    reason = methods_by_id(outcome.last)["QUICK_PAY:c_2"].reason
    assert reason is not None
    assert reason.code is ReasonCode.SOURCE_TIMEOUT


def test_sources_that_arrive_together_make_one_answer() -> None:
    assert run_stream({}).times_ms == [1]


def test_a_source_that_changes_nothing_makes_no_answer_but_shows_in_the_last_one() -> None:
    outcome = run_stream({"marketing": Behaviour(20, "garbled"), "quota": Behaviour(40)})
    assert outcome.times_ms == [1, 40]
    assert statuses(outcome.last)["marketing"] is SourceStatus.GARBLED
    outcome = run_stream({"marketing": HANGS}, deadline_ms=50)
    assert outcome.times_ms == [1, pytest.approx(47, abs=1)]
    assert outcome.last.methods == outcome.answers[0][1].methods
    assert statuses(outcome.last)["marketing"] is SourceStatus.TIMEOUT


def test_an_order_that_cannot_be_paid_is_one_answer_and_the_end() -> None:
    outcome = run_stream(dict.fromkeys(("merchant", "member", "card", "quota"), HANGS), "order_paid")
    assert outcome.times_ms == [1]
    assert outcome.last.blocked is not None
    assert outcome.after_ms == pytest.approx(1)


def test_an_unknown_order_is_an_error() -> None:
    outcome = run_stream({}, "order_unknown")
    assert (type(outcome.error), outcome.answers) == (OrderUnknown, [])


@pytest.mark.parametrize("name", required_sources)
def test_without_a_required_source_there_is_no_answer(name: str) -> None:
    for behaviour in (HANGS, Behaviour(20, "garbled")):
        outcome = run_stream({name: behaviour})
        assert isinstance(outcome.error, RequiredSourceUnavailable)
        assert (outcome.error.failed, outcome.answers) == ((name,), [])


def test_every_answer_has_a_token_of_its_own_offer() -> None:
    outcome = run_stream({"card": Behaviour(20), "quota": Behaviour(40)})
    for _, answer in outcome.answers:
        claims = TokenService(["s" * 32]).read_consult_token(answer.consult_token)
        offered = {method.method_id for method in answer.methods if method.availability is not Availability.UNAVAILABLE}
        assert {method.id for method in claims.methods} == offered
    assert len({answer.consult_token for _, answer in outcome.answers}) == len(outcome.answers)


async def close_early(behaviours: dict[str, Behaviour], *, after_answers: int) -> dict[str, int]:
    calls: dict[str, int] = {}
    consultations = flow_over(behaviours, calls).stream(request("chinese_shop"), CallHeaders("test"))
    for _ in range(after_answers):
        await anext(consultations)
    await consultations.aclose()
    assert timers_set() == []
    return calls


@pytest.mark.parametrize("after_answers", [0, 1, 2])
def test_a_stream_closed_early_leaves_nothing_behind(after_answers: int) -> None:
    calls = run_in_virtual_time(
        close_early({"card": Behaviour(20), "quota": HANGS, "marketing": HANGS}, after_answers=after_answers)
    )
    assert len(calls) == (len(SOURCE_NAMES) if after_answers else 0)


async def pause(behaviours: dict[str, Behaviour], after_ms: float) -> list[Consultation]:
    """Take the first answer, pause, and take the rest."""
    consultations = flow_over(behaviours, {}).stream(request("chinese_shop"), CallHeaders("test"))
    answers = [await anext(consultations)]
    await asyncio.sleep(after_ms / 1000)
    answers += [answer async for answer in consultations]
    return answers


def test_a_slow_consumer_gets_only_the_newest_answer() -> None:
    behaviours = {"card": Behaviour(10), "balance": Behaviour(20), "quota": Behaviour(30), "marketing": Behaviour(60)}
    answers = run_in_virtual_time(pause(behaviours, after_ms=40))
    assert [pending(answer) for answer in answers] == [{"card", "balance", "quota", "marketing"}, {"marketing"}, set()]
    assert [pending(answer) for answer in run_in_virtual_time(pause(behaviours, after_ms=1000))] == [
        {"card", "balance", "quota", "marketing"},
        set(),
    ]


required_behaviours = st.fixed_dictionaries(dict.fromkeys(required_sources, any_behaviour))


async def stream_and_call(
    behaviours: dict[str, Behaviour], case: str, deadline_ms: int
) -> tuple[StreamOutcome, ConsultOutcome]:
    return await stream(behaviours, case, deadline_ms=deadline_ms), await ask(
        behaviours, request(case, deadline_ms=deadline_ms), WITHOUT_GRACE_LIMIT
    )


@given(optional_behaviours, required_behaviours, cases, st.sampled_from([5, 20, 90, 150, 300]))
def test_the_last_answer_of_a_stream_equals_the_answer_of_a_call(
    optional: dict[str, Behaviour], required: dict[str, Behaviour], case: str, deadline_ms: int
) -> None:
    streamed, called = run_in_virtual_time(stream_and_call({**optional, **required}, case, deadline_ms))
    assert streamed.after_ms == pytest.approx(called.after_ms)
    assert streamed.after_ms <= deadline_ms
    if streamed.error is None:
        answer = called.consultation
        assert isinstance(answer, Consultation)
        assert (streamed.last.methods, streamed.last.blocked, streamed.last.degraded) == (
            answer.methods,
            answer.blocked,
            answer.degraded,
        )
        assert statuses(streamed.last) == statuses(answer)
    else:
        assert type(streamed.error) is type(called.consultation)
        assert streamed.answers == []


@given(optional_behaviours, cases)
def test_no_answer_offers_what_a_silent_source_could_refuse_and_each_differs(
    optional: dict[str, Behaviour], case: str
) -> None:
    answers = [answer for _, answer in run_stream(optional, case).answers]
    for answer in answers:
        silent = silent_sources(answer, case)
        for method in answer.methods:
            if method.availability is Availability.AVAILABLE:
                assert not silent & could_refuse(method), method.method_id
    for earlier, later in pairwise(answers):
        assert pending(later) < pending(earlier)
    assert not pending(answers[-1])
