"""Observers are told of the end of each consultation, and cost the payer nothing."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing
from typing import Any

import pytest

from cashier.consultation.answer import OrderUnknown, RequiredSourceUnavailable
from cashier.consultation.end import ConsultationEnd, ConsultationOutcome, Observers
from cashier.consultation.flow import ConsultFlow
from cashier.fanout.ask import SourceStatus
from cashier.fanout.scatter import Scatter
from cashier.wire.transport import CallHeaders
from tests.support.virtual_consultation import DEADLINE_MS, NEVER_MS, Behaviour, flow_over, request
from tests.support.virtual_time import MS_NS, clock_ns, timers_set

pytestmark = pytest.mark.virtual_time
HEADERS = CallHeaders("r_1")


class Observed:
    """A flow whose ends are kept."""

    def __init__(self, behaviours: dict[str, Behaviour] | None = None, **options: Any) -> None:
        self.ends: list[ConsultationEnd] = []
        self.observers = Observers()
        self.observers.add(self.ends.append)
        self.flow: ConsultFlow = flow_over(behaviours or {}, {}, observers=self.observers, **options)

    @property
    def end(self) -> ConsultationEnd:
        (end,) = self.ends
        return end


async def test_an_answered_consultation_ends_once_with_its_answer_and_its_times() -> None:
    observed = Observed()
    started_ns = clock_ns()
    await asyncio.sleep(0.005)
    consultation = await observed.flow(request("chinese_shop"), HEADERS, started_ns)
    end = observed.end
    assert end.consultation is consultation
    assert end.outcome is ConsultationOutcome.COMPLETE
    assert (end.call_headers, end.recheck, end.streamed, end.error) == (HEADERS, False, False, None)
    assert end.started_ns == started_ns
    assert end.asked_ns == started_ns + 5 * MS_NS
    assert end.ended_ns == clock_ns()
    assert end.deadline_ns == started_ns + DEADLINE_MS * MS_NS


async def test_the_asks_can_be_read_by_an_observer() -> None:
    observed = Observed({"card": Behaviour(NEVER_MS)})
    statuses: dict[str, SourceStatus | None] = {}
    observed.observers.add(lambda end: statuses.update({each.ask.name: each.status for each in end.asks}))
    consultation = await observed.flow(request("chinese_shop"), HEADERS)
    assert statuses == {report.name: report.status for report in consultation.sources}


async def test_errors_end_with_their_outcome() -> None:
    unknown = Observed()
    with pytest.raises(OrderUnknown):
        await unknown.flow(request("order_unknown"), HEADERS)
    assert unknown.end.outcome is ConsultationOutcome.ORDER_UNKNOWN
    silent = Observed({"member": Behaviour(1, "unreachable")})
    with pytest.raises(RequiredSourceUnavailable):
        await silent.flow(request("chinese_shop"), HEADERS)
    assert silent.end.outcome is ConsultationOutcome.UNAVAILABLE
    assert silent.end.gathered is not None
    assert silent.end.gathered.failed_required == ("member",)


async def test_a_caller_that_leaves_ends_its_consultation_as_abandoned() -> None:
    observed = Observed({"order": Behaviour(NEVER_MS)})
    asking = asyncio.create_task(observed.flow(request("chinese_shop"), HEADERS))
    await asyncio.sleep(0.002)
    asking.cancel()
    await asyncio.wait((asking,))
    assert asking.cancelled()
    assert observed.end.outcome is ConsultationOutcome.ABANDONED
    assert observed.end.gathered is None


async def test_a_stream_ends_once_with_its_last_answer_whatever_time_the_consumer_takes() -> None:
    observed = Observed({"marketing": Behaviour(20)})
    answers, times = [], []
    async with aclosing(observed.flow.stream(request("chinese_shop"), HEADERS)) as stream:
        async for answer in stream:
            answers.append(answer)
            times.append(clock_ns())
            await asyncio.sleep(0.5)
    assert len(answers) > 1
    assert observed.end.streamed
    assert observed.end.consultation is answers[-1]
    assert observed.end.ended_ns == times[-1]


async def test_a_stream_that_is_closed_early_ends_as_abandoned_with_the_answer_sent() -> None:
    observed = Observed({"marketing": Behaviour(20)})
    async with aclosing(observed.flow.stream(request("chinese_shop"), HEADERS)) as stream:
        sent = await anext(stream)
    assert observed.end.outcome is ConsultationOutcome.ABANDONED
    assert observed.end.consultation is sent


async def test_a_recheck_of_a_payment_is_told_apart() -> None:
    observed = Observed(recheck=True)
    with_case = await observed.flow.with_case(request("chinese_shop"), HEADERS)
    assert observed.end.recheck
    assert observed.end.consultation is with_case.consultation


async def test_an_observer_that_raises_costs_neither_the_payer_nor_the_other_observers_anything() -> None:
    observed = Observed()

    def broken(end: ConsultationEnd) -> None:
        raise RuntimeError("a bug of an observer")

    observed.observers.registered.insert(0, broken)
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    for _ in range(3):
        await observed.flow(request("chinese_shop"), HEADERS)
    assert len(observed.ends) == 3
    assert [str(each["exception"]) for each in reported] == ["a bug of an observer"], "one report a minute"


async def test_an_observed_consultation_leaves_nothing_behind() -> None:
    observed = Observed({"card": Behaviour(NEVER_MS), "quota": Behaviour(1, "garbled")})
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await observed.flow(request("chinese_shop"), HEADERS)
        observed.ends.clear()
        assert [each for each in gc.get_objects() if isinstance(each, Scatter)] == []
    finally:
        gc.enable()


async def test_the_calls_end_whatever_an_observer_raises() -> None:
    class Stopped(BaseException):
        pass

    def stopping(end: ConsultationEnd) -> None:
        raise Stopped

    observed = Observed({"order": Behaviour(NEVER_MS)})
    observed.observers.add(stopping)
    asking = asyncio.create_task(observed.flow(request("chinese_shop"), HEADERS))
    await asyncio.sleep(0.002)
    asking.cancel()
    with pytest.raises(Stopped):
        await asking
    await asyncio.sleep(0.01)
    assert timers_set() == []
