"""The report as one self-contained HTML file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.performance_targets import BarResult, summary
from benchmarks.report.charts import DARK, inline_svg
from benchmarks.report.tables import Cell, Grid, bars_grid, table_grid
from benchmarks.results import Finding, Results

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1060px; margin: 0 auto; padding: 24px 16px; }
section { margin-top: 56px; border-top: 1px solid #8884; }
.about { white-space: pre-line; max-width: 80ch; }
.scroll { overflow-x: auto; margin: 20px 0; }
svg { display: block; min-width: 700px; width: 100%; }
table { border-collapse: collapse; font-size: 14px; line-height: 1.3; }
caption { text-align: left; font-weight: 600; }
th, td { padding: 5px 0 5px 16px; border-bottom: 1px solid #8884; text-align: right; vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; text-align: left; min-width: 12em; }
small, .small { display: block; font-size: 13px; opacity: 0.75; }
.green { color: #1f8a54; } .red { color: #d8434a; } .yellow { color: #a8760a; } .dim { opacity: 0.75; }
"""


def page(results: Results, judged: Sequence[BarResult]) -> str:
    body = [*_top(results, judged), *(part for finding in results.findings for part in _finding(finding, results.at))]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>cashier: benchmarks of {escape(results.at[:10])}</title>\n<style>{_STYLE}{DARK}</style>\n"
        "</head>\n<body>\n<main>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )


def _top(results: Results, judged: Sequence[BarResult]) -> Iterator[str]:
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    yield "<h1>cashier: benchmarks</h1>"
    if results.quick:
        yield _paragraph("This was a quick run, which only checks that everything works. Its figures mean nothing.")
    yield _paragraph(
        f"Measured {_date(results.at)} by `{results.command}` on {machine.processor}, {machine.cores} cores, "
        f"{machine.kernel}, with {versions}."
    )
    yield _paragraph(
        "Each figure is the median of its rounds, with the lowest and the highest round below it. Rounds of compared "
        "programs interleave. The program under test has one core, its upstreams and the load have the other. Latency "
        "counts from the time at which a request was due. Ratios are taken round by round on one machine and are "
        "comparable with other machines; absolute figures hold for this machine. The same as data: results.json."
    )
    anchors = " · ".join(f'<a href="#{escape(each.name)}">{escape(each.name)}</a>' for each in results.findings)
    yield f"<nav>{anchors}</nav>"
    yield _paragraph(f"{sentence}." if (sentence := summary(judged)) else "")
    yield _table(bars_grid(judged))


def _finding(finding: Finding, run_at: str) -> Iterator[str]:
    yield f'<section id="{escape(finding.name)}">\n<h2>{escape(finding.title)}</h2>'
    yield f'<p class="red">{escape(finding.failed)}</p>' if finding.failed else ""
    # Its lines are as long as in the source.
    yield _paragraph(re.sub(r"(?<!\n)\n(?!\n| *- ) *", " ", finding.about))
    for place, drawing in enumerate(finding.drawings):
        yield f'<div class="scroll">{inline_svg(drawing, f"{finding.name}-{place}")}</div>'
    yield from (_table(table_grid(table)) for table in finding.tables)
    yield f'<ul class="small">{"".join(f"<li>{escape(note)}</li>" for note in finding.notes)}</ul>'
    took = f"{finding.name}: took {finding.seconds:,.0f} s, measured {_date(finding.at or run_at)}"
    yield f'<p class="small">{escape(took)}</p>\n</section>'


def _paragraph(text: str) -> str:
    return f'<p class="about">{escape(text)}</p>'


def _date(at: str) -> str:
    return at.replace("T", " ").replace("+00:00", " UTC")


def _table(grid: Grid) -> str:
    heads = "".join(f"<th>{escape(head)}</th>" for head in ("", *grid.heads))
    rows = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in grid.rows)
    return (
        f'<div class="scroll"><table><caption>{escape(grid.title)}</caption><thead><tr>{heads}</tr></thead>'
        f'<tbody>\n{rows}</tbody></table><p class="small">{escape(grid.note)}</p></div>'
    )


def _cell(cell: Cell) -> str:
    aside = f"<small>{escape(cell.aside)}</small>" if cell.aside else ""
    return f'<td class="{cell.style}">{escape(cell.text)}{aside}</td>'
