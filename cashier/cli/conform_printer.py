"""Reports of the conformance kit as lines for a terminal: rules, findings, times, the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from cashier.cli.layout import Column, definitions, one_line, paragraph, table
from cashier.conformance.report import Finding, Latency, RuleResult, ServiceReport, Verdict

_MARKS = {
    Verdict.PASSED: ("●", "green"),
    Verdict.FAILED: ("○", "red"),
    Verdict.WARNING: ("!", "yellow"),
    Verdict.SKIPPED: ("–", "dim"),
}
_RULE_COLUMNS = (
    Column(""), Column("rule"), Column("tried", right=True), Column("", least=30),
)  # fmt: skip
_TIME_COLUMNS = (
    Column("source"), Column("answers", right=True), Column("p50", right=True), Column("p90", right=True),
    Column("p99", right=True), Column("longest", right=True), Column("connect", right=True),
    Column("timeout", right=True),
)  # fmt: skip


def report_lines(reports: Sequence[ServiceReport], width: int) -> Iterator[Text]:
    for report in reports:
        yield from paragraph(Text.assemble((report.source, "bold"), f"  {report.address}"), width, 0, 4)
        if report.not_examined is not None:
            yield from paragraph(Text(f"not examined: {report.not_examined}", style="dim"), width, 1, 2)
        else:
            yield from table(_RULE_COLUMNS, [_row(result) for result in report.results], width)
        yield Text()
        for result in report.results:
            for finding in result.findings:
                yield from _finding_lines(result, finding, width)
    yield from _times(reports, width)
    yield from _verdicts(reports, width)


def _row(result: RuleResult) -> list[Text]:
    mark, colour = _MARKS[result.verdict]
    style = "dim" if result.verdict is Verdict.SKIPPED else ""
    tried = str(result.tried) if result.tried else ""
    return [Text(mark, colour), Text(result.rule, style), Text(tried, style), Text(_summary(result), style)]


def _summary(result: RuleResult) -> str:
    if result.findings:
        more = len(result.findings) - 1
        return one_line(result.findings[0].what) + (f" (and {more} more)" if more else "")
    if result.verdict is Verdict.SKIPPED:
        return result.note
    return f"{result.title}; {result.note}" if result.note else result.title


def _finding_lines(result: RuleResult, finding: Finding, width: int) -> Iterator[Text]:
    mark, colour = _MARKS[result.verdict]
    times = f" ({finding.times} times)" if finding.times > 1 else ""
    heading = Text.assemble((mark, colour), " ", (result.rule, "bold"), f": {one_line(finding.what)}{times}")
    yield from paragraph(heading, width, 0, 2)
    sides = (
        ("  sent", one_line(finding.sent)),
        ("  came", one_line(finding.came)),
        ("  contract", result.contract),
        ("  cost", result.cost),
    )
    yield from definitions(sides, width)
    yield Text()


def _times(reports: Sequence[ServiceReport], width: int) -> Iterator[Text]:
    measured = [(report.source, report.latency) for report in reports if report.latency is not None]
    if not measured:
        return
    rows = [
        [Text(source), Text(str(times.calls))]
        + [Text(f"{ms:.1f}") for ms in (times.p50_ms, times.p90_ms, times.p99_ms, times.max_ms, times.connect_ms)]
        + [Text(str(times.timeout_ms), _time_style(times))]
        for source, times in measured
    ]
    yield Text("Times in ms, one call after another:")
    yield from table(_TIME_COLUMNS, rows, width)
    yield Text()


def _time_style(times: Latency) -> str:
    late = times.p99_ms > times.timeout_ms
    return "red" if times.p90_ms > times.timeout_ms else "yellow" if late else ""


def _verdicts(reports: Sequence[ServiceReport], width: int) -> Iterator[Text]:
    for report in reports:
        if report.not_examined is not None:
            continue
        failed = [result.rule for result in report.results if result.verdict is Verdict.FAILED]
        warned = sum(result.verdict is Verdict.WARNING for result in report.results)
        passed = sum(result.verdict is Verdict.PASSED for result in report.results)
        skipped = sum(result.verdict is Verdict.SKIPPED for result in report.results)
        verdict = f"does not conform: {', '.join(failed)}" if failed else "conforms" if passed else "nothing was tried"
        counts = f"({passed} passed, {len(failed)} failed, {warned} warned, {skipped} not tried)"
        style = "red" if failed else "green" if passed else "yellow"
        yield from paragraph(Text.assemble((f"{report.source} {verdict}", style), f" {counts}"), width, 0, 2)
