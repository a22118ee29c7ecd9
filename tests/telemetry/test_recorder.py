"""Records of sampled and bad consultations, their log lines and their bounds."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cashier.consultation.answer import ConsultError
from cashier.consultation.end import ConsultationEnd, ConsultationOutcome, Observers
from cashier.consultation.flow import ConsultFlow
from cashier.domain.pay_method import Availability
from cashier.fanout.timeline import Flag
from cashier.metrics.store import Store
from cashier.telemetry.consultation_record import is_good, verdicts_of
from cashier.telemetry.recorder import MOST_KEPT, MOST_KEPT_BYTES, Recorder
from cashier.telemetry.records import ConsultationRecord, Verdict
from cashier.telemetry.settings import TelemetrySettings
from cashier.wire.transport import CallHeaders
from tests.support.virtual_consultation import NEVER_MS, Behaviour, flow_over, request
from tests.support.virtual_time import run_in_virtual_time

pytestmark = pytest.mark.virtual_time
NOTHING = TelemetrySettings(sample_bps=0)
EVERYTHING = TelemetrySettings(sample_bps=10_000, records_per_second=1_000, lines_per_second=1_000)
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Rig:
    """A flow with a recorder; `lines`: what it logs."""

    def __init__(self, settings: TelemetrySettings = NOTHING, behaviours: dict[str, Behaviour] | None = None) -> None:
        self.behaviours = behaviours or {}
        self.metrics = Store()
        self.lines: list[dict[str, Any]] = []
        self.recorder = Recorder(
            settings, self.metrics, lambda level, event, **fields: self.lines.append({"level": level, **fields})
        )
        self.ends: list[ConsultationEnd] = []
        observers = Observers()
        observers.add(self.recorder)
        observers.add(self.ends.append)
        self.flow: ConsultFlow = flow_over(self.behaviours, {}, observers=observers)

    async def consult(self, case: str = "chinese_shop", traceparent: str | None = None, **fields: Any) -> None:
        with suppress(ConsultError):
            await self.flow(request(case, **fields), CallHeaders("r_1", traceparent))

    @property
    def record(self) -> ConsultationRecord:
        (record,) = self.recorder.records()
        return record

    def counted(self, result: str) -> int:
        return self.metrics.counter("cashier_consultation_records_total", result).value


async def test_a_good_consultation_leaves_no_record() -> None:
    rig = Rig()
    await rig.consult()
    await rig.consult("order_paid")
    await rig.consult("order_unknown")
    assert rig.recorder.records() == ()
    assert rig.lines == []


async def test_a_sampled_one_has_a_record_with_everything_but_the_payer() -> None:
    rig = Rig(EVERYTHING)
    await rig.consult(country="CN")
    record = rig.record
    assert record.verdicts == (Verdict.SAMPLED,)
    assert (record.outcome, record.request_id, record.product) == (
        ConsultationOutcome.COMPLETE, "r_1", "STANDARD_CASHIER",
    )  # fmt: skip
    assert (record.currency, record.country) == ("CNY", "CN")
    assert [source.name for source in record.sources] == [report.name for report in rig.ends[0].gathered.reports]  # type: ignore[union-attr]
    assert {method.availability for method in record.methods} > {Availability.AVAILABLE}
    asked = rig.ends[0].request
    text = msgspec.json.encode(record).decode()
    assert asked.user_id is not None
    assert not [secret for secret in (asked.user_id, asked.merchant_id, str(asked.amount)) if secret in text]
    assert msgspec.json.decode(text, type=ConsultationRecord) == record


async def test_a_silent_source_is_in_the_record_and_in_the_line_with_its_reason() -> None:
    rig = Rig(NOTHING, {"card": Behaviour(NEVER_MS), "quota": Behaviour(1, "garbled")})
    await rig.consult(traceparent=f"00-{TRACE}-00f067aa0ba902b7-00")
    record = rig.record
    assert set(record.verdicts) == {Verdict.DEGRADED, Verdict.UNDETERMINED}
    sources = {source.name: source for source in record.sources}
    assert (sources["card"].reason, sources["card"].flags) == ("TIMEOUT", (Flag.TIMEOUT,))
    assert (sources["quota"].reason, sources["quota"].flags) == ("PROTOCOL", (Flag.FAILED,))
    (line,) = rig.lines
    assert line["level"] == "warning"
    assert line["trace_id"] == record.trace_id == TRACE
    assert line["sources"] == {"card": "TIMEOUT TIMEOUT UT", "quota": "GARBLED PROTOCOL UF"}


async def test_a_failed_one_names_its_problem() -> None:
    rig = Rig(NOTHING, {"member": Behaviour(1, "unreachable")})
    await rig.consult()
    assert rig.record.verdicts == (Verdict.FAILED,)
    assert rig.record.problem == "REQUIRED_SOURCE_UNAVAILABLE"


async def test_the_callers_trace_decides_about_sampling() -> None:
    rig = Rig(NOTHING)
    await rig.consult(traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    assert rig.record.verdicts == (Verdict.SAMPLED,)
    assert rig.lines[0]["level"] == "info"
    rig.recorder.reconfigure(EVERYTHING)
    await rig.consult(traceparent=f"00-{TRACE}-00f067aa0ba902b7-00")
    assert len(rig.recorder.records()) == 1
    await rig.consult(traceparent="not a header")
    assert len(rig.recorder.records()) == 2


@pytest.mark.moves("cashier_consultation_records_total")
async def test_bad_ones_are_bounded_per_second_and_the_rest_is_counted() -> None:
    rig = Rig(TelemetrySettings(0, records_per_second=5, lines_per_second=2), {"member": Behaviour(0, "unreachable")})
    await asyncio.sleep(0.5)
    await asyncio.gather(*(rig.consult() for _ in range(50)))
    assert (len(rig.recorder.records()), len(rig.lines)) == (5, 2)
    assert (rig.counted("made"), rig.counted("refused")) == (5, 45)
    await asyncio.sleep(1)
    await rig.consult()
    assert len(rig.recorder.records()) == 6
    assert rig.lines[-1]["suppressed"] == 3


async def test_a_caller_that_samples_everything_does_not_hide_what_is_bad() -> None:
    rig = Rig(TelemetrySettings(10_000, records_per_second=3))
    await asyncio.sleep(0.5)
    await asyncio.gather(*(rig.consult() for _ in range(9)))
    rig.behaviours["member"] = Behaviour(0, "unreachable")
    await rig.consult()
    assert [record.verdicts for record in rig.recorder.records()] == [
        (Verdict.FAILED, Verdict.SAMPLED), *[(Verdict.SAMPLED,)] * 3,
    ]  # fmt: skip


@pytest.mark.parametrize("sampled_before", [1, 2, 5])
async def test_a_caller_that_samples_everything_hides_no_line_about_what_is_bad(sampled_before: int) -> None:
    settings = TelemetrySettings(10_000, records_per_second=10, lines_per_second=2)
    rig = Rig(settings)
    await asyncio.sleep(0.5)
    await asyncio.gather(*(rig.consult() for _ in range(sampled_before)))
    rig.behaviours["member"] = Behaviour(0, "unreachable")
    await asyncio.gather(*(rig.consult() for _ in range(4)))
    levels = [line["level"] for line in rig.lines]
    assert levels == ["info"] * min(sampled_before, 2) + ["warning"] * 2
    await asyncio.sleep(1.0)
    await rig.consult()
    assert len(rig.recorder.records()) == sampled_before + 5
    assert (rig.lines[-1]["level"], rig.lines[-1]["suppressed"]) == ("warning", 2)


async def test_the_ring_keeps_the_latest() -> None:
    rig = Rig(EVERYTHING)
    for _ in range(MOST_KEPT + 1):
        await rig.consult()
    assert len(rig.recorder.records()) == MOST_KEPT


async def test_the_ring_is_bounded_by_bytes_too() -> None:
    rig = Rig(EVERYTHING)
    rig.recorder.replay_facts = lambda end: b"x" * (MOST_KEPT_BYTES // 20)
    for _ in range(30):
        await rig.consult()
    assert 5 < len(rig.recorder.records()) < 16


async def test_a_bug_in_making_one_record_does_not_cost_the_next() -> None:
    rig, broken = Rig(EVERYTHING), iter((True, True, False))

    def facts(end: ConsultationEnd) -> bytes:
        if next(broken):
            raise RuntimeError("a bug")
        return b"facts"

    rig.recorder.replay_facts = facts
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            await rig.consult()
        assert [record.facts for record in rig.recorder.records()] == [b"facts"]
    assert [(line["log_level"], str(line["exc_info"])) for line in logged] == [("error", "a bug")], "one a minute"


async def test_what_a_collector_takes_is_the_record() -> None:
    rig, taken = Rig(EVERYTHING), list[bytes]()
    rig.recorder.send = taken.append
    await rig.consult()
    assert [rig.record] == [msgspec.json.decode(body, type=ConsultationRecord) for body in taken]


async def test_a_stream_and_a_recheck_are_told_apart() -> None:
    rig = Rig(EVERYTHING)
    async with aclosing(rig.flow.stream(request("chinese_shop"), CallHeaders("r_1"))) as stream:
        async for _ in stream:
            pass
    assert rig.record.streamed


async def test_a_caller_that_left_is_not_judged_by_the_answer_so_far() -> None:
    rig = Rig(NOTHING, {"marketing": Behaviour(20)})
    async with aclosing(rig.flow.stream(request("chinese_shop"), CallHeaders("r_1"))) as stream:
        await anext(stream)
    assert rig.recorder.records() == ()


BEHAVIOURS = st.builds(
    Behaviour,
    st.sampled_from([0.0, 1.0, 5.0, 60.0, 140.0, NEVER_MS]),
    st.sampled_from([None, None, None, "unreachable", "garbled", "bug"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.sampled_from(["order", "member", "card", "balance", "channel", "quota", "marketing"]), BEHAVIOURS
    ),
    st.sampled_from(["chinese_shop", "nothing_claimed", "order_paid", "order_unknown", "walk_in"]),
)
def test_a_record_agrees_with_the_answer_and_every_call_is_within_the_consultation(
    behaviours: dict[str, Behaviour], case: str
) -> None:
    async def main() -> None:
        rig = Rig(EVERYTHING, behaviours)
        await rig.consult(case)
        record, end = rig.record, rig.ends[0]
        assert is_good(end, NOTHING.slow_bps) is (not list(verdicts_of(end, NOTHING.slow_bps))) or end.error is not None
        answer = end.consultation
        undetermined = answer is not None and any(
            method.availability is Availability.UNDETERMINED for method in answer.methods
        )
        assert (Verdict.UNDETERMINED in record.verdicts) is undetermined
        assert (Verdict.DEGRADED in record.verdicts) is (answer is not None and answer.degraded)
        assert end.gathered is not None
        for source, report in zip(record.sources, end.gathered.reports, strict=True):
            assert (source.name, source.status, source.age_ms) == (report.name, report.status, report.age_ms)
            assert source.started_ms == pytest.approx(record.waited_ms + report.started_ms, abs=0.02)
            assert source.elapsed_ms == report.elapsed_ms
            assert source.started_ms + source.elapsed_ms <= record.elapsed_ms + 0.02
            assert source.reason is None or set(source.flags) & FAILED_FLAGS
            assert source.reason is not None or set(source.flags) <= {Flag.SKIPPED}, "of a payer that there is not"

    run_in_virtual_time(main())


FAILED_FLAGS = {
    Flag.TIMEOUT, Flag.FAILED, Flag.BREAKER_OPEN, Flag.AT_LIMIT, Flag.DIMMED, Flag.NO_TIME, Flag.CUT_OFF, Flag.SKIPPED,
}  # fmt: skip
