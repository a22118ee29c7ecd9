"""The benchmark report: bars are judged, results survive JSON, the page shows all findings."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

import benchmarks.__main__ as command
from benchmarks import suite
from benchmarks.peers import versions
from benchmarks.performance_targets import BARS, Bar, BarResult, Verdict, judge, limit_text, round_against_us, summary
from benchmarks.report import page, tables
from benchmarks.report.charts import DARK, PICTURED
from benchmarks.report.tables import format_number, format_spread
from benchmarks.results import (
    BarChart,
    Figure,
    Finding,
    Line,
    LineChart,
    Machine,
    Results,
    Row,
    Table,
    without_non_finite,
)

LOWER = Bar("latency", "latency", "added_ms.p99", 4.0, 1.0, "ms")
HIGHER = Bar("goodput", "overload", "overload.goodput", 0.9, 0.97, higher_is_better=True)
MACHINE = Machine("a <fast> processor", 2, "Linux", {"Python": "3.11.2"})


def results(
    *findings: Finding, quick: bool = False, at: str = "2026-01-02T03:04:05+00:00", machine: Machine = MACHINE
) -> Results:
    return Results(at, "python -m benchmarks cost --out '<here>'", quick, machine, findings)


COST = Finding(
    "What it costs <beside> others",
    name="cost",
    about="Eight sources\n& a merge.\n\nWhat:\n- `one` <thing>\n  more of it\n- another",
    seconds=12.3,
    key={
        "cpu_us.cashier": Figure.of(560.2, 570.0, 550.0),
        "ratio.nginx_lua": Figure.of(1.4, 1.6, 1.45),
        "ratio.go": Figure.of(0.71),
    },
    tables=[
        Table(
            "By <program>",
            [Row("us & them", {"CPU µs": Figure.of(560.2, 570.0)}, "a <note>"), Row("none", {})],
            "under the <table>",
        )
    ],
    drawings=[
        BarChart(
            "beside <others>",
            "µs",
            ["us", "them", "gone"],
            {"user": [Figure.of(1.0, 2.0), Figure.of(0.0), None]},
            ours=["us"],
            marks={"aim": 3.0},
        ),
        LineChart(
            "one point, & none",
            "load",
            "ms",
            [
                Line("one", [(1.0, Figure.of(2.0, 3.0))], ours=True),
                Line("none", []),
                Line("zero", [(1.0, Figure.of(0.0)), (0.0, Figure.of(1.0))]),
            ],
            x_logarithmic=True,
            y_logarithmic=True,
            marks={"deadline": 150.0, "nothing": 0.0},
        ),
        LineChart("the tail", "percentile", "ms", [Line("us", [(x, Figure.of(x)) for x in (50.0, 90.0, 99.0, 99.9)])]),
    ],
    notes=["12 of 3,000 were <not> answered."],
)
FAILED = suite.failed_finding("hang", "RuntimeError: <no> nginx")


# Bars


@pytest.mark.parametrize(
    ("bar", "rounds", "verdict", "spans_bar"),
    [
        (LOWER, (4.0,), Verdict.MET, False),
        (LOWER, (4.0001,), Verdict.MISSED, False),
        (LOWER, (3.0, 3.5, 4.2), Verdict.MET, True),
        (LOWER, (3.9, 4.5, 5.0), Verdict.MISSED, True),
        (HIGHER, (0.9,), Verdict.MET, False),
        (HIGHER, (0.8999,), Verdict.MISSED, False),
        (HIGHER, (0.85, 0.95, 0.99), Verdict.MET, True),
        (LOWER._replace(every_round=True), (3.0, 3.5, 4.2), Verdict.MISSED, True),
        (HIGHER._replace(every_round=True), (0.85, 0.95, 0.99), Verdict.MISSED, True),
        (LOWER._replace(now=5.0, every_round=True), (-40.0, -3.0, 4.9), Verdict.MET, False),
    ],
)
def test_a_bar_is_judged_by_the_median_or_by_the_worst_round(
    bar: Bar, rounds: tuple[float, ...], verdict: Verdict, spans_bar: bool
) -> None:
    judged = BarResult(bar, Figure(rounds))
    assert (judged.verdict, judged.spans_bar) == (verdict, spans_bar)


def test_an_unmeasured_bar_is_neither_met_nor_missed_and_has_a_reason() -> None:
    judged = {each.bar.key: each for each in judge(results(COST, FAILED))}
    assert judged["ratio.nginx_lua"].verdict is Verdict.MET
    assert judged["ratio.go"].verdict is Verdict.MISSED
    assert (judged["ratio.node"].verdict, judged["ratio.node"].why) == (
        Verdict.NOT_MEASURED,
        "absent: see the notes of its study",
    )
    assert judged["hang.normal_after_s"].why == "its study failed"
    assert (judged["soak.flat"].why, judged["soak.flat"].value_text, judged["soak.flat"].distance) == (
        "not run",
        "",
        "",
    )
    text = summary(list(judged.values()))
    assert text == f"1 of {len(BARS)} bars met, 1 missed, {len(BARS) - 2} not measured; 1 differ between rounds"


def test_a_run_without_bars_has_no_summary() -> None:
    assert summary(judge(results())) == ""


def test_rounding_is_against_us() -> None:
    assert round_against_us(1.5001, higher_is_better=False) == "1.51"
    assert round_against_us(0.8999, higher_is_better=True) == "0.899"
    assert round_against_us(-45.04, higher_is_better=False) == "−45.0"
    assert round_against_us(12_345.2, higher_is_better=False) == "12,346"
    assert round_against_us(0.0, higher_is_better=True) == "0"
    # Exact values stay exact, although 0.9 is not a float.
    assert (round_against_us(0.9, higher_is_better=True), round_against_us(0.3, higher_is_better=False)) == (
        "0.900",
        "0.300",
    )


def test_the_distance_from_the_goal_is_shown() -> None:
    assert BarResult(LOWER, Figure.of(2.0)).distance == "2.00 × the goal"
    assert BarResult(LOWER, Figure.of(1.0)).distance == "reached"
    assert BarResult(HIGHER, Figure.of(0.93)).distance == "0.958 × the goal"
    assert BarResult(LOWER._replace(goal=None), Figure.of(9.0)).distance == ""
    assert (limit_text(LOWER, 4.0), limit_text(HIGHER, 0.97), limit_text(LOWER, None)) == ("≤ 4 ms", "≥ 0.97", "")


def test_every_bar_belongs_to_a_study_of_the_suite() -> None:
    assert {bar.study for bar in BARS} <= set(suite.STUDIES)
    assert len({bar.key for bar in BARS}) == len(BARS)
    # A goal must lie on the good side of its bar.
    assert all(BarResult(bar, Figure.of(bar.goal)).verdict is Verdict.MET for bar in BARS if bar.goal is not None)


# As data


def test_results_survive_json(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "results.json"
    suite.write(results(COST, FAILED), file)
    read = suite.read(file)
    assert msgspec.json.encode(read) == msgspec.json.encode(results(COST, FAILED))
    suite.write(results(FAILED), file)
    assert suite.read(file.with_name("results.previous.json")) == read


def test_older_findings_stand_beside_new_ones_with_their_own_date(tmp_path: Path) -> None:
    older_machine = Machine(MACHINE.processor, 2, "Linux", {"Python": "3.11.1"})
    old = results(
        COST,
        msgspec.structs.replace(FAILED, failed="", about="fine"),
        at="2025-12-01T00:00:00+00:00",
        machine=older_machine,
    )
    merged = suite.merge(results(FAILED), old)
    assert [(finding.name, finding.at, bool(finding.failed)) for finding in merged.findings] == [
        ("cost", "2025-12-01T00:00:00+00:00", False),
        ("hang", "", True),
    ]
    assert merged.findings[0].notes[-1] == "Measured with Python 3.11.1."
    with pytest.raises(ValueError, match="another machine"):
        suite.merge(results(machine=Machine("another", 2, "Linux", {})), old)
    with pytest.raises(ValueError, match="quick"):
        suite.merge(results(quick=True), old)


def test_non_finite_figures_are_removed_and_noted() -> None:
    nan = float("nan")
    broken = Finding(
        "x",
        key={"good": Figure.of(1.0), "bad": Figure.of(nan), "never": Figure.of(1.0, float("inf")), "empty": Figure(())},
        tables=[Table("t", [Row("r", {"a": Figure.of(1.0, nan), "b": Figure.of(float("inf"))})])],
        drawings=[
            LineChart("l", "x", "y", [Line("one", [(1.0, Figure.of(nan)), (2.0, Figure.of(3.0))])], marks={"m": nan}),
            BarChart("b", "y", ["p", "q", "r"], {"g": [Figure.of(nan), None, Figure.of(1.0)]}),
        ],
    )
    cleaned = without_non_finite(broken)
    assert cleaned.key == {"good": Figure.of(1.0)}
    assert cleaned.tables[0].rows[0].figures == {"a": Figure.of(1.0)}
    lines, bars = cleaned.drawings
    assert isinstance(lines, LineChart)
    assert isinstance(bars, BarChart)
    assert (lines.lines[0].points, lines.marks) == ([(2.0, Figure.of(3.0))], {})
    assert bars.groups == {"g": [None, None, Figure.of(1.0)]}
    assert len(cleaned.notes) == 7
    assert "t, r, a: no number in 1 of 2 rounds." in cleaned.notes
    assert "null" not in msgspec.json.encode(cleaned.key).decode()


# The presentation


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def html() -> str:
    shown = results(COST, FAILED)
    return page.page(shown, judge(shown))


def test_the_page_shows_all_findings(html: str) -> None:
    seen = Elements(html)
    assert seen.open == []
    assert len(set(seen.ids)) == len(seen.ids)
    for text in (
        COST.title,
        "Eight sources & a merge.\n\nWhat:",
        "- `one` <thing> more of it\n- another",
        *COST.notes,
        FAILED.title,
        FAILED.failed,
        MACHINE.processor,
        "python -m benchmarks cost --out '<here>'",
    ):
        assert text in seen.text
    for text in (
        "By <program>",
        "under the <table>",
        "us & them",
        "a <note>",
        "beside <others>",
        "one point, & none",
        "560 to 570",
        "565.1",
    ):
        assert text in seen.text
    for bar in BARS:
        assert bar.what in seen.text
    for text in (
        "1.45",
        "1.40 to 1.60",
        "not in every round",
        "its study failed",
        "deadline: 150",
        "not measured",
        "2 points",
    ):
        assert text in seen.text


def test_each_further_nine_of_a_percentile_gets_the_same_room(html: str) -> None:
    drawn = next(each for each in html.split("<svg") if "the tail" in each)
    assert [drawn.count(f">{tick}</text>") for tick in ("50", "99", "99.9")] == [1, 1, 1]


def test_the_page_is_self_contained_and_escapes_markup(html: str) -> None:
    seen = Elements(html)
    assert all(reference.startswith("#") for reference in seen.references)
    assert not re.search(r"https?://|@import|url\((?!#)|<script|<link", html)
    assert "prefers-color-scheme: dark" in html
    assert "nan" not in re.sub(r"[^ \d.a-z-]", " ", html.lower()).split()


def test_figures_in_tables_have_no_exponents() -> None:
    assert (
        format_number(36_293.4),
        format_number(1_149.3),
        format_number(0.90974),
        format_number(-44.0),
        format_number(99.96),
    ) == (
        "36,293",
        "1,149",
        "0.9097",
        "−44",
        "99.96",
    )
    assert (format_spread(Figure.of(1_096.0, 1_206.2)), format_spread(Figure.of(2.0, 2.0))) == ("1,096 to 1,206", "")


def test_the_terminal_shows_tables_notes_and_bars() -> None:
    # rich writes to the file until the end.
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    shown = results(COST, FAILED, quick=True)
    tables.show(shown, judge(shown), console)
    console.file.close()
    text = console.export_text()
    for each in (
        "By <program>",
        "us & them",
        "a <note>",
        "were <not> answered",
        "RuntimeError: <no> nginx",
        "≤ 1.5",
        "1.40 to 1.60",
        f"1 of {len(BARS)} bars met, 1 missed, {len(BARS) - 2} not measured; 1 differ between rounds.",
        "mean nothing",
    ):
        assert each in text


# The command


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of two studies, one of which fails, that another process can import."""
    package = tmp_path / "some_studies"
    package.mkdir()
    (package / "__init__.py").write_text("")
    body = (
        "from benchmarks.results import Figure, Finding\n"
        "def measure(lab):\n lab.report('measuring')\n lab.skip('no nginx here')\n"
    )
    (package / "wire.py").write_text(body + " return Finding('The wire', {'x': Figure.of(1.0)}, notes=['a note'])\n")
    (package / "hang.py").write_text(body + " raise RuntimeError('the service is gone')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "some_studies"
    for name in [name for name in sys.modules if name.startswith("some_studies")]:
        del sys.modules[name]


def test_a_failed_study_is_in_the_report_and_the_others_still_run(
    studies: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "measure", partial(suite.measure, package=studies))
    old = tmp_path / "old.json"
    at = "2020-01-01T00:00:00+00:00"
    older = results(
        Finding("An older study", name="batch"), quick=True, machine=suite.describe_machine(versions()), at=at
    )
    suite.write(older, old)
    assert command.main(["hang", "wire", "--quick", "--out", str(tmp_path / "out"), "--merge", str(old)]) == 1
    written = suite.read(tmp_path / "out" / "results.json")
    assert [finding.name for finding in written.findings] == ["wire", "hang", "batch"]
    wire, hang, batch = written.findings
    assert (wire.failed, wire.notes, batch.at) == ("", ["a note", "no nginx here"], at)
    assert hang.failed == "RuntimeError: the service is gone (hang.py:5)"
    assert hang.failed in (tmp_path / "out" / "report.html").read_text("utf-8")
    shown = capfd.readouterr().out
    for each in ("1 of 2", "measuring", "failed: RuntimeError", "An older study", "report.html"):
        assert each in shown


def test_an_interrupt_keeps_earlier_findings(capsys: pytest.CaptureFixture[str]) -> None:
    def measure(name: str) -> Finding:
        if name == "latency":
            raise KeyboardInterrupt
        return COST

    studies = suite.select_studies(["cost", "latency", "wire"])
    findings = suite.run(studies, measure)
    assert [(finding.name, finding.failed) for finding in findings] == [("cost", ""), ("latency", suite.INTERRUPTED)]
    assert "interrupted" in capsys.readouterr().out


@pytest.mark.parametrize(("attempts", "failed", "times"), [(1, "a stall", 1), (2, "", 2), (3, "", 2)])
def test_a_study_that_fails_runs_again_as_often_as_it_may(
    capsys: pytest.CaptureFixture[str], attempts: int, failed: str, times: int
) -> None:
    results = [COST, suite.failed_finding("cost", "a stall")]
    findings = suite.run(["cost"], lambda _: results.pop(), attempts=attempts)
    assert [(finding.name, finding.failed) for finding in findings] == [("cost", failed)]
    assert len(results) == 2 - times
    assert capsys.readouterr().out.count("a stall") == 1


def test_a_study_whose_process_dies_becomes_a_finding(studies: str, tmp_path: Path) -> None:
    (tmp_path / studies / "hang.py").write_text("import os\ndef measure(lab):\n os._exit(3)\n")
    finding = suite.measure("hang", suite.Run(True, 0, tmp_path / "scratch"), studies)
    assert finding.failed == "Its process ended with code 3 and without a result."


def test_a_report_is_drawn_again_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "kept.json"
    suite.write(results(Finding("The wire", name="wire")), file)
    assert command.main(["--report", str(file)]) == 0
    assert "The wire" in (tmp_path / "report.html").read_text("utf-8")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["kept.json", "report.html"]
    assert "bars met" not in capsys.readouterr().out  # none was measured


def test_the_picture_needs_the_quiet_and_the_bad_days(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, drawn = tmp_path / "kept.json", tmp_path / "deep" / "picture.svg"
    lines = LineChart("by load", "load", "ms", [Line("us", [(1.0, Figure.of(2.0)), (2.0, Figure.of(3.0))], ours=True)])
    bars = BarChart("by peer", "µs", ["us"], {"CPU": [Figure.of(1.0)]}, ours=["us"])
    cost, *days = [Finding("", name=name, drawings=[bars if name == "cost" else lines]) for name in PICTURED]
    suite.write(results(cost, *days), file)
    assert command.main(["--report", str(file), "--picture", str(drawn)]) == 0
    assert 'viewBox="0 0 1200 820"' in drawn.read_text("utf-8")
    assert DARK in drawn.read_text("utf-8")
    suite.write(results(cost, *days[:-1]), file)
    assert command.main(["--report", str(file), "--picture", str(tmp_path / "none.png")]) == 1
    assert f"no picture: it needs results of {', '.join(PICTURED)}" in capsys.readouterr().out
    assert not (tmp_path / "none.png").exists()


def test_the_soak_runs_only_if_named() -> None:
    assert "soak" not in suite.select_studies([])
    assert suite.select_studies(["soak", "cost"]) == ["cost", "soak"]


@pytest.mark.parametrize(
    "words",
    [
        ["no_such_study"],
        ["--profile", "x"],
        ["cost", "wire", "--profile", "x"],
        ["--rounds", "-1"],
        ["interpreters"],
        ["cost", "--python", "python3.13"],
        ["--report", "no_such_file"],
    ],
)
def test_a_wrong_command_is_refused_before_any_measurement(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(words)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_older_results_that_do_not_fit_are_refused_before_any_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "measure", lambda *_: pytest.fail("it was measured"))
    old = tmp_path / "old.json"
    suite.write(results(COST), old)
    with pytest.raises(SystemExit):
        command.main(["wire", "--merge", str(old), "--out", str(tmp_path)])
    assert "another machine" in capsys.readouterr().err


def test_a_file_without_results_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"at": 1}))
    with pytest.raises(SystemExit):
        command.main(["--report", str(file)])
