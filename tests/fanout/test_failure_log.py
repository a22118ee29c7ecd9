"""Failed calls in the log: one line a minute for each reason, however many calls fail."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cashier.fanout.failure_log import MAX_ADDRESSES, MAX_REASONS, OTHER_REASONS, REPEAT_S, FailureLog
from cashier.source_errors import BreakerOpen, Garbled, Overloaded, Shed, Skipped, TimedOut, Unreachable

ADDRESS = "http://card.internal"


class Lines:
    def __init__(self) -> None:
        self.now_s = 1000.0
        self.written: list[dict[str, Any]] = []
        self.ends: list[dict[str, Any]] = []
        self.log = FailureLog(self._warn, self._info, lambda: self.now_s)

    def _warn(self, event: str, **fields: Any) -> None:
        assert event == "no answer from a source"
        self.written.append(fields)

    def _info(self, event: str, **fields: Any) -> None:
        assert event == "source answers again"
        self.ends.append(fields)


def test_a_reason_is_logged_at_once_and_then_once_a_minute_with_its_count() -> None:
    lines = Lines()
    for _ in range(500):
        lines.log.record("card", ADDRESS, Unreachable("status 500"))
        lines.now_s += 0.5
    assert [line["times"] for line in lines.written] == [1, 120, 120, 120, 120]
    assert lines.written[0] == {
        "source": "card",
        "address": ADDRESS,
        "cause": "UNREACHABLE",
        "code": "UNREACHABLE",
        "reason": "status 500",
        "times": 1,
    }


def test_each_source_address_and_reason_has_its_own_line() -> None:
    lines = Lines()
    for source in ("card", "quota"):
        for address in (ADDRESS, "http://other.internal"):
            for error in (Unreachable("status 500"), Garbled("status 302"), TimedOut("slow"), Overloaded("status 429")):
                lines.log.record(source, address, error)
                lines.log.record(source, address, error)
    assert len(lines.written) == 16
    assert all(line["times"] == 1 for line in lines.written)


def test_a_call_that_was_not_made_is_no_failure_of_the_source() -> None:
    lines = Lines()
    for error in (BreakerOpen("open"), Shed("full"), Skipped("late")):
        lines.log.record("card", ADDRESS, error)
    assert lines.written == []
    assert lines.log.reports() == ()


@given(st.lists(st.tuples(st.integers(0, 3 * MAX_REASONS), st.floats(0, 90)), max_size=200))
def test_reasons_and_lines_are_bounded_and_every_failure_is_counted(failures: list[tuple[int, float]]) -> None:
    lines = Lines()
    for reason, pause_s in failures:
        lines.log.record("card", ADDRESS, Garbled(f"reason {reason}"))
        lines.now_s += pause_s
    reports = lines.log.reports()
    assert len(reports) <= MAX_REASONS + 1
    assert sum(report.times for report in reports) == len(failures)
    elapsed_s = sum(pause_s for _, pause_s in failures)
    assert len(lines.written) <= len(reports) * (1 + elapsed_s / REPEAT_S)
    kept = {report.reason for report in reports} - {OTHER_REASONS}
    assert kept <= {line["reason"] for line in lines.written}
    distinct = len({reason for reason, _ in failures})
    assert (OTHER_REASONS in {report.reason for report in reports}) == (distinct > MAX_REASONS)


@given(st.integers(MAX_REASONS, 4 * MAX_REASONS), st.integers(1, 100))
def test_reasons_of_former_addresses_do_not_hide_a_new_one(former: int, often: int) -> None:
    """Such as those of instances that were replaced by a roll-out."""
    lines = Lines()
    for number in range(former):
        for _ in range(often):
            lines.log.record("card", f"{ADDRESS} (10.0.0.{number})", Unreachable("connection refused"))
        lines.now_s += REPEAT_S
    lines.log.record("card", f"{ADDRESS} (10.1.0.1)", Unreachable("certificate has expired"))
    assert lines.written[-1]["reason"] == lines.log.reports()[0].reason == "certificate has expired"
    assert lines.written[-1]["address"] == f"{ADDRESS} (10.1.0.1)"
    assert sum(report.times for report in lines.log.reports()) == former * often + 1
    lines.now_s += REPEAT_S
    lines.log.end_of("card")(f"{ADDRESS} (10.1.0.1)", 3.0)
    assert len(lines.ends) == 1


def test_addresses_that_never_answer_again_are_forgotten() -> None:
    lines = Lines()
    for number in range(2 * MAX_ADDRESSES):
        lines.log.record("card", f"{ADDRESS} ({number})", Unreachable("connection refused"))
        lines.now_s += REPEAT_S
    assert len(lines.log._logged) == MAX_ADDRESSES
    for number in range(2 * MAX_ADDRESSES):
        lines.log.end_of("card")(f"{ADDRESS} ({number})", 1.0)
    assert len(lines.ends) == MAX_ADDRESSES


def test_reasons_that_still_come_keep_their_places() -> None:
    lines = Lines()
    for _ in range(3):
        for number in range(3 * MAX_REASONS):
            lines.log.record("card", ADDRESS, Garbled(f"reason {number}"))
        lines.now_s += REPEAT_S - 1
    kept = {f"reason {number}" for number in range(MAX_REASONS)}
    assert {report.reason for report in lines.log.reports()} == {*kept, OTHER_REASONS}


def test_the_latest_reason_comes_first() -> None:
    lines = Lines()
    for reason in ("first", "second", "first"):
        lines.log.record("card", ADDRESS, Garbled(reason))
        lines.now_s += 1
    assert [(report.reason, report.times) for report in lines.log.reports()] == [("first", 2), ("second", 1)]


def test_the_end_of_a_failure_is_logged_once_and_only_after_its_beginning() -> None:
    lines = Lines()
    answers_again = lines.log.end_of("card")
    answers_again(ADDRESS, 2.0)
    assert lines.ends == [], "no failure was logged"
    for _ in range(3):
        lines.log.record("card", ADDRESS, TimedOut("slow"))
        lines.log.record("quota", "http://quota.internal", TimedOut("slow"))
        answers_again(ADDRESS, 12.34)
        lines.now_s += 1
    end = {"source": "card", "address": ADDRESS, "failed_s": 12.3}
    assert lines.ends == [end], "the failures of the same minute had no line either"
    lines.now_s += REPEAT_S
    lines.log.record("card", ADDRESS, TimedOut("slow"))
    answers_again(ADDRESS, 12.34)
    assert lines.ends == [end, end]
