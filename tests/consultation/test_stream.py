"""A consultation that is told as it unfolds, in virtual time: when there is a first answer, what changes, and where it ends."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.consultation.flow import (
    Consultation,
    ConsultError,
    ConsultSettings,
    OrderUnknown,
    RequiredSourceUnavailable,
)
from cashier.domain.pay_method import Availability, ReasonCode
from cashier.fanout.ask import SourceStatus
from cashier.tokens.token_service import TokenService
from cashier.wire.transport import CallHeaders
from tests.consultation.test_flow import HANGS, by_id, cases, could_refuse, fates, healthy, statuses, worlds
from tests.fanout.scripted_sources import in_virtual_time, timers_set
from tests.support.virtual_consultation import ConsultOutcome, Behaviour, ask, flow_over, request

AS_LONG = ConsultSettings(grace_ms=60_000)


class Told(NamedTuple):
    """Each answer with when it came, the error in the place of the first, and when it was over."""

    answers: list[tuple[float, Consultation]]
    error: ConsultError | None
    after_ms: float

    @property
    def last(self) -> Consultation:
        return self.answers[-1][1]

    @property
    def times_ms(self) -> list[float]:
        return [at_ms for at_ms, _ in self.answers]


async def stream(some: dict[str, Behaviour], case: str = "chinese_shop", **other: int) -> Told:
    loop = asyncio.get_running_loop()
    began, answers, error = loop.time(), [], None
    try:
        async for found in flow_over(some, {}).stream(request(case, **other), CallHeaders("test")):
            answers.append((round((loop.time() - began) * 1000, 3), found))
    except ConsultError as raised:
        error = raised
    assert timers_set() == []
    return Told(answers, error, (loop.time() - began) * 1000)


def streamed(some: dict[str, Behaviour], case: str = "chinese_shop", **other: int) -> Told:
    return in_virtual_time(stream(some, case, **other))


def pending(consultation: Consultation) -> set[str]:
    return {name for name, status in statuses(consultation).items() if status is SourceStatus.PENDING}


def test_the_first_answer_comes_with_the_required_sources_and_the_roads_and_each_other_source_makes_it_better() -> None:
    told = streamed(
        {"channel": Behaviour(10), "card": Behaviour(30), "balance": Behaviour(50), "quota": Behaviour(70), "marketing": Behaviour(75)}
    )
    assert told.times_ms == [10, 30, 50, 70, 75]
    assert [pending(each) for _, each in told.answers] == [
        {"card", "balance", "quota", "marketing"},
        {"balance", "quota", "marketing"},
        {"quota", "marketing"},
        {"marketing"},
        set(),
    ]
    assert told.after_ms == pytest.approx(75)


@pytest.mark.parametrize("name", [*healthy, "channel"])
def test_there_is_no_answer_before_what_every_answer_needs(name: str) -> None:
    told = streamed({name: Behaviour(60)})
    assert told.times_ms[0] >= 60


def test_a_gateway_that_fails_is_not_waited_for() -> None:
    told = streamed({"channel": Behaviour(5, "unreachable"), "quota": Behaviour(40)})
    assert told.times_ms == [5, 40]
    assert all(statuses(each)["channel"] is SourceStatus.ERROR for _, each in told.answers)


def test_a_gateway_that_hangs_is_waited_for_until_its_time_is_up() -> None:
    assert streamed({"channel": HANGS}).times_ms == [pytest.approx(100, abs=1)]


def test_until_it_has_come_whoever_could_refuse_a_way_leaves_it_undetermined() -> None:
    told = streamed({"quota": Behaviour(40)})
    first, last = by_id(told.answers[0][1]), by_id(told.last)
    card = first["QUICK_PAY:c_2"]
    assert card.reason is not None
    assert (card.availability, card.reason.code, card.reason.source, card.reason.remedy) == (
        Availability.UNDETERMINED,
        ReasonCode.SOURCE_PENDING,
        "quota",
        None,
    )
    assert last["QUICK_PAY:c_2"].availability is Availability.AVAILABLE
    assert told.answers[0][1].degraded
    assert not told.last.degraded


def test_enriching_sources_are_waited_for_beyond_the_grace() -> None:
    told = streamed({"marketing": Behaviour(70)})
    assert told.times_ms == [1, 70]
    assert told.last.methods != told.answers[0][1].methods


def test_at_the_deadline_the_last_word_is_that_it_did_not_come() -> None:
    told = streamed({"quota": HANGS}, deadline_ms=50)
    assert told.times_ms == [1, pytest.approx(47, abs=1)]
    assert statuses(told.last)["quota"] is SourceStatus.TIMEOUT
    reason = by_id(told.last)["QUICK_PAY:c_2"].reason
    assert reason is not None
    assert reason.code is ReasonCode.SOURCE_TIMEOUT


def test_what_comes_at_one_moment_is_one_answer() -> None:
    assert streamed({}).times_ms == [1]


def test_who_has_nothing_to_add_makes_no_answer_but_the_last_one_says_what_became_of_him() -> None:
    told = streamed({"marketing": Behaviour(20, "garbled"), "quota": Behaviour(40)})
    assert told.times_ms == [1, 40]
    assert statuses(told.last)["marketing"] is SourceStatus.GARBLED
    told = streamed({"marketing": HANGS}, deadline_ms=50)
    assert told.times_ms == [1, pytest.approx(47, abs=1)]
    assert told.last.methods == told.answers[0][1].methods
    assert statuses(told.last)["marketing"] is SourceStatus.TIMEOUT


def test_an_order_that_cannot_be_paid_is_one_answer_and_the_end() -> None:
    told = streamed(dict.fromkeys(("merchant", "member", "card", "quota"), HANGS), "order_paid")
    assert told.times_ms == [1]
    assert told.last.blocked is not None
    assert told.after_ms == pytest.approx(1)


def test_an_order_that_nobody_knows_is_an_error() -> None:
    told = streamed({}, "order_unknown")
    assert (type(told.error), told.answers) == (OrderUnknown, [])


@pytest.mark.parametrize("name", healthy)
def test_without_a_required_source_there_is_no_answer(name: str) -> None:
    for fate in (HANGS, Behaviour(20, "garbled")):
        told = streamed({name: fate})
        assert isinstance(told.error, RequiredSourceUnavailable)
        assert (told.error.failed, told.answers) == ((name,), [])


def test_every_answer_has_a_token_for_what_it_says() -> None:
    told = streamed({"card": Behaviour(20), "quota": Behaviour(40)})
    for _, found in told.answers:
        claims = TokenService(["s" * 32]).read_consult_token(found.consult_token)
        offered = {method.method_id for method in found.methods if method.availability is not Availability.UNAVAILABLE}
        assert {each.id for each in claims.methods} == offered
    assert len({found.consult_token for _, found in told.answers}) == len(told.answers)


async def leave(some: dict[str, Behaviour], *, after_answers: int) -> dict[str, int]:
    calls: dict[str, int] = {}
    consultations = flow_over(some, calls).stream(request("chinese_shop"), CallHeaders("test"))
    for _ in range(after_answers):
        await anext(consultations)
    await consultations.aclose()
    assert timers_set() == []
    return calls


@pytest.mark.parametrize("after_answers", [0, 1, 2])
def test_who_takes_no_more_leaves_nothing(after_answers: int) -> None:
    calls = in_virtual_time(leave({"card": Behaviour(20), "quota": HANGS, "marketing": HANGS}, after_answers=after_answers))
    assert len(calls) == (8 if after_answers else 0)


async def linger(some: dict[str, Behaviour], after_ms: float) -> list[Consultation]:
    """Take the first answer, and the next only after a while."""
    consultations = flow_over(some, {}).stream(request("chinese_shop"), CallHeaders("test"))
    found = [await anext(consultations)]
    await asyncio.sleep(after_ms / 1000)
    found += [each async for each in consultations]
    return found


def test_who_is_slow_to_ask_for_more_gets_the_newest_only() -> None:
    some = {"card": Behaviour(10), "balance": Behaviour(20), "quota": Behaviour(30), "marketing": Behaviour(60)}
    found = in_virtual_time(linger(some, after_ms=40))
    assert [pending(each) for each in found] == [{"card", "balance", "quota", "marketing"}, {"marketing"}, set()]
    assert [pending(each) for each in in_virtual_time(linger(some, after_ms=1000))] == [
        {"card", "balance", "quota", "marketing"},
        set(),
    ]


many = st.fixed_dictionaries(dict.fromkeys(healthy, fates))


async def both(some: dict[str, Behaviour], case: str, deadline_ms: int) -> tuple[Told, ConsultOutcome]:
    return await stream(some, case, deadline_ms=deadline_ms), await ask(
        some, request(case, deadline_ms=deadline_ms), AS_LONG
    )


@given(worlds, many, cases, st.sampled_from([5, 20, 90, 150, 300]))
def test_the_last_answer_is_what_one_who_asks_for_one_would_get(
    some: dict[str, Behaviour], required: dict[str, Behaviour], case: str, deadline_ms: int
) -> None:
    told, asked = in_virtual_time(both({**some, **required}, case, deadline_ms))
    assert told.after_ms == pytest.approx(asked.after_ms)
    assert told.after_ms <= deadline_ms
    if told.error is None:
        plain = asked.consultation
        assert isinstance(plain, Consultation)
        assert (told.last.methods, told.last.blocked, told.last.degraded) == (
            plain.methods,
            plain.blocked,
            plain.degraded,
        )
        assert statuses(told.last) == statuses(plain)
    else:
        assert type(told.error) is type(asked.consultation)
        assert told.answers == []


@given(worlds, cases)
def test_no_answer_offers_what_a_silent_source_could_refuse_and_each_is_news(some: dict[str, Behaviour], case: str) -> None:
    found = [each for _, each in streamed(some, case).answers]
    for each in found:
        silent = {name for name, status in statuses(each).items() if status is not SourceStatus.FRESH}
        for method in each.methods:
            if method.availability is Availability.AVAILABLE:
                assert not silent & could_refuse(method), method.method_id
    for earlier, later in pairwise(found):
        assert pending(later) < pending(earlier)
    assert not pending(found[-1])
