"""The report as one self-contained HTML file. page.css has its style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from benchmarks.performance_targets import BarResult, Verdict, limit_text, summary
from benchmarks.report import chart_figure, headline
from benchmarks.report.palette import DARK, LIGHT, css
from benchmarks.report.target_strip import strip_svg
from benchmarks.report.text_format import column_names, format_number, format_spread
from benchmarks.report.text_to_html import to_html
from benchmarks.results import Figure, Finding, Results, Table

_STYLES = {Verdict.MET: "met", Verdict.MISSED: "missed", Verdict.NOT_MEASURED: "absent"}


def page(results: Results, judged: Sequence[BarResult]) -> str:
    body = [
        _top(results, judged),
        _bars(judged),
        *(_finding(finding, results) for finding in results.findings),
        _foot(),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>cashier: benchmarks of {escape(results.at[:10])}</title>\n<style>\n{_style()}</style>\n"
        "</head>\n<body>\n<main>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )


def _style() -> str:
    dark = "--paper:#12161c;--card:#191e26;--met:#4cc38a;--missed:#ff7b7f;--unsure:#e0a93b;"
    sheet = Path(__file__).with_name("page.css").read_text("utf-8")
    return f":root{{{css(LIGHT)}}}\n{sheet}@media (prefers-color-scheme: dark) {{ :root {{ {css(DARK)}{dark} }} }}\n"


def _top(results: Results, judged: Sequence[BarResult]) -> str:
    first, comparison = headline.sentence(results)
    tiles = "".join(
        f"<li><b>{escape(tile.value)} <small>{escape(tile.unit)}</small></b><span>{escape(tile.what)}</span></li>"
        for tile in headline.tiles(results)
    )
    anchors = [("bars", "bars"), *((finding.name, finding.name) for finding in results.findings)]
    parts = [
        '<header>\n<p class="kicker">cashier · benchmarks</p>',
        f"<h1>{escape(first)}</h1>",
        f'<p class="lead">{escape(comparison)}</p>' if comparison else "",
        '<p class="quick">This was a quick run, which only checks that everything works. Its figures mean nothing.</p>'
        if results.quick
        else "",
        f'<ul class="tiles">{tiles}</ul>' if tiles else "",
        f"<p><strong>{escape(sentence)}.</strong></p>" if (sentence := summary(judged)) else "",
        _run(results),
        "<nav>" + "".join(f'<a href="#{escape(to)}">{escape(name)}</a>' for to, name in anchors) + "</nav>\n</header>",
    ]
    return "\n".join(part for part in parts if part)


def _run(results: Results) -> str:
    machine = results.machine
    entries = {
        "measured": results.at.replace("T", " ").replace("+00:00", " UTC"),
        "command": f"<code>{escape(results.command)}</code>",
        "machine": escape(f"{machine.processor}, {machine.cores} cores, {machine.kernel}"),
        "with": escape(", ".join(f"{name} {version}" for name, version in machine.versions.items())),
    }
    return '<dl class="run">' + "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in entries.items()) + "</dl>"


def _bars(judged: Sequence[BarResult]) -> str:
    heads = "".join(f"<th>{name}</th>" for name in ("", "bar", "found", "", "position", "goal"))
    rows = "".join(f"<tr>{_bar(each)}</tr>\n" for each in judged)
    return (
        '<section id="bars">\n<h2>Results against the bars</h2>\n'
        "<p>A bar is the limit that must hold; the goal is the target. The median of the rounds counts unless "
        "the bar says otherwise, rounded against us. In the strips the solid line in the middle is the bar, the "
        "dashed one the goal, and left is better; from the middle to an end is a factor of eight.</p>\n"
        f'<div class="bars scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>\n{rows}</tbody></table></div>\n</section>"
    )


def _bar(judged: BarResult) -> str:
    bar = judged.bar
    unit = f" {bar.unit}" if bar.unit and judged.value_text else ""
    spread = f"<small>{escape(judged.spread)}</small>" if judged.spread else ""
    verdict = f'<span class="verdict {_STYLES[judged.verdict]}">{judged.verdict.value}</span>'
    if judged.spans_bar:
        verdict = f'<span class="verdict unsure">{judged.verdict.value}</span><small>not in every round</small>'
    why = f"<small>{escape(judged.why)}</small>" if judged.why else ""
    goal = (
        f"{escape(limit_text(bar, bar.goal))}<small>{escape(judged.distance)}</small>" if bar.goal is not None else ""
    )
    return (
        f"<td>{escape(bar.what)}</td><td>{escape(limit_text(bar, bar.now))}</td>"
        f'<td class="found"><strong>{escape(judged.value_text + unit)}</strong>{spread}</td>'
        f'<td>{verdict}{why}</td><td class="strip">{strip_svg(judged)}</td><td class="goal">{goal}</td>'
    )


def _finding(finding: Finding, results: Results) -> str:
    parts = [
        f'<section class="finding" id="{escape(finding.name)}">\n<h2>{escape(finding.title)}</h2>',
        f'<p class="failed">{escape(finding.failed)}</p>' if finding.failed else "",
        to_html(finding.about),
        *(chart_figure.figure(drawing, f"{finding.name}-{place}") for place, drawing in enumerate(finding.drawings)),
        *(_table(table) for table in finding.tables),
        _notes(finding),
        f'<p class="when">{escape(_when(finding, results))}</p>\n</section>',
    ]
    return "\n".join(part for part in parts if part)


def _table(table: Table) -> str:
    names = column_names(table)
    noted = any(row.note for row in table.rows)
    heads = "".join(f"<th>{escape(name)}</th>" for name in ["", *names, *([""] if noted else [])])
    rows = []
    for row in table.rows:
        note = f'<td class="text">{escape(row.note)}</td>' if noted else ""
        rows.append(
            f"<tr><td>{escape(row.label)}</td>{''.join(_cell(row.figures.get(name)) for name in names)}{note}</tr>"
        )
    aside = f'<p class="aside">{escape(table.note)}</p>' if table.note else ""
    head = f"<caption>{escape(table.title)}</caption><thead><tr>{heads}</tr></thead>"
    return (
        f'<div class="table"><div class="scroll"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>{aside}</div>'
    )


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "<td></td>"
    spread = f"<small>{escape(format_spread(figure))}</small>" if format_spread(figure) else ""
    return f"<td>{escape(format_number(figure.median))}{spread}</td>"


def _notes(finding: Finding) -> str:
    return (
        f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in finding.notes)}</ul>'
        if finding.notes
        else ""
    )


def _when(finding: Finding, results: Results) -> str:
    took = f"{finding.name}: took {finding.seconds:,.0f} s"
    at = finding.at or results.at
    return f"{took}, measured {at.replace('T', ' ').replace('+00:00', ' UTC')}"


def _foot() -> str:
    return (
        "<footer><p>Each figure is the median of its rounds, with the lowest and the highest round below it. "
        "Rounds of compared programs interleave. The program under test has one core, its upstreams and the load "
        "have the other. Latency counts from the time at which a request was due. Ratios are taken round by round "
        "on one machine and are comparable with other machines; absolute figures hold for this machine.</p>"
        "<p>The same as data: <code>results.json</code>. To run the benchmarks: "
        "<code>python -m benchmarks</code>.</p></footer>"
    )
